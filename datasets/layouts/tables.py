"""Lists of labelled pictures as text, a line each: CSV with a header, of commas, semicolons or tabs.

    image,label                                       classification
    filename,class_a,class_b                          classification, 0 and 1 (Roboflow's _classes.csv)
    image,xmin,ymin,xmax,ymax,label                   detection, pixels
    filename,width,height,class,xmin,ymin,xmax,ymax   detection, pixels (Roboflow's _annotations.csv)

A column 'split' says train, val or test; else the file's name or folder does, if anything.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.formats.coco import CocoObjects
from falconet.datasets.formats.coco_values import check_size, whole
from falconet.datasets.layouts.base import Layout, sorted_splits
from falconet.datasets.layouts.file_tree import Tree, picture_size, split_of, split_of_place
from falconet.datasets.layouts.gathered_objects import Gathered, decimal

IMAGE = ('image', 'filename', 'file_name', 'file', 'path', 'image_path', 'img', 'picture', 'name')
LABEL = ('label', 'class', 'class_name', 'category', 'species', 'choice', 'target', 'name')
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
SPLIT = ('split', 'subset', 'set')
SEVERAL = ('|', ';')  # what stands between labels where there are several in one field


class Line(NamedTuple):
    """A line of a list: its fields by the header's names, and where it stands."""

    fields: dict[str, str]
    where: str


class LabelledFiles(NamedTuple):
    """Pictures with a class each: files, names of their classes, and all classes in order."""

    files: list[str]
    labels: list[str]
    classes: tuple[str, ...]


def read_table(tree: Tree, file: str) -> tuple[list[str], list[Line]]:
    """Return the header in small letters and the lines of a list.

    Raises:
        UserError: no UTF-8, or a line of more fields than the header.
    """
    text = tree.text(file)
    first = text.partition('\n')[0]
    delimiter = max(',;\t', key=first.count)
    rows = [
        (number, row)
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=''), delimiter=delimiter), start=1)
        if any(field.strip() for field in row)
    ]
    if not rows:
        return [], []
    header = [name.strip().lower().replace(' ', '_') for name in rows[0][1]]
    lines = []
    for number, row in rows[1:]:
        where = f'{tree.path(file)}, line {number}'
        if len(row) > len(header):
            raise UserError(
                f'{where}: {len(row)} fields, the header has {len(header)} ({listing(header, 8)}). A comma '
                'as decimal point, or in a name? Write a point, and put names with commas in quotes'
            )
        fields = dict(zip(header, (each.strip() for each in row), strict=False))
        lines.append(Line({name: fields.get(name, '') for name in header}, where))
    return header, lines


def _column(header: Sequence[str], names: Sequence[str], *, taken: str = '') -> str:
    return next((name for name in names if name in header and name != taken), '')


def recognise_labels(tree: Tree, *, classes: Sequence[str] | None = None, **_: Any) -> Layout | None:
    """Return the layout if a list names pictures and one class each."""
    found: dict[
        str, list[tuple[str, str, str, str]]
    ] = {}  # split -> (picture as written, label, where, file)
    tables = []
    for file in tree.ending('.csv', '.tsv'):
        header, lines = read_table(tree, file)
        image = _column(header, IMAGE)
        label = _column(header, LABEL, taken=image)
        if not image or set(CORNERS) <= set(header) or 'pixel_value' in header:
            continue
        one_hot = [name for name in header if name != image]
        if not label and not (one_hot and all(_is_one_hot(each, one_hot) for each in lines)):
            continue
        tables.append(file)
        column = _column(header, SPLIT)
        for each in lines:
            split = split_of(each.fields[column]) if column else ''
            split = split or split_of(PurePosixPath(file).name) or split_of_place(file)
            name = each.fields[label] if label else _the_one(each, one_hot)
            _check_single(name, each.where)
            found.setdefault(split, []).append((each.fields[image], name, each.where, file))
    if not found:
        return None
    splits = sorted_splits(found)
    names = sorted({row[1] for rows in splits.values() for row in rows})
    if classes is not None and (strangers := sorted(set(names) - set(classes))):
        raise UserError(f'{tree.root}: class {strangers[0]!r} is none of {listing(classes, 10)}')
    kept = tuple(classes) if classes is not None else tuple(names)

    def read(rows: list[tuple[str, str, str, str]], problems: Problems) -> LabelledFiles:
        label_of: dict[str, str] = {}
        absent: list[str] = []
        for written, name, where, file in rows:
            picture = tree.picture(written, near=file)
            if picture is None:
                absent.append(f'{where}: {written}')
            elif label_of.setdefault(picture, name) != name:
                tree.refuse(
                    'copies_of_two_classes',
                    [f'{where}: {picture} is {name} and {label_of[picture]}'],
                    f'{where}: {picture} is {name}, and {label_of[picture]} in a line before. A picture has '
                    'one class here: keep one line, or make a class of the two',
                )
        if not label_of:
            raise UserError(
                f'none of the {len(rows)} pictures of {listing(tables)} is in {tree.root}; the first is '
                f'{rows[0][0]}'
            )
        problems.add('pictures dropped, no such file', len(absent), absent)
        return LabelledFiles([str(tree.path(each)) for each in label_of], list(label_of.values()), kept)

    def unnamed() -> list[str]:
        return _unnamed(tree, ((row[0], row[3]) for rows in found.values() for row in rows))

    return Layout('csv', f'CSV of labels: {listing(tables)}', splits, read, unnamed)


