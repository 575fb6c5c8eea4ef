"""Opening COCO's annotation files: https://cocodataset.org/#format-data"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from falconet.core.errors import UserError, closest


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
