"""What is wrong with pictures as such: how they are stored, their sizes, and those that are there twice."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from falconet.datasets.dataset import VisionDataset
from falconet.datasets.images.fingerprint import Glance, file_digest, glance_at_head
from falconet.datasets.images.images import ImageError
from falconet.datasets.images.near_duplicates import exact_pairs, glances, near_pairs
from falconet.doctor.finding import Finding, finding

ENLARGED = 2.0  # times that a picture is made larger for the network, from which on it is said
SHAPE = 2.0  # times that its aspect ratio differs from the input's
MOST_HEADS = 5000  # of a part: a second or two
KINDS = {'CMYK': 'cmyk', 'transparent': 'transparent', '16 bit': 'sixteen_bit'}


class Pictures(NamedTuple):
    """The pictures of one part of the data: those that were read, by number, and why others were not."""

    seen: dict[int, Glance]
    broken: dict[int, str]


def look_at(dataset: VisionDataset) -> Pictures:
    """Read every picture of a data set."""
    are_files = type(dataset).content is VisionDataset.content  # else they lie in shards
    return _sorted(glances(list(dataset.paths), content=None if are_files else dataset.content))


def look_at_heads(datasets: Mapping[str, VisionDataset], *, most: int = MOST_HEADS) -> dict[str, Pictures]:
    """Read the header of every picture only; of files of one size their digest, to find copies.

    Of parts with more than `most` pictures every second, third, ... is looked at.
    """

    def one(path: str) -> Glance | ImageError:
        try:
            return glance_at_head(path)
        except ImageError as error:
            return error

    def with_digest(each: Glance | ImageError) -> Glance | ImageError:
        if isinstance(each, Glance) and sizes[each.length] > 1:
            return each._replace(digest=file_digest(each.path))
        return each

    with ThreadPoolExecutor() as pool:
        chosen = {part: range(0, len(each), -(-len(each) // most) or 1) for part, each in datasets.items()}
        heads = {
            part: list(pool.map(one, (datasets[part].paths[index] for index in each)))
            for part, each in chosen.items()
        }
        sizes: dict[int, int] = {}
        for each in (each for part in heads.values() for each in part if isinstance(each, Glance)):
            sizes[each.length] = sizes.get(each.length, 0) + 1
        return {part: _sorted(pool.map(with_digest, each), chosen[part]) for part, each in heads.items()}


def _sorted(found: Iterable[Glance | ImageError], numbers: Iterable[int] | None = None) -> Pictures:
    seen: dict[int, Glance] = {}
    broken: dict[int, str] = {}
    for index, each in enumerate(found) if numbers is None else zip(numbers, found, strict=True):
        if isinstance(each, Glance):
            seen[index] = each
        else:
            broken[index] = each.reason
    return Pictures(seen, broken)


def storage(dataset: Any, pictures: Pictures, *, part: str) -> list[Finding]:
    """Return pictures that cannot be read, or are stored in a way that is worth a word."""
    found: list[Finding] = []
    cut = {index for index, reason in pictures.broken.items() if reason.startswith(('truncated', 'damaged'))}
    for kind, which in (('truncated', cut), ('unreadable', pictures.broken.keys() - cut)):
        places = (f'{dataset.paths[index]}: {pictures.broken[index]}' for index in sorted(which))
        found += finding(kind, places, part=part)
    heads = {each.path: each.head for each in pictures.seen.values() if each.head is not None}
    for stored, kind in KINDS.items():
        found += finding(kind, (path for path, head in heads.items() if head.kind == stored), part=part)
    grey = [path for path, head in heads.items() if head.kind == 'grey']
    if len(grey) < len(heads):
        found += finding('grey', grey, part=part)
    beside = (
        'exif_beside_boxes' if hasattr(dataset, 'annotations')
        else 'exif_beside_masks' if hasattr(dataset, 'read_mask')
        else None
    )  # fmt: skip
    if beside is not None and dataset.exif != 'ignore':
        turned = (
            f'{path}: orientation {head.orientation}' for path, head in heads.items() if head.orientation > 1
        )
        found += finding(beside, turned, part=part)
    return found


def sizes(
    dataset: VisionDataset, pictures: Pictures, *, part: str, input_size: tuple[int, int]
) -> list[Finding]:
    """Return pictures whose size does not fit the input (height, width), or their annotations."""
    small: list[str] = []
    shape: list[str] = []
    other: list[str] = []
    height, width = input_size
    for index, each in pictures.seen.items():
        if each.head is None:
            continue
        rows, columns = each.head.seen
        text = f'{each.path}: {columns}x{rows}'
        if min(height / rows, width / columns) > ENLARGED:
            small.append(text)
        ratio = (columns / rows) / (width / height)
        if max(ratio, 1 / ratio) > SHAPE:
            shape.append(text)
        if hasattr(dataset, 'annotations'):
            said = dataset.size(index)
            if said is not None and said not in ((rows, columns), each.head.size):
                other.append(f'{text}, {said[1]}x{said[0]} by its annotations')
    text = f'{width}x{height}'
    return [
        *finding('other_size', other, part=part),
        *finding('small', small, part=part, size=text, times=ENLARGED),
        *finding('shape', shape, part=part, size=text, ratio=SHAPE),
    ]


def copies(parts: Mapping[str, Pictures], labels: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Return the pictures that are there twice: in training and in what is scored, in one, under two labels.

    Args:
        parts: 'train', and what is scored.
        labels: of each part, the class of a picture by path, where it has one.
    """
    train = list(parts['train'].seen.values())
    names = {each.path for each in train}
    inside, near_inside = exact_pairs(train), near_pairs(train)
    exact = {b.path for _, b in inside}
    found = [
        *finding('copies_in_training', (_pair(a, b, 'is') for a, b in _once(inside))),
        *finding(
            'near_copies_in_training',
            (_pair(a, b, 'is nearly') for a, b in _once(near_inside) if b.path not in exact),
        ),
    ]
    pairs = [*inside, *near_inside]
    for part in (each for each in parts if each != 'train'):
        # A file that is named in both is a fault of its own.
        scored = [each for each in parts[part].seen.values() if each.path not in names]
        between, near_between = exact_pairs(train, scored), near_pairs(train, scored)
        exact = {b.path for _, b in between}
        found += [
            *finding('copies_between_splits', (_pair(a, b, 'is') for a, b in _once(between)), part=part),
            *finding(
                'near_copies_between_splits',
                (_pair(a, b, 'is nearly') for a, b in _once(near_between) if b.path not in exact),
                part=part,
            ),
        ]
        pairs += [*between, *near_between]
    class_of = {path: name for part in labels.values() for path, name in part.items()}
    apart = [(a, b) for a, b in pairs if class_of.get(a.path, '') != class_of.get(b.path, '')]
    return [
        *found,
        *finding(
            'copies_of_two_classes',
            (f'{_pair(a, b, "is like")}: {class_of[b.path]} and {class_of[a.path]}' for a, b in apart),
        ),
    ]


def _once(pairs: Sequence[tuple[Glance, Glance]]) -> list[tuple[Glance, Glance]]:
    """Return one pair for every second picture."""
    return list({b.path: (a, b) for a, b in reversed(pairs)}.values())[::-1]


def _pair(a: Glance, b: Glance, verb: str) -> str:
    return f'{b.path} {verb} {a.path}'
