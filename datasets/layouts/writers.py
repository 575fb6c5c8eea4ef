"""Data sets written as others read them: COCO JSON, VOC XML, YOLO, CSV; masks, and a folder a class.

Each writes into a folder of its own, pictures included, what `datasets.layouts` reads as what was given.
"""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.annotations import Annotations
from falconet.datasets.classes import write_classes
from falconet.datasets.formats.coco import write_coco
from falconet.datasets.formats.masks import write_mask
from falconet.datasets.formats.voc import write_split, write_voc
from falconet.datasets.images.images import check_header, read_bytes, turn
from falconet.datasets.layouts.file_tree import picture_size, split_of
from falconet.datasets.layouts.mask_layout import COLOUR, HEX
from falconet.datasets.packed_strings import PackedStrings

UNFINISHED = '.unfinished'
WITH_BOXES = ('coco', 'voc', 'yolo', 'csv')


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a place to write to, whose content becomes that of `folder` once all of it is there.

    What is interrupted leaves nothing behind, or a hidden folder that the next run removes: a part of a data
    set looks like all of one.

    Raises:
        UserError: something is in `folder`, or it cannot be written to.
    """
    unfinished = folder / UNFINISHED
    try:
        if folder.exists() and (
            not folder.is_dir() or {each.name for each in folder.iterdir()} - {UNFINISHED}
        ):
            raise UserError(f'{folder} is not empty: nothing there is replaced, give another folder')
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            for each in sorted(unfinished.iterdir()):
                each.rename(folder / each.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UserError(f'cannot write to {folder}: {error}') from error


def new_names(paths: Sequence[str]) -> list[str]:
    """Return a name for every picture in one folder, its own where no other has the same stem."""
    stems = Counter(Path(path).stem for path in paths)
    names = [
        Path(path).name if stems[Path(path).stem] == 1 else '_'.join(Path(path).parts[-3:]) for path in paths
    ]
    if len({Path(name).stem for name in names}) < len(names):
        names = [f'{index:06d}_{Path(path).name}' for index, path in enumerate(paths)]
    return names


def copied(path: str, target: Path) -> None:
    """Put a copy of a picture there."""
    shutil.copyfile(path, target)


def linked(path: str, target: Path) -> None:
    """Put a link to a picture there."""
    os.symlink(Path(path).resolve(), target)


Place = Callable[[str, Path], None]


def place_pictures(paths: Sequence[str], names: Sequence[str], folder: Path, place: Place) -> list[str]:
    """Put pictures into a folder, under these names; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in zip(paths, names, strict=True):
        place(path, folder / name)
    return [str(folder / name) for name in names]


def not_held(annotations: Annotations, kind: str) -> list[str]:
    """Return what a format cannot hold of some objects, in words."""
    lines = []
    crowds = int(annotations.crowd.sum())
    if crowds and kind in ('yolo', 'csv'):
        lines.append(f'{crowds} crowds are left out: {kind} has no such mark')
    lines += names_not_held(annotations.class_names, kind)
    if kind in ('voc', 'csv') and list(annotations.class_names) != sorted(annotations.class_names):
        lines.append(f'the order of the classes: {kind} has no list of them, letters decide it')
    if kind in ('voc', 'csv') and (
        unused := len(annotations.class_names) - len(np.unique(annotations.labels))
    ):
        lines.append(f'{unused} classes without an object: {kind} has no list of classes')
    return lines


def names_not_held(names: Sequence[str], kind: str) -> list[str]:
    """Return what a format changes of the names of classes, in words.

    Raises:
        UserError: a name that would be read as something else.
    """
    for name in names:
        if not name.strip() or any(not letter.isprintable() for letter in name):
            raise UserError(f'class {name!r}: {kind} cannot hold such a name. Rename it: --merge')
        if kind == 'masks' and (name.startswith('#') or COLOUR.fullmatch(name) or HEX.fullmatch(name)):
            raise UserError(
                f'class {name!r} would be read as a colour or a remark in classes.txt. Rename it: --merge'
            )
        if kind == 'folders' and ('/' in name or name.startswith('.') or split_of(name) or '\\' in name):
            raise UserError(f'class {name!r} cannot be the name of a folder of pictures. Rename it: --merge')
    blanks = [name for name in names if name != name.strip()]
    if blanks and kind in ('voc', 'csv', 'masks'):
        return [f'blanks around a name ({", ".join(map(repr, blanks[:3]))}): {kind} leaves them out']
    return []


