"""Pictures with masks of the same names: folders side by side, or x.jpg with x_mask.png beside it.

images/, masks/, classes.txt                                     ours, most people's
JPEGImages/, SegmentationClass/, ImageSets/Segmentation/*.txt    VOC; CVAT (labelmap.txt has the colours)
data/, labels/                                                   FiftyOne
train/x.jpg, train/x_mask.png, train/_classes.csv                Roboflow
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.layouts.base import Layout, sorted_splits
from falconet.datasets.layouts.file_tree import MASK_FOLDERS, NO_MASKS, Tree, names_in, split_of_place
from falconet.datasets.layouts.tables import read_table

IMAGE_FOLDERS = frozenset(('images', 'image', 'imgs', 'img', 'jpegimages', 'data', 'pictures', 'photos'))
SUFFIX = re.compile(r'(.+?)[_-](?:mask|masks|label|labels|seg|gt)$', re.I)
CLASS_FILES = ('classes.txt', 'labelmap.txt', '_classes.csv', 'colors.txt', 'colours.txt', 'label_colors.txt')
COLOUR = re.compile(r'(.+?)[\s,:;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s:;,]*$')
HEX = re.compile(r'(.+?)[\s,:;]+#([0-9a-fA-F]{6})$')


class MaskPairs(NamedTuple):
    """Pictures and masks, and what the masks' values mean.

    Attributes:
        pairs: (image file, mask file).
        classes: names by index; empty where no list says them.
        colours: (red, green, blue) of each class where masks are coloured, else empty.
        official: the folder is VOC's own, whose classes are known.
    """

    pairs: list[tuple[str, str]]
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    official: bool


def recognise(tree: Tree, **_: Any) -> Layout | None:
    """Return the layout if there are masks."""
    masks: dict[tuple[str, ...], list[str]] = {}
    others: dict[tuple[str, ...], list[str]] = {}
    for file in tree.images:
        parts = [part.lower() for part in PurePosixPath(file).parts[:-1]]
        stem = PurePosixPath(file).stem
        if NO_MASKS & set(parts):
            continue
        place = tuple(part for part in parts if part not in MASK_FOLDERS | IMAGE_FOLDERS)
        suffix = SUFFIX.fullmatch(stem)
        is_mask = bool(MASK_FOLDERS & set(parts)) or (
            suffix is not None and bool(tree.by_stem.get(file[: file.rindex(stem)] + suffix.group(1)))
        )
        stem = suffix.group(1) if is_mask and suffix is not None else stem
        (masks if is_mask else others).setdefault((*place, stem), []).append(file)
    both = masks.keys() & others.keys()
    if not both:
        return None
    for kind, files_of in (('pictures', others), ('masks', masks)):
        if double := [files for key, files in files_of.items() if key in both and len(files) > 1]:
            tree.refuse(
                'names_double',
                [' or '.join(each) for each in double],
                f'{tree.root}: {" and ".join(double[0])} are {kind} of one name: which one counts? Rename or '
                'remove the other',
            )
    pairs = sorted((others[key][0], masks[key][0]) for key in both)
    folders = sorted({PurePosixPath(mask).parent.as_posix() for _, mask in pairs})
    lists = _from_lists(tree, pairs)
    if not lists and (bare := sorted(files[0] for key, files in others.items() if key not in masks)):
        tree.refuse(
            'pictures_unlabelled',
            bare,
            f'{tree.root}: {len(bare)} of {len(others)} pictures have no mask of the same name: '
            f'{listing(bare)}. Add the masks, or take the pictures away',
        )
    found: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        found.setdefault(split_of_place(pair[0]), []).append(pair)
    splits = sorted_splits(lists or found)
    classes, colours = _classes(tree)
    official = any('segmentationclass' in folder.lower() for folder in folders)

    def read(chosen: list[tuple[str, str]], problems: Problems) -> MaskPairs:
        paths = [(str(tree.path(image)), str(tree.path(mask))) for image, mask in chosen]
        orphans = sorted(files[0] for key, files in masks.items() if key not in others)
        problems.add('masks without a picture, left out', len(orphans), orphans)
        return MaskPairs(paths, classes, colours, official)

    def unnamed() -> list[str]:
        used = {image for pairs in splits.values() for image, _ in pairs}
        return tree.beside(used) if lists else []

    seen = f'masks: {len(pairs)} in {listing(folders, 3)}' + (' (colours)' if colours else '')
    return Layout('masks', seen, splits, read, unnamed)


def _from_lists(tree: Tree, pairs: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    by_stem = {PurePosixPath(image).stem: (image, mask) for image, mask in pairs}
    found: dict[str, list[tuple[str, str]]] = {}
    owner: dict[str, str] = {}
    lists = [file for file in tree.ending('.txt') if 'ImageSets/Segmentation/' in f'/{file}']
    for split in ('train', 'val', 'test', 'default'):
        for file in lists:
            if PurePosixPath(file).name != f'{split}.txt':
                continue
            names = [PurePosixPath(name).stem for name in names_in(tree, file)]
            if absent := [name for name in names if name not in by_stem]:
                tree.refuse(
                    'annotations_without_picture',
                    [f'{file}: {name}' for name in absent],
                    f'{tree.path(file)}: {len(absent)} of {len(names)} pictures or their masks are '
                    f'not there: {listing(absent)}',
                )
            if twice := [name for name in names if name in owner]:
                tree.refuse(
                    'pictures_in_two_splits',
                    [f'{name}: {owner[name]} and {split}' for name in twice],
                    f'{tree.path(file)}: {listing(twice)} are in {owner[twice[0]]}.txt too. What is learnt '
                    'must not be scored: take them out of one list',
                )
            names = [name for name in names if name in by_stem and name not in owner]
            owner |= dict.fromkeys(names, split)
            found['' if split == 'default' else split] = [by_stem[name] for name in names]
    return found


def _classes(tree: Tree) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Return the names of the classes, and the colours of all of them or of none."""
    files = [file for file in tree.files if PurePosixPath(file).name in CLASS_FILES]
    if not files:
        return (), ()
    files.sort(key=lambda file: (file.count('/'), file))
    file = files[0]
    if file.endswith('.csv'):
        return _from_table(tree, file), ()
    names: list[str] = []
    colours: list[tuple[int, int, int]] = []
    lines = [line.strip() for line in tree.text(file).splitlines()]
    for line in lines:
        if not line or line.startswith('#'):
            continue
        if match := HEX.fullmatch(line):
            names.append(match.group(1).strip())
            colours.append((*bytes.fromhex(match.group(2)),))  # type: ignore[arg-type]
        elif match := COLOUR.fullmatch(line.removesuffix('::')):
            names.append(match.group(1).strip())
            colours.append(tuple(int(each) for each in match.groups()[1:]))  # type: ignore[arg-type]
        else:
            names.append(line)
    if not names or len(set(names)) < len(names):
        raise UserError(f'{tree.path(file)}: expected a class a line, each once, found {names[:10]}')
    if colours and (len(colours) < len(names) or len(set(colours)) < len(colours)):
        raise UserError(
            f'{tree.path(file)}: {len(names)} classes with {len(set(colours))} different colours. Give every '
            'class a colour of its own (name r g b), or none of them one'
        )
    if any(value > 255 for colour in colours for value in colour):
        raise UserError(f'{tree.path(file)}: a colour goes from 0 to 255')
    return tuple(names), tuple(colours)


def _from_table(tree: Tree, file: str) -> tuple[str, ...]:
    """Return the names of Roboflow's list: 'Pixel Value, Class'."""
    header, lines = read_table(tree, file)
    if header != ['pixel_value', 'class']:
        raise UserError(f'{tree.path(file)}: expected the columns Pixel Value and Class, got {header}')
    found: Mapping[str, str] = {line.fields['pixel_value']: line.fields['class'] for line in lines}
    if sorted(found) != sorted(str(index) for index in range(len(lines))):
        raise UserError(f'{tree.path(file)}: pixel values should count from 0, got {listing(found, 10)}')
    return tuple(found[str(index)] for index in range(len(found)))
