"""COCO's annotation files, read and written: https://cocodataset.org/#format-data, object detection."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from falconet.core.errors import UserError, closest, listing
from falconet.datasets.annotations import Annotations, ImageRecord, Problems, build_annotations
from falconet.datasets.formats.coco_values import (
    box,
    check_outline,
    check_size,
    encodable,
    name,
    number,
    whole,
)

NO_BOX = (0.0, 0.0, 0.0, 0.0)


def read_coco_file(file: Path, *, outlines: bool = False) -> dict[str, Any]:
    """Read an annotation file.

    Args:
        file: JSON.
        outlines: keep the objects' `segmentation`, which detection does not need.

    Raises:
        UserError: the file is missing, no JSON, or lacks one of its three lists, or an
            entry has a key twice.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise UserError(f'{file}: the key {twice!r} occurs twice in one entry, {str(entry)[:200]}')
        if not outlines:
            # Dropped while parsing: all outlines of COCO together take gigabytes as Python lists.
            entry.pop('segmentation', None)
        return entry

    try:
        with file.open(encoding='utf-8-sig') as opened:
            content = json.load(opened, object_pairs_hook=checked)
    except FileNotFoundError:
        beside = sorted(each.name for each in file.parent.glob('*.json')) if file.parent.is_dir() else []
        hint = closest(file.name, beside) if beside else f'{file.parent} holds no .json file.'
        raise UserError(f'there is no annotation file {file}. {hint}') from None
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error}') from error
    except (ValueError, RecursionError) as error:  # also of bytes that are no UTF-8
        raise UserError(f'{file} is no valid JSON, or truncated: {error}') from error
    if not isinstance(content, dict):
        raise UserError(
            f'{file}: expected an object with images, annotations and categories, '
            f'got a {type(content).__name__}'
            + (' (is it a result file?)' if isinstance(content, list) else '')
        )
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise UserError(f'{file}: no list {key!r}; found {", ".join(content) or "nothing"}')
    return content


@dataclass(frozen=True)
class CocoObjects:
    """What annotation files say, checked, but as it was written: neither clipped nor grouped by image.

    Attributes:
        images: every image, also those without objects.
        category_ids: identifiers of the categories kept, by index.
        class_names: their names.
        columns: `owners`, `boxes`, `labels`, `crowd`, `areas` and `object_ids`, as `build_annotations` takes
            them, (K,).
        outlines: of each object COCO's polygons or run lengths, where asked for.
    """

    images: list[ImageRecord]
    category_ids: list[int]
    class_names: list[str]
    columns: dict[str, np.ndarray]
    outlines: list[Any]


def read_coco(
    files: Sequence[Path],
    image_folders: Sequence[Path],
    *,
    categories: Sequence[str] | None,
    problems: Problems,
) -> Annotations:
    """Read one or more annotation files of the same categories; see `read_objects`."""
    found = read_objects(files, image_folders, categories=categories, problems=problems)
    return build_annotations(
        found.images,
        **found.columns,
        class_names=found.class_names,
        category_ids=found.category_ids,
        problems=problems,
    )


