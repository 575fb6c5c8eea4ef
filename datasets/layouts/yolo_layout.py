"""YOLO: a text file a picture, a line an object: class and a box, or an outline, in fractions of the picture.

    data.yaml, train/images, train/labels, valid/...                    Roboflow
    dataset.yaml or data.yaml, images/train, labels/train               FiftyOne, CVAT (Ultralytics)
    obj.names, obj_train_data/*.txt beside the pictures, train.txt      CVAT (YOLO 1.1)
    classes.txt, images/, labels/                                       Label Studio

Source of the format: https://docs.ultralytics.com/datasets/detect and /segment.
"""

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.classes import read_classes
from falconet.datasets.formats.coco import CocoObjects
from falconet.datasets.layouts.base import Layout, one_each, sorted_splits
from falconet.datasets.layouts.file_tree import Tree, picture_size, split_of, split_of_place, without_ending
from falconet.datasets.layouts.gathered_objects import Gathered, decimal

# Fractions that reach out farther are pixels; what is between 1 and this is clipped.
FARTHEST = 1.5
# Six digits of a fraction, which is what tools write: what may be off in a corner, in shares of a side.
DIGITS = 1e-6


def recognise(tree: Tree, *, outlines: bool = False, exif: str = 'auto', **_: Any) -> Layout | None:
    """Return the layout if there are label files and a list of classes."""
    labels = {file: image for image in tree.images if (file := _label_of(tree, image)) is not None}
    lists = [file for file in tree.ending('.yaml', '.yml') if 'names' in _yaml(tree, file)]
    names = [file for file in tree.files if PurePosixPath(file).name in ('classes.txt', 'obj.names')]
    orphans = _orphans(tree, labels)
    if not (labels or orphans):
        return None
    if not (lists or names):
        if not any('labels' in PurePosixPath(file).parts[:-1] for file in (*labels, *orphans)):
            return None
        raise UserError(
            f'{tree.root} has {len(labels) + len(orphans)} label files of YOLO and no list of classes: a '
            'data.yaml with `names: [first, second]`, or classes.txt with a name a line'
        )
    kept = {'': lists} if lists else {'': names}
    source = one_each(kept, root=tree.root, what='lists of YOLO classes')['']
    classes = _classes(tree, source)
    found = _splits(tree, _yaml(tree, source) if lists else {}, source)

    def read(images: list[str], problems: Problems) -> CocoObjects:
        by_image = {image: file for file, image in labels.items()}
        gathered = Gathered(classes)
        bare: list[str] = []
        broken: list[str] = []
        for image in images:
            size = picture_size(tree.path(image), exif=exif)
            if size is None:
                broken.append(image)
                continue
            gathered.picture(tree.path(image), size)
            if image not in by_image:
                bare.append(image)
                continue
            for name, box, outline in _objects(tree, by_image[image], classes, size, outlines=outlines):
                gathered.add(name, box, outline)
        problems.add('pictures dropped, not readable', len(broken), broken)
        problems.add('pictures without a label file, taken for empty', len(bare), bare)
        problems.add('label files without a picture', len(orphans), orphans)
        return gathered.objects()

    seen = f'YOLO: {source}, {len(labels)} label files'
    return Layout('yolo', seen, sorted_splits(found), read)


def _label_of(tree: Tree, image: str) -> str | None:
    """Return the label file of a picture: in labels/ for images/, or beside it."""
    parts = without_ending(image).split('/')
    places = [f'{"/".join(parts)}.txt']
    if 'images' in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index('images')
        places.insert(0, '/'.join([*parts[:last], 'labels', *parts[last + 1 :]]) + '.txt')
    found = next((place for place in places if place in tree.file_set), None)
    if found is not None:
        stem = without_ending(image)
        tree.same_stem([stem], source=found)
    return found


def _orphans(tree: Tree, labels: dict[str, str]) -> list[str]:
    return [
        file
        for file in tree.ending('.txt')
        if 'labels' in PurePosixPath(file).parts[:-1] and file not in labels and split_of(file[-12:]) == ''
    ]