def write_boxes(parts: Mapping[str, Annotations], out: Path, kind: str, *, place: Place = copied) -> None:
    """Write objects and pictures of every split.

    Args:
        parts: objects by split; '' for data without.
        out: an empty folder.
        kind: one of WITH_BOXES.
        place: puts a picture somewhere; `copied`, `linked`, or what changes it on the way.
    """
    everything = [path for each in parts.values() for path in each.paths]
    names = iter(new_names(everything))
    rows: list[tuple[object, ...]] = []
    for split, annotations in parts.items():
        below = {'coco': split or 'images', 'voc': 'JPEGImages', 'csv': 'images'}.get(kind, f'images/{split}')
        paths = list(annotations.paths)
        placed = place_pictures(paths, [next(names) for _ in paths], out / below, place)
        moved = as_shown(replace(annotations, paths=PackedStrings(placed)))
        if kind == 'coco':
            (out / 'annotations').mkdir(exist_ok=True)
            write_coco(out / f'annotations/instances_{split or "default"}.json', moved, out / below)
        elif kind == 'voc':
            (out / 'Annotations').mkdir(exist_ok=True)
            write_voc(out / 'Annotations', moved)
            if split:
                (out / 'ImageSets/Main').mkdir(parents=True, exist_ok=True)
                write_split(out / 'ImageSets/Main', split, (Path(path).stem for path in placed))
        elif kind == 'yolo':
            _write_yolo(moved, out / f'labels/{split}')
        else:
            rows += _rows(moved, split)
    names_of = next(iter(parts.values())).class_names
    if kind == 'yolo':
        import yaml

        content = {'names': dict(enumerate(names_of)), **{split: f'images/{split}' for split in parts}}
        (out / 'data.yaml').write_text(
            yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding='utf-8'
        )
    if kind == 'csv':
        header = ('image', 'xmin', 'ymin', 'xmax', 'ymax', 'label', 'split')
        with (out / 'boxes.csv').open('w', encoding='utf-8', newline='') as file:
            csv.writer(file).writerows([header, *rows])


def as_shown(annotations: Annotations) -> Annotations:
    """Return objects in the pixels that viewers show, where they were drawn on stored ones that lie sideways.

    Not every format states sizes, by which a reader could tell.
    """
    boxes, original = annotations.boxes.copy(), annotations.original_boxes.copy()
    sizes = annotations.sizes.copy()
    for index, path in enumerate(annotations.paths):
        height, width = stored = (*annotations.sizes[index].tolist(),)
        if picture_size(Path(path), exif='apply') != stored[::-1] or height == width:
            continue
        orientation = check_header(read_bytes(path), path=path)
        objects = annotations.objects(index)
        for corners in (boxes[objects], original[objects]):  # views
            corners[:] = corners[:, [1, 0, 3, 2]]
            if orientation in (6, 7):
                corners[:, [0, 2]] = height - corners[:, [2, 0]]
            if orientation in (7, 8):
                corners[:, [1, 3]] = width - corners[:, [3, 1]]
        sizes[index] = stored[::-1]
    return replace(annotations, boxes=boxes, original_boxes=original, sizes=sizes)


def _write_yolo(annotations: Annotations, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(annotations.paths):
        height, width = annotations.sizes[index].tolist()
        lines = []
        for k in _plain_objects(annotations, index):
            left, top, right, bottom = annotations.original_boxes[k].tolist()
            values = [(left + right) / 2 / width, (top + bottom) / 2 / height]
            values += [(right - left) / width, (bottom - top) / height]
            lines.append(f'{annotations.labels[k]} {" ".join(f"{value:.17g}" for value in values)}\n')
        (folder / f'{Path(path).stem}.txt').write_text(''.join(lines), encoding='utf-8')


def _rows(annotations: Annotations, split: str) -> Iterable[tuple[object, ...]]:
    for index, path in enumerate(annotations.paths):
        objects = _plain_objects(annotations, index)
        for k in objects:
            corners = [f'{value:.17g}' for value in annotations.original_boxes[k].tolist()]
            yield (Path(path).name, *corners, annotations.class_names[annotations.labels[k]], split)
        if not objects:
            yield (Path(path).name, '', '', '', '', '', split)


def _plain_objects(annotations: Annotations, index: int) -> list[int]:
    where = annotations.objects(index)
    return [k for k in range(where.start, where.stop) if not annotations.crowd[k]]


def write_masks(
    parts: Mapping[str, Sequence[tuple[str, np.ndarray]]],
    classes: Sequence[str],
    out: Path,
    *,
    place: Place = copied,
) -> None:
    """Write pictures and label maps of every split: images/<split>, masks/<split> and classes.txt.

    `place` as in `write_boxes`.
    """
    names = iter(new_names([path for each in parts.values() for path, _ in each]))
    for split, pairs in parts.items():
        chosen = [next(names) for _ in pairs]
        placed = place_pictures([path for path, _ in pairs], chosen, out / f'images/{split}', place)
        (out / f'masks/{split}').mkdir(parents=True, exist_ok=True)
        for (path, mask), name, there in zip(pairs, chosen, placed, strict=True):
            seen = picture_size(Path(there), exif='apply')
            if seen == mask.shape[::-1] != mask.shape:  # drawn on the stored pixels
                mask = turn(mask, check_header(read_bytes(there), path=there))
            elif seen not in (None, mask.shape):
                raise UserError(f'{path}: its label map of {mask.shape} is none of the picture, {seen}')
            write_mask(out / f'masks/{split}/{Path(name).stem}.png', mask)
    write_classes(out / 'classes.txt', classes)


def write_class_folders(
    parts: Mapping[str, Sequence[tuple[str, str]]], out: Path, *, place: Place = copied
) -> None:
    """Write (picture, class) of every split as <split>/<class>/<picture>; `place` as in `write_boxes`."""
    for split, pairs in parts.items():
        for name in sorted({label for _, label in pairs}):
            paths = [path for path, label in pairs if label == name]
            place_pictures(paths, new_names(paths), out / split / name, place)