def read_objects(
    files: Sequence[Path],
    image_folders: Sequence[Path],
    *,
    categories: Sequence[str] | None,
    problems: Problems,
    outlines: bool = False,
    parent: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None,
) -> CocoObjects:
    """Read one or more annotation files of the same categories, and check every entry.

    Args:
        files: JSON files.
        image_folders: where the images of each file are.
        categories: names of the categories to keep, in the order of their indices; None keeps all, in the
            order of their identifiers. Objects of others are no problem.
        problems: where to note what was dropped.
        outlines: return the outlines too. Objects without one are dropped, and boxes are read only where
            they must stand in for an area.
        parent: given the content of a file, returns the entry of a category that is to be left out as if it
            were not there; see `parent_category`.

    Raises:
        UserError: a file is missing, no JSON, or lacks a part; categories differ between files, two have one
            name, or one asked for is unknown; image identifiers repeat.
    """
    images: list[ImageRecord] = []
    place: dict[int, int] = {}  # image identifier -> position
    source: dict[int, Path] = {}
    known: dict[int, str] = {}
    chosen: tuple[list[int], list[str]] = ([], [])
    label_of: dict[int, int] = {}  # category identifier -> index, -1 for those that were not asked for
    shapes: list[Any] = []
    parts: list[dict[str, np.ndarray]] = []
    for file, folder in zip(files, image_folders, strict=True):
        content = read_coco_file(file, outlines=outlines)
        found = _categories(content, file, without=None if parent is None else parent(content))
        if not known:
            known, chosen = found, _choose(found, categories, file=file)
            label_of = dict.fromkeys(known, -1) | {each: index for index, each in enumerate(chosen[0])}
        elif found != known:
            raise UserError(f'{file} has other categories than {files[0]}: {found} and {known}')
        for record in _images(content, file, folder):
            if record.identifier in place:
                other = source[record.identifier]
                where = file if other == file else f'{other} and {file}'
                raise UserError(f'{where}: image id {record.identifier} occurs twice')
            place[record.identifier] = len(images)
            source[record.identifier] = file
            images.append(record)
        wanted = shapes if outlines else None
        part = _objects(content, file, images, place, label_of, problems=problems, outlines=wanted)
        parts.append(part)
    if not images:
        raise UserError(f'{", ".join(map(str, files))}: no images')
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return CocoObjects(images, *chosen, columns, shapes)