def _is_one_hot(line: Line, names: Sequence[str]) -> bool:
    return all(line.fields[name] in ('0', '1') for name in names)


def _the_one(line: Line, names: Sequence[str]) -> str:
    marked = [name for name in names if line.fields[name] == '1']
    if len(marked) != 1:
        raise UserError(
            f'{line.where}: {len(marked)} classes are marked ({listing(marked) or "none"}). Here a picture '
            'has exactly one: leave the others out, or make a class of the combination'
        )
    return marked[0]


def _check_single(name: str, where: str) -> None:
    if not name:
        raise UserError(f'{where}: no label')
    if any(mark in name for mark in SEVERAL) or (name.startswith('[') and name.endswith(']')):
        raise UserError(
            f'{where}: {name!r} looks like several labels. Here a picture has exactly one: keep the one that '
            'counts, or make a class of the combination without | and ;'
        )


def recognise_boxes(
    tree: Tree, *, classes: Sequence[str] | None = None, exif: str = 'auto', **_: Any
) -> Layout | None:
    """Return the layout if a list names pictures, corners in pixels and a class."""
    found: dict[str, list[tuple[Line, str]]] = {}
    columns: dict[str, tuple[str, str]] = {}
    for file in tree.ending('.csv', '.tsv'):
        header, lines = read_table(tree, file)
        image = _column(header, IMAGE)
        label = _column(header, LABEL, taken=image)
        if not (image and label and set(CORNERS) <= set(header)):
            continue
        columns[file] = (image, label)
        column = _column(header, SPLIT)
        for each in lines:
            split = split_of(each.fields[column]) if column else ''
            split = split or split_of(PurePosixPath(file).name) or split_of_place(file)
            found.setdefault(split, []).append((each, file))
    if not found:
        return None
    splits = sorted_splits(found)
    rows = [row for each in splits.values() for row in each]
    names = sorted({line.fields[columns[file][1]] for line, file in rows} - {''})
    if classes is not None and (strangers := sorted(set(names) - set(classes))):
        where = next(line.where for line, file in rows if line.fields[columns[file][1]] == strangers[0])
        raise UserError(f'{where}: class {strangers[0]!r} is none of {listing(classes, 10)}')
    kept = list(classes) if classes is not None else names

    def read(chosen: list[tuple[Line, str]], problems: Problems) -> CocoObjects:
        by_picture: dict[str, list[tuple[str, list[float]]]] = {}
        sizes: dict[str, tuple[int, int] | None] = {}
        absent: list[str] = []
        for line, file in chosen:
            image, label = (line.fields[name] for name in columns[file])
            picture = tree.picture(image, near=file)
            if picture is None:
                absent.append(f'{line.where}: {image}')
                continue
            inside = by_picture.setdefault(picture, [])
            size = _stated_size(line)
            if sizes.setdefault(picture, size) != size:
                raise UserError(f'{line.where}: {picture} has another size here than in a line before')
            written = [line.fields[name] for name in CORNERS]
            if any(written) or label:
                inside.append((label, _corners(line, written, label)))
        if not by_picture:
            raise UserError(
                f'none of the pictures of {listing(columns)} is in {tree.root}: {listing(absent, 2)}'
            )
        gathered, broken = Gathered(kept), []
        for picture in sorted(by_picture):
            size = sizes[picture] or picture_size(tree.path(picture), exif=exif)
            if size is None:
                broken.append(picture)
                continue
            gathered.picture(tree.path(picture), size)
            for label, box in by_picture[picture]:
                gathered.add(label, box)
        problems.add('boxes dropped, no such picture', len(absent), absent)
        problems.add('pictures dropped, not readable', len(broken), broken)
        return gathered.objects()

    def unnamed() -> list[str]:
        everything = (row for each in found.values() for row in each)
        return _unnamed(tree, ((line.fields[columns[file][0]], file) for line, file in everything))

    return Layout('csv', f'CSV of boxes: {listing(columns)}', splits, read, unnamed)


def _unnamed(tree: Tree, written: Iterable[tuple[str, str]]) -> list[str]:
    """Return the pictures beside those of some lists that are in none; `written` are names and their list."""
    places = (tree.picture(name, near=file) for name, file in written)
    return tree.beside({place for place in places if place is not None})


def _stated_size(line: Line) -> tuple[int, int] | None:
    """Return (height, width) where the line says them: it tells whether corners mean the stored pixels."""
    height, width = (line.fields.get(name, '') for name in ('height', 'width'))
    if not (height and width):
        return None
    try:
        return check_size(
            whole(decimal(height, where='height'), 'height'), whole(decimal(width, where='width'), 'width')
        )
    except ValueError as error:
        raise UserError(f'{line.where}: {error}') from error


def _corners(line: Line, written: Sequence[str], label: str) -> list[float]:
    if not label:
        raise UserError(f'{line.where}: a box without a label')
    try:
        return [decimal(text, where=name) for name, text in zip(CORNERS, written, strict=True)]
    except ValueError as error:
        raise UserError(f'{line.where}: {error}') from error
