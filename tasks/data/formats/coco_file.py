"""Opening COCO's annotation files: https://cocodataset.org/#format-data"""

import json
from pathlib import Path
from typing import Any

from tasks.errors import UserError
from tasks.registry import closest


def read_coco_file(file: Path, *, outlines: bool = False) -> dict[str, Any]:
    """Read an annotation file.

    Args:
        file: JSON.
        outlines: keep the objects' `segmentation`, which detection does not need.

    Raises:
        UserError: the file is missing, no JSON, or lacks one of its three lists.
    """

    def without_outline(entry: dict[str, Any]) -> dict[str, Any]:
        # Dropped while parsing: all outlines of COCO together take gigabytes as Python lists.
        entry.pop('segmentation', None)
        return entry

    try:
        with file.open(encoding='utf-8') as opened:
            content = json.load(opened, object_hook=None if outlines else without_outline)
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