def parent_category(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the entry of a category that only names the group of all others, as Roboflow writes one.

    It is the supercategory of every other one, not its own, and no object is of it.
    """
    entries = content['categories']
    if not all(isinstance(entry, dict) for entry in entries) or len(entries) < 2:
        return None
    groups = [entry.get('supercategory') for entry in entries]
    for place, entry in enumerate(entries):
        name, others = entry.get('name'), groups[:place] + groups[place + 1 :]
        if isinstance(name, str) and groups[place] != name and all(each == name for each in others):
            number = str(entry.get('id'))  # some tools write numbers as strings
            used = any(str(each.get('category_id')) == number for each in content['annotations'])
            return None if used else entry
    return None


def _categories(content: dict[str, Any], file: Path, *, without: Any = None) -> dict[int, str]:
    """Return names by identifier, in the order of the identifiers."""
    entries = content['categories']
    if without is not None:
        entries = [entry for entry in entries if entry is not without]
    if not entries:
        raise UserError(f"{file}: 'categories' is empty: the names of the classes must come from the data")
    try:
        found = {whole(entry['id'], 'id'): name(entry['name']) for entry in entries}
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
            size = check_size(whole(entry['height'], 'height'), whole(entry['width'], 'width'))
            identifier = whole(entry['id'], 'id')
            if not -(2**63) <= identifier < 2**63:
                raise ValueError('id does not fit 64 bits')
            records.append(ImageRecord(identifier, str(folder / encodable(entry['file_name'])), size))
        return records
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: each image needs 'id', 'file_name', 'height' and 'width' ({error!r}), got "
            f'{str(entry)[:200]}'
        ) from error


def _objects(
    content: dict[str, Any],
    file: Path,
    images: Sequence[ImageRecord],
    place: dict[int, int],
    label_of: dict[int, int],
    *,
    problems: Problems,
    outlines: list[Any] | None,
) -> dict[str, np.ndarray]:
    """Return the objects of one file as arrays; note those of unknown images, categories or outlines.

    Args:
        outlines: where to append the outlines; None where they are not wanted.
    """
    entry: Any = None
    rows: list[tuple[int, int, int, int, float]] = []
    boxes: list[tuple[float, float, float, float]] = []
    strangers: list[str] = []
    unknown: list[str] = []
    bare: list[str] = []
    spoilt: list[str] = []
    broken: list[str] = []
    try:
        for entry in content['annotations']:
            # Some tools write numbers as strings.
            identifier, category = whole(entry['id'], 'id'), whole(entry['category_id'], 'category_id')
            owner = place.get(whole(entry['image_id'], 'image_id'))
            if owner is None:
                strangers.append(f'{file} object {identifier} of image {entry["image_id"]}')
                continue
            label = label_of.get(category)
            if label is None:
                unknown.append(f'{file} object {identifier} of category {category}')
                continue
            if label < 0:
                continue
            area = entry.get('area')
            if outlines is not None:
                if not entry['segmentation']:
                    bare.append(f'{file} object {identifier}')
                    continue
                outline, reasons = check_outline(entry['segmentation'], images[owner].size)
                if reasons:
                    where = spoilt if outline else broken
                    where.append(f'{file} object {identifier} of {images[owner].path}: {reasons[0]}')
                    if not outline:
                        continue
                outlines.append(outline)
            x, y, width, height = box(entry['bbox']) if outlines is None or area is None else NO_BOX
            boxes.append((x, y, width, height))
            crowd = int(entry.get('iscrowd') or 0)
            area = width * height if area is None else number(area, 'area')
            rows.append((owner, label, crowd, identifier, area))
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)  # exact for identifiers below 2**53
        xywh = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        also = '' if outlines is None else " and 'segmentation'"
        raise UserError(
            f"{file}: each annotation needs 'id', 'image_id', 'category_id' and "
            f"'bbox' = [x, y, width, height]{also} ({error!r}), got {str(entry)[:200]}"
        ) from error
    problems.add('objects dropped, of images that are not in the file', len(strangers), strangers)
    problems.add('objects dropped, of categories that are not in the file', len(unknown), unknown)
    problems.add('objects dropped, without an outline', len(bare), bare)
    problems.add('objects dropped, whose outline cannot be drawn', len(broken), broken)
    problems.add('objects drawn without a part of their outline', len(spoilt), spoilt)
    return {
        'owners': table[:, 0].astype(np.int64),
        'labels': table[:, 1].astype(np.int32),
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
    if missing := [name for name in categories if name not in identifier_of]:
        hint = closest(missing[0], identifier_of)
        raise UserError(f'{file} has no category {listing(map(repr, missing))}. {hint}')
    if twice := [name for name, count in Counter(categories).items() if count > 1]:
        raise UserError(f'categories names {twice[0]!r} more than once')
    return [identifier_of[name] for name in categories], list(categories)


def as_coco(annotations: Annotations, images: Iterable[int] | None = None) -> dict[str, Any]:
    """Return the content of an annotation file: the objects of some images, or of all, as they were written.

    Args:
        annotations: of the data set.
        images: numbers of the images.
    """
    chosen = range(len(annotations)) if images is None else list(images)
    sizes = annotations.sizes.tolist()
    entries, objects = [], []
    for index in chosen:
        image_id = int(annotations.image_ids[index])
        height, width = sizes[index]
        path = annotations.paths[index]
        entries.append({'id': image_id, 'file_name': path, 'height': height, 'width': width})
        where = annotations.objects(index)
        for k in range(where.start, where.stop):
            left, top, right, bottom = annotations.original_boxes[k].tolist()
            objects.append(
                {
                    'id': int(annotations.object_ids[k]),
                    'image_id': image_id,
                    'category_id': annotations.category_ids[annotations.labels[k]],
                    'bbox': [left, top, right - left, bottom - top],
                    'area': float(annotations.areas[k]),
                    'iscrowd': int(annotations.crowd[k]),
                }
            )
    categories = [
        {'id': identifier, 'name': name}
        for identifier, name in zip(annotations.category_ids, annotations.class_names, strict=True)
    ]
    return {'images': entries, 'annotations': objects, 'categories': categories}


def write_coco(
    file: Path,
    annotations: Annotations,
    image_folder: Path,
    *,
    outlines: Iterable[Any] | None = None,
    description: str = '',
    licence: str = '',
    supercategory: str = '',
) -> None:
    """Write an annotation file, which `read_coco` reads as what was given.

    Args:
        file: JSON file to write.
        annotations: the objects.
        image_folder: where the images are.
        outlines: of each object COCO's polygons or run lengths, in the order of the objects.
        description: of the data set.
        licence: of the images.
        supercategory: of all categories.
    """
    content = as_coco(annotations)
    if outlines is not None:
        for each, outline in zip(content['annotations'], outlines, strict=True):
            each['segmentation'] = outline
    for each in content['images']:
        each['file_name'] = Path(each['file_name']).relative_to(image_folder).as_posix()
        each['license'] = 1
    for each in content['categories']:
        each['supercategory'] = supercategory
    header = {
        'info': {'description': description},
        'licenses': [{'id': 1, 'name': licence, 'url': ''}],
    }
    file.write_text(json.dumps({**header, **content}, separators=(',', ':')), encoding='utf-8')
