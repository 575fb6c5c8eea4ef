"""Values of COCO's annotation files, each taken for what it must be or refused.

Source: https://cocodataset.org/#format-data. Some tools write numbers as text, or whole ones with a fraction
of zero; both are understood.
"""

import math
import os
from typing import Any

import numpy as np

from falconet.datasets.images.images import MAX_PIXELS

MAX_SIDE = 1_000_000  # pixels of a picture's side; no camera or scanner comes near

Outline = Any  # a list of polygons [x, y, x, y, ...], or run lengths {'size': [h, w], 'counts': ...}


def whole(value: Any, name: str) -> int:
    """Return a whole number, or raise ValueError: not for 1.7, True, or what is no number."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f'{name} should be a whole number, got {value!r}')


def number(value: Any, name: str) -> float:
    """Return a number, which may be infinite or none; TypeError for True and what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f'{name} should be a number, got {value!r}')
    return float(value)


def box(value: Any) -> tuple[float, float, float, float]:
    """Return [x, y, width, height], or raise ValueError: not for text or a dict, which have parts too."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise ValueError(f'bbox should be a list of four numbers, got {value!r}')
    x, y, width, height = (number(each, 'bbox') for each in value)
    return x, y, width, height


def name(value: Any) -> str:
    """Return a category's name; ValueError for what is neither text nor a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f'name should be text, got {value!r}')
    return encodable(str(value))


def encodable(text: str) -> str:
    r"""Return a text unless JSON's escapes hide half a letter in it ('\ud800'): ValueError."""
    os.fsencode(text)
    return text


def check_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width), or raise ValueError for a side that no picture has."""
    if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise ValueError(f'height and width must be 1 to {MAX_SIDE:,}, got {height} and {width}')
    return height, width


def check_outline(outline: Outline, size: tuple[int, int]) -> tuple[Outline, list[str]]:
    """Return what can be drawn of an outline, and what is wrong with the rest.

    Args:
        outline: as the file has it, not empty.
        size: (height, width) of the picture.

    Returns:
        The good polygons, or the run lengths; empty when nothing is left. And a reason for each bad one.
    """
    if size[0] * size[1] > MAX_PIXELS:
        return [], [f'its picture of {size[1]}x{size[0]} pixels is larger than is read']
    if isinstance(outline, dict):
        lengths, wrong = _run_lengths(outline, size)
        counts = outline.get('counts')
        runs = {**outline, 'counts': counts if isinstance(counts, str) else lengths}
        return ([], [wrong]) if wrong else (runs, [])
    if not isinstance(outline, list):
        return [], [f'neither polygons nor run lengths but {str(outline)[:40]!r}']
    reasons = [_wrong_with_polygon(polygon, size) for polygon in outline]
    kept = [polygon for polygon, wrong in zip(outline, reasons, strict=True) if not wrong]
    return kept, [wrong for wrong in reasons if wrong]


def _wrong_with_polygon(polygon: Any, size: tuple[int, int]) -> str:
    if not isinstance(polygon, list):
        return f'a polygon should be a list [x, y, x, y, ...], got {str(polygon)[:40]!r}'
    if len(polygon) % 2:
        return f'a polygon of {len(polygon)} numbers, which are no pairs'
    if len(polygon) < 6:
        return f'a polygon of {len(polygon) // 2} points'
    try:
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        return 'a polygon of what are no numbers'
    if not np.isfinite(points).all():
        return 'a polygon that is not finite'
    longest = max(size)
    if points.min() < -longest or points.max() > 2 * longest:
        return f'a polygon that reaches from {points.min():g} to {points.max():g}, far beyond its picture'
    # pycocotools keeps every pixel that an edge passes: memory goes with the length of all edges.
    if np.abs(np.diff(points, axis=0)).sum() > 4 * (size[0] + 2) * (size[1] + 2):
        return 'a polygon whose edges are longer than those of all pixels'
    return ''


def _run_lengths(runs: dict[str, Any], size: tuple[int, int]) -> tuple[list[int], str]:
    if runs.get('size') != list(size):
        return [], f'run lengths of a picture of {runs.get("size")} (height, width), its own is {list(size)}'
    counts: Any = runs.get('counts')
    try:
        packed = isinstance(counts, str)
        lengths = unpack_runs(counts) if packed else [whole(each, 'counts') for each in counts]
    except (TypeError, ValueError, IndexError):
        return [], 'run lengths that are neither whole numbers nor packed by pycocotools'
    if min(lengths, default=0) < 0 or sum(lengths) != math.prod(size):
        return [], f'run lengths of {sum(lengths):,} pixels, its picture has {math.prod(size):,}'
    return lengths, ''


def unpack_runs(packed: str) -> list[int]:
    """Return the run lengths that pycocotools has packed into text (`rleToString` in `maskApi.c`).

    Five bits a letter, the lowest first, a sixth where more follow; from the third run on each is the
    difference from the last but one.

    Raises:
        ValueError: a letter that is none of its own, or a run of more than 60 bits.
        IndexError: the text ends within a run.
    """
    lengths: list[int] = []
    place = 0
    while place < len(packed):
        value = shift = 0
        more = True
        while more:
            bits = ord(packed[place]) - 48
            if not (0 <= bits < 64 and shift < 60):
                raise ValueError(f'{packed[place]!r} at {place} is no part of a run')
            value |= (bits & 0x1F) << shift
            more, shift, place = bool(bits & 0x20), shift + 5, place + 1
            if not more and bits & 0x10:
                value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
