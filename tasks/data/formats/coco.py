"""Reading COCO's annotation files: https://cocodataset.org/#format-data, object detection."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.annotations import Annotations, ImageRecord, Problems, build_annotations
from tasks.data.formats.coco_file import read_coco_file
from tasks.errors import UserError
from tasks.registry import closest


def read_coco(
    files: Sequence[Path],
    image_folders: Sequence[Path],
    *,
    categories: Sequence[str] | None,
    problems: Problems,
) -> Annotations:
    """Read one or more annotation files of the same categories.

    Args:
        files: JSON files.
        image_folders: where the images of each file are.
        categories: names of the categories to keep, in the order of their indices; None keeps all, in the
            order of their identifiers.
        problems: where to note what was dropped.

    Raises:
        UserError: a file is missing, no JSON, or lacks a part; categories differ between files, two have one
            name, or one asked for is unknown; image identifiers repeat.
    """
    images: list[ImageRecord] = []
    place: dict[int, int] = {}  # image identifier -> position
    source: dict[int, Path] = {}
    known: dict[int, str] | None = None
    parts: list[dict[str, np.ndarray]] = []
    for file, folder in zip(files, image_folders, strict=True):
        content = read_coco_file(file)
        found = _categories(content, file)
        if known is not None and found != known:
            raise UserError(f'{file} has other categories than {files[0]}: {found} and {known}')
        known = found
        for record in _images(content, file, folder):
            if record.identifier in place:
                other = source[record.identifier]
                where = file if other == file else f'{other} and {file}'
                raise UserError(f'{where}: image id {record.identifier} occurs twice')
            place[record.identifier] = len(images)
            source[record.identifier] = file
            images.append(record)
        parts.append(_objects(content, file, place=place, categories=known, problems=problems))
    assert known is not None
    if not images:
        raise UserError(f'{", ".join(map(str, files))}: no images')

    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    identifiers, names = _choose(known, categories, file=files[0])
    index_of = {identifier: index for index, identifier in enumerate(identifiers)}
    category_ids, inverse = np.unique(joined.pop('category_ids'), return_inverse=True)
    labels = np.array([index_of.get(int(each), -1) for each in category_ids], dtype=np.int32)
    labels = labels[inverse] if len(inverse) else np.zeros(0, np.int32)
    wanted = labels >= 0  # categories that were not asked for are no problem
    return build_annotations(
        images,
        **{key: value[wanted] for key, value in joined.items()},
        labels=labels[wanted],
        class_names=names,
        category_ids=identifiers,
        problems=problems,
    )


def _categories(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return names by identifier, in the order of the identifiers."""
    entries = content['categories']
    if not entries:
        raise UserError(f"{file}: 'categories' is empty: the names of the classes must come from the data")
    try:
        found = {int(entry['id']): str(entry['name']) for entry in entries}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: each category needs 'id' and 'name' ({error!r})") from error
    names = list(found.values())
    if len(found) < len(entries) or len(set(names)) < len(names):
        raise UserError(f'{file}: a category id or name occurs twice in {[*found.items()]}')
    return dict(sorted(found.items()))


def _images(content: dict[str, Any], file: Path, folder: Path) -> list[ImageRecord]:
    entry: Any = None
    try:
        records = []
        for entry in content['images']:
            size = (int(entry['height']), int(entry['width']))
            if min(size) < 1:
                raise ValueError('height and width must be at least 1')
            if not -(2**63) <= int(entry['id']) < 2**63:
                raise ValueError('id does not fit 64 bits')
            records.append(ImageRecord(int(entry['id']), str(folder / entry['file_name']), size))
        return records
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: each image needs 'id', 'file_name', 'height' and 'width' ({error!r}), got {entry}"
        ) from error


def _objects(
    content: dict[str, Any],
    file: Path,
    *,
    place: dict[int, int],
    categories: dict[int, str],
    problems: Problems,
) -> dict[str, np.ndarray]:
    """Return the objects of one file as arrays; those of unknown images or categories are noted."""
    entries = content['annotations']
    entry: Any = None
    rows: list[tuple[int, int, int, int, float]] = []
    boxes: list[tuple[float, float, float, float]] = []
    strangers: list[str] = []
    unknown: list[str] = []
    try:
        for entry in entries:
            # Some tools write numbers as strings.
            identifier, category = int(entry['id']), int(entry['category_id'])
            owner = place.get(int(entry['image_id']))
            if owner is None:
                strangers.append(f'{file} object {identifier} of image {entry["image_id"]}')
                continue
            if category not in categories:
                unknown.append(f'{file} object {identifier} of category {category}')
                continue
            x, y, width, height = map(float, entry['bbox'])
            boxes.append((x, y, width, height))
            area = entry.get('area')
            crowd = int(entry.get('iscrowd') or 0)
            rows.append((owner, category, crowd, identifier, width * height if area is None else float(area)))
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)  # exact for identifiers below 2**53
        xywh = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{file}: each annotation needs 'id', 'image_id', 'category_id' and "
            f"'bbox' = [x, y, width, height] ({error!r}), got {entry}"
        ) from error
    problems.add('objects dropped, of images that are not in the file', len(strangers), strangers)
    problems.add('objects dropped, of categories that are not in the file', len(unknown), unknown)
    return {
        'owners': table[:, 0].astype(np.int64),
        'category_ids': table[:, 1].astype(np.int64),
        'crowd': table[:, 2] != 0,
        'object_ids': table[:, 3].astype(np.int64),
        'areas': table[:, 4],
        'boxes': np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
    }


def _choose(
    known: dict[int, str], categories: Sequence[str] | None, *, file: Path
) -> tuple[list[int], list[str]]:
    """Return identifiers and names of the categories to keep."""
    if categories is None:
        return list(known), list(known.values())
    identifier_of = {name: identifier for identifier, name in known.items()}
    for name in categories:
        if list(categories).count(name) > 1:
            raise UserError(f'categories names {name!r} more than once')
        if name not in identifier_of:
            raise UserError(f'{file} has no category {name!r}. {closest(name, identifier_of)}')
    return [identifier_of[name] for name in categories], list(categories)
