"""Lists of what was found, made from the lines that were written picture by picture: JSON, CSV, COCO."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from falconet.core.errors import UserError
from falconet.core.names import MARK

FORMATS = ('json', 'jsonl', 'csv', 'coco')
COLUMNS = {
    'classification': ('path', 'label', 'class_name', 'score'),
    'detection': ('path', 'x_min', 'y_min', 'x_max', 'y_max', 'score', 'label', 'class_name'),
    'segmentation': ('path', 'class_name', 'share'),
}
# What makes a spreadsheet take a cell for a formula; https://owasp.org/www-community/attacks/CSV_Injection
FORMULAS = ('=', '+', '-', '@', '\t', '\r', '\n', '\uff1d', '\uff0b', '\uff0d', '\uff20')


def listing_name(form: str) -> str:
    """Return the file's name for a format."""
    return {'json': 'predictions.json', 'coco': 'predictions.coco.json'}.get(form, f'predictions.{form}')


def check_format(form: str, task: str) -> None:
    """Raise UserError for a format that is unknown, or that the task does not have."""
    if form not in FORMATS:
        raise UserError(f'there is no format {form!r}; there are {", ".join(FORMATS)}')
    if (form == 'coco' and task == 'classification') or (form == 'csv' and task not in COLUMNS):
        raise UserError(f'--format {form} cannot say the answers of {task}: take json or jsonl')


def write_listing(lines: Path, target: Path, form: str, task: str, facts: Mapping[str, Any]) -> None:
    """Turn the lines written so far into a list, without holding them in memory; remove the lines."""
    temporary = target.with_name(f'.{target.name}.tmp')
    with temporary.open('w', encoding='utf-8', newline='') as file:
        entries = _entries(lines)
        if form == 'csv':
            # The note that Falconet made the file is the name of a last, empty column.
            table = csv.writer(file)
            table.writerow([*COLUMNS[task], MARK])
            for entry in entries:
                table.writerows([*map(_cell, row), ''] for row in _rows(entry, task))
        elif form == 'coco':
            ids = image_ids(each['path'] for each in _entries(lines))
            file.write('[')
            number = 0
            for entry in entries:
                for each in _coco(entry, task, ids[entry['path']], facts['class_names']):
                    note = {} if number else {'made_by': MARK}
                    file.write((',\n' if number else '\n') + json.dumps({**note, **each}))
                    number += 1
            file.write('\n]\n')
        elif form == 'jsonl':
            file.write(json.dumps({'made_by': MARK, **facts}) + '\n')
            file.writelines(json.dumps(entry) + '\n' for entry in entries)
        else:
            opening = json.dumps({'made_by': MARK, **facts}, indent=1).removesuffix('\n}')
            file.write(opening + ',\n "predictions": [')
            for number, entry in enumerate(entries):
                file.write((',' if number else '') + '\n  ' + json.dumps(entry))
            file.write('\n ]\n}\n')
    lines.unlink()
    temporary.replace(target)


def image_ids(paths: Any) -> dict[str, int]:
    """Return COCO's number of each picture: that of its name where all are numbers, else the place from 1."""
    paths = list(paths)
    stems = [Path(path).stem for path in paths]
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return {path: int(stem) for path, stem in zip(paths, stems, strict=True)}
    return {path: number for number, path in enumerate(paths, 1)}


def _entries(lines: Path) -> Iterator[dict[str, Any]]:
    with lines.open(encoding='utf-8') as source:
        next(source, None)
        for line in source:
            yield json.loads(line)


def _rows(entry: Mapping[str, Any], task: str) -> Iterator[Sequence[Any]]:
    if task == 'detection':
        for each in entry['detections']:
            yield [entry['path'], *each['box'], each['score'], each['label'], each['class_name']]
    elif task == 'segmentation':
        for name, share in entry['shares'].items():
            yield [entry['path'], name, share]
    else:
        yield [entry['path'], entry['label'], entry['class_name'], entry['score']]


def _cell(value: Any) -> Any:
    """Return what a spreadsheet shows as it is: an apostrophe before a text that it would compute.

    Texts that have apostrophes before such a beginning get one more, so that taking one away gives all back.
    """
    is_formula = isinstance(value, str) and value.lstrip("'").startswith(FORMULAS)
    return f"'{value}" if is_formula else value


def _coco(entry: Mapping[str, Any], task: str, image_id: int, names: Sequence[str]) -> Iterator[Any]:
    where = {'image_id': image_id, 'file_name': Path(entry['path']).name}
    if task == 'detection':
        for each in entry['detections']:
            left, top, right, bottom = each['box']
            box = [left, top, round(right - left, 2), round(bottom - top, 2)]
            yield {**where, 'category_id': each['label'] + 1, 'bbox': box, 'score': each['score']}
        return
    import numpy as np
    from PIL import Image
    from pycocotools import mask as coco

    with Image.open(entry['mask']) as picture:
        mask = np.array(picture)
    for label in np.unique(mask):
        code = coco.encode(np.asfortranarray((mask == label).astype(np.uint8)))
        region = {'size': list(code['size']), 'counts': str(code['counts'], 'ascii')}  # pyright: ignore[reportArgumentType]
        yield {**where, 'category_id': int(label), 'segmentation': region}
