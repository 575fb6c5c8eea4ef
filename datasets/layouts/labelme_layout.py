"""LabelMe's JSON, one file a picture: shapes of points in pixels. https://github.com/wkentaro/labelme"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.formats.coco import CocoObjects
from falconet.datasets.formats.coco_values import check_size, number, whole
from falconet.datasets.layouts.base import Layout, sorted_splits
from falconet.datasets.layouts.file_tree import Tree, picture_size, split_of_place, without_ending
from falconet.datasets.layouts.gathered_objects import Gathered

CIRCLE = np.linspace(0, 2 * np.pi, 48, endpoint=False)


def recognise(
    tree: Tree, *, classes: Sequence[str] | None = None, outlines: bool = False, exif: str = 'auto', **_: Any
) -> Layout | None:
    """Return the layout if there are JSON files of LabelMe's kind."""
    candidates = tree.ending('.json')
    certain = {file for file in candidates if _looks_like_labelme(tree, file)}
    if not certain:
        return None
    # Beside them one that is broken, and belongs to a picture, is named rather than passed over.
    files = [file for file in candidates if file in certain or without_ending(file) in tree.by_stem]
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(split_of_place(file), []).append(file)
    splits = sorted_splits(found)
    contents = {file: _read(tree, file) for each in splits.values() for file in each}
    names = sorted({shape['label'] for content in contents.values() for shape in content['shapes']})
    if classes is not None and (strangers := sorted(set(names) - set(classes))):
        where = next(
            file
            for file, content in contents.items()
            if strangers[0] in [shape['label'] for shape in content['shapes']]
        )
        raise UserError(f'{tree.path(where)}: class {strangers[0]!r} is none of {listing(classes, 10)}')
    kept = list(classes) if classes is not None else names

    def read(chosen: list[str], problems: Problems) -> CocoObjects:
        gathered = Gathered(kept)
        absent: list[str] = []
        others: list[str] = []
        for file in chosen:
            content = contents[file]
            picture = _picture(tree, file, content)
            if picture is None:
                absent.append(f'{file}: {content.get("imagePath")}')
                continue
            size = _size(content, tree, file) or picture_size(tree.path(picture), exif=exif)
            if size is None:
                absent.append(f'{picture}: not readable')
                continue
            gathered.picture(tree.path(picture), size)
            for shape in content['shapes']:
                points = _points(shape, tree.path(file))
                if points is None:
                    others.append(f'{file}: {shape.get("shape_type")} {shape["label"]}')
                    continue
                box = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
                gathered.add(shape['label'], box, [points.ravel().tolist()] if outlines else None)
        problems.add('pictures dropped, no such file or not readable', len(absent), absent)
        problems.add('shapes dropped, they have no area', len(others), others)
        return gathered.objects()

    def unnamed() -> list[str]:
        named = {_picture(tree, file, content) for file, content in contents.items()}
        stems = {without_ending(file) for file in candidates}  # of splits that are not read, too
        return [file for file in tree.beside(named - {None}) if without_ending(file) not in stems]

    return Layout('labelme', f'LabelMe JSON: {len(files)} files', splits, read, unnamed)


def _picture(tree: Tree, file: str, content: dict[str, Any]) -> Any:
    """Return the picture that a file is about, by the name in it or by its own; None where there is none."""
    named = tree.picture(str(content.get('imagePath') or ''), near=file)
    return named or tree.same_stem([without_ending(file)], source=file)


def _looks_like_labelme(tree: Tree, file: str) -> bool:
    try:
        data = tree.path(file).read_bytes()
    except OSError:
        return False
    return b'"shapes"' in data and b'"imagePath"' in data


def _read(tree: Tree, file: str) -> dict[str, Any]:
    try:
        content = json.loads(tree.text(file))
        for shape in content['shapes']:
            if not isinstance(shape['label'], str) or not shape['label']:
                raise ValueError(f'label should be a name, got {shape["label"]!r}')
            if not isinstance(shape['points'], list):
                raise ValueError(f'points should be a list, got {shape["points"]!r}')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'{tree.path(file)} is no LabelMe annotation: {error!r}') from error
    return content


def _size(content: dict[str, Any], tree: Tree, file: str) -> tuple[int, int] | None:
    height, width = content.get('imageHeight'), content.get('imageWidth')
    if height is None or width is None:
        return None
    try:
        return check_size(whole(height, 'imageHeight'), whole(width, 'imageWidth'))
    except (ValueError, TypeError) as error:
        raise UserError(f'{tree.path(file)}: {error}') from error


def _points(shape: dict[str, Any], path: Any) -> np.ndarray | None:
    """Return the corners of a shape, float64 (N, 2) xy in pixels; None where it encloses nothing."""
    try:
        points = np.array(
            [[number(each, 'a coordinate') for each in point] for point in shape['points']], dtype=np.float64
        ).reshape(-1, 2)
    except (ValueError, TypeError) as error:
        comma = ' (a comma as decimal point?)' if ',' in str(error) else ''
        raise UserError(f'{path}: {shape["label"]}: {error}{comma}') from error
    kind = shape.get('shape_type') or 'polygon'
    if kind == 'rectangle' and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind == 'circle' and len(points) == 2:
        radius = float(np.hypot(*(points[1] - points[0])))
        return points[0] + radius * np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], axis=1)
    return points if kind in ('polygon', 'rectangle') and len(points) >= 3 else None
