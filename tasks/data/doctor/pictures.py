"""Every picture read once: those that cannot be, and those that are there twice.

Near copies are found by a perceptual hash (pHash of the library imagehash: the signs of a picture's lowest
frequencies), and believed only where the pictures themselves, made small, differ little: plain pictures of
one kind have similar hashes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tasks.data.dataset import VisionDataset
from tasks.data.doctor.finding import Finding, finding
from tasks.data.images import ImageError

# Bits of 64 in which the hashes of near copies differ at most.
NEAR_BITS = 6
# Grey levels by which they differ on average at most, in 16 x 16 cells.
NEAR_LEVELS = 6.0
BLOCK = 1024  # rows of the table of distances that are computed at once


class Seen(NamedTuple):
    """What is kept of a picture: digest of its bytes, hash, and itself made small, float32 (16, 16, 3)."""

    path: str
    digest: bytes
    code: int
    small: np.ndarray


class Pictures(NamedTuple):
    """The pictures of one part of the data: those that were read by number, and why others were not."""

    seen: dict[int, Seen]
    broken: dict[int, str]


def look_at(dataset: VisionDataset) -> Pictures:
    """Read every picture of a data set."""
    import cv2
    from imagehash import phash
    from PIL import Image

    def one(index: int) -> Seen | str:
        path = dataset.paths[index]
        try:
            image = dataset.read(index).image
            with open(path, 'rb') as file:
                digest = hashlib.sha256(file.read()).digest()
        except ImageError as error:
            return error.reason
        reduced = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
        bits = phash(Image.fromarray(reduced)).hash.ravel()
        code = int.from_bytes(np.packbits(bits).tobytes(), 'big')
        small = cv2.resize(reduced, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        return Seen(path, digest, code, small)

    with ThreadPoolExecutor() as pool:
        found = dict(enumerate(pool.map(one, range(len(dataset)))))
    return Pictures(
        {index: each for index, each in found.items() if isinstance(each, Seen)},
        {index: each for index, each in found.items() if isinstance(each, str)},
    )


def unreadable(dataset: VisionDataset, pictures: Pictures, *, part: str) -> list[Finding]:
    """Return the pictures that cannot be read."""
    return finding(
        'unreadable',
        f'pictures of {part} cannot be read',
        (f'{dataset.paths[index]}: {reason}' for index, reason in pictures.broken.items()),
        consequence='they are passed over, and another takes their place',
        fix='Copy or export them again, or take them out',
    )


def near_pairs(first: Sequence[Seen], second: Sequence[Seen] | None = None) -> list[tuple[Seen, Seen]]:
    """Return pairs of the same or nearly the same picture, within one list or between two."""
    other = first if second is None else second
    if not first or not other:
        return []
    codes = np.array([each.code for each in first], dtype=np.uint64)
    others = np.array([each.code for each in other], dtype=np.uint64)
    pairs = []
    for start in range(0, len(codes), BLOCK):
        bits = np.bitwise_count(codes[start : start + BLOCK, None] ^ others[None])
        for row, column in np.argwhere(bits <= NEAR_BITS).tolist():
            a, b = first[start + row], other[column]
            if second is None and start + row >= column:
                continue
            if a.digest == b.digest or np.abs(a.small - b.small).mean() <= NEAR_LEVELS:
                pairs.append((a, b))
    return pairs


def copies(parts: Mapping[str, Pictures], labels: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Return the pictures that are there twice: in training and in validation, in one, under two labels.

    Args:
        parts: 'train' and 'val'.
        labels: of each part, the class of a picture by path, where it has one.
    """
    train, val = (list(parts[part].seen.values()) for part in ('train', 'val'))
    between, inside = near_pairs(train, val), near_pairs(train)
    class_of = {**labels.get('val', {}), **labels.get('train', {})}
    apart = [(a, b) for a, b in (*between, *inside) if class_of.get(a.path, '') != class_of.get(b.path, '')]
    return [
        *finding(
            'copies_between_splits',
            'pictures of validation are copies of training pictures, or nearly so',
            (_pair(a, b) for a, b in _once(between)),
            consequence='they are learnt by heart and flatter every score',
            fix='Take them out of one of the two, or split by scene or by series',
        ),
        *finding(
            'copies_in_training',
            'training pictures are copies of others, or nearly so',
            (_pair(a, b) for a, b in _once(inside)),
            consequence='what is in them counts twice; a split by chance puts copies on both sides',
            fix='Keep one of each',
        ),
        *finding(
            'copies_of_two_classes',
            'pairs of copies have two classes',
            (f'{_pair(a, b)}: {class_of[a.path]} and {class_of[b.path]}' for a, b in apart),
            consequence='one of the two teaches what is wrong',
            fix='Look at them, and keep the right one',
        ),
    ]


def _once(pairs: Sequence[tuple[Seen, Seen]]) -> list[tuple[Seen, Seen]]:
    """Return one pair for every second picture."""
    return list({b.path: (a, b) for a, b in reversed(pairs)}.values())[::-1]


def _pair(a: Seen, b: Seen) -> str:
    return f'{b.path} {"is" if a.digest == b.digest else "is nearly"} {a.path}'