def _yaml(tree: Tree, file: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(tree.text(file))
    except yaml.YAMLError as error:
        raise UserError(f'{tree.path(file)} is no YAML: {error}') from error
    return content if isinstance(content, dict) else {}


def _classes(tree: Tree, file: str) -> list[str]:
    if not file.endswith(('.yaml', '.yml')):
        return list(read_classes(tree.path(file)))
    names = _yaml(tree, file)['names']
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(
                f'{tree.path(file)}: names must count from 0 without a gap, got {listing(sorted(names), 8)}'
            )
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise UserError(f'{tree.path(file)}: names should be class names, each once, got {str(names)[:200]}')
    return [str(name) for name in names]


def _splits(tree: Tree, content: dict[str, Any], source: str) -> dict[str, list[str]]:
    """Return the pictures by split: by lists that the YAML names, else by their folders."""
    found: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for split in ('train', 'val', 'test'):
        lists = content.get(split)
        for each in [lists] if isinstance(lists, str) else lists or []:
            if not str(each).endswith('.txt'):
                continue
            near = (PurePosixPath(source).parent / PurePosixPath(str(each)).name).as_posix()
            if near not in tree.file_set:
                raise UserError(f'{tree.path(source)} names {each}, and there is no {tree.path(near)}')
            for line in tree.text(near).splitlines():
                image = tree.picture(line.strip(), near=near) if line.strip() else None
                if image is None:
                    continue
                if image in owner:
                    tree.refuse(
                        'pictures_in_two_splits' if owner[image] != split else 'names_twice_in_a_list',
                        [f'{image}: {owner[image]} and {split}'],
                        f'{tree.path(source)}: {image} is in {owner[image]} and in {split}, or twice in one: '
                        'what is learnt must not be scored, take it out',
                    )
                    continue
                owner[image] = split
                found.setdefault(split, []).append(image)
    if found:
        return found
    for image in tree.images:
        found.setdefault(split_of_place(image), []).append(image)
    return found


def _objects(
    tree: Tree, file: str, classes: list[str], size: tuple[int, int], *, outlines: bool
) -> list[tuple[str, list[float], Any]]:
    """Return class, box (xyxy) and outline (COCO's polygons) of every line of a label file, in pixels."""
    found = []
    for number, line in enumerate(tree.text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f'{tree.path(file)}, line {number}'
        try:
            index = decimal(words[0], where='the class')
            values = [decimal(word, where='a fraction') for word in words[1:]]
        except ValueError as error:
            raise UserError(f'{where}: {error}') from error
        if not np.isfinite(index) or index != int(index) or not 0 <= index < len(classes):
            raise UserError(
                f'{where}: class {words[0]}, there are {len(classes)} ({listing(classes)}), counted from 0'
            )
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise UserError(
                f'{where}: expected a class and 4 fractions (x, y, width, height), or 3 points and more, got '
                f'{len(values)} numbers behind the class'
            )
        if not np.isfinite(values).all() or max(values) > FARTHEST or min(values) < 1 - FARTHEST:
            raise UserError(
                f'{where}: expected fractions of the picture, 0 to 1, got {listing(words[1:])}. Pixels? '
                'Divide by the width and height of the picture'
            )
        found.append((classes[int(index)], *_in_pixels(values, size, outlines=outlines)))
    return found


def _in_pixels(values: list[float], size: tuple[int, int], *, outlines: bool) -> tuple[list[float], Any]:
    height, width = size
    sides = np.array([width, height], dtype=np.float64)
    if len(values) == 4:
        middle, extent = np.array(values[:2]), np.array(values[2:])
        corners = _snapped(np.stack([middle - extent / 2, middle + extent / 2]) * sides, sides)
        (left, top), (right, bottom) = corners.tolist()
        outline = [[left, top, right, top, right, bottom, left, bottom]] if outlines else None
        return [left, top, right, bottom], outline
    points = _snapped(np.array(values).reshape(-1, 2) * sides, sides)
    box = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    return box, [points.ravel().tolist()] if outlines else None


def _snapped(points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return whole pixels where the digits of a fraction cannot tell a point from one."""
    whole = np.round(points)
    return np.where(np.abs(points - whole) <= DIGITS * sides, whole, points)
