"""Resizing a picture whose size is known only when the program runs, in operations that export.

`datasets.transforms.tensor_resize` weighs all pixels of a line for every new one, with weights known
beforehand. Here sizes are tensors, weights come from them, and each new pixel reads only the pixels that
count: as many as the scale asks for. What comes out has a fixed size: padding and cropping are part of which
pixels are kept.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from falconet.datasets.transforms.tensor_resize import HALF, keys

# Pixels that each method reads; 'area' reads as many as the scale asks for, and these at least.
TAPS = {'nearest': 2, 'linear': 2, 'cubic': 4, 'area': 2, 'tensorflow': 2}


class Line(NamedTuple):
    """One side of a picture: which pixels are resized, and which of the result are kept.

    Attributes:
        old: how many pixels are resized, a float64 scalar, as all but `kept`.
        new: to how many.
        first: where those begin in the side.
        start: of the resized pixels, the first that is kept; may be below 0 or the last beyond `new`.
        kept: how many are.
    """

    old: Tensor
    new: Tensor
    first: Tensor
    start: Tensor
    kept: int


class Image(NamedTuple):
    """What a transform makes of a picture: float32 (1, 3, h, w), and which part of it the picture fills.

    `content` is (height, width) from the upper left corner as float64 scalars, None for all of it.
    """

    pixels: Tensor
    content: tuple[Tensor, Tensor] | None = None


def number(value: float, like: Tensor) -> Tensor:
    """Return a number, or a size that is known only when the program runs, as a float64 scalar."""
    return torch.full((), value, dtype=torch.float64, device=like.device)


def whole_line(old: Tensor, new: int) -> Line:
    """Return the line of all pixels, to `new` of them that are all kept."""
    zero = torch.zeros_like(old)
    return Line(old, torch.full_like(old, new), zero, zero, new)


def resize_any(
    picture: Tensor,
    rows: Line,
    columns: Line,
    methods: Mapping[str, Tensor | None],
    *,
    fill: tuple[float, ...] = (0, 0, 0),
) -> Tensor:
    """Resize a picture as `tensor_resize.resize_tensors` does, keeping a window of fixed size.

    Args:
        picture: uint8 or float (H, W, 3), in 0..255.
        rows, columns: what becomes of its two sides.
        methods: each that may be used, and whether it is: a bool scalar, the last may be None, for "else".
        fill: RGB of kept pixels beyond the resized ones.

    Returns:
        float32 (1, 3, rows.kept, columns.kept), whole grey levels.
    """
    # Not `|` and `&`: their operators' names are ones that opening a .pt2 file refuses.
    grows = torch.logical_or(rows.new > rows.old, columns.new > columns.old)
    (row, by_row, inner), (column, by_column, within) = (
        _weights(line, methods, grows) for line in (rows, columns)
    )
    # Rows first, of uint8: a copy of a large picture in float32 would be four times as large.
    taken = picture.flatten(1).index_select(0, row.flatten())
    tall = torch.bmm(by_row[:, None], taken.unflatten(0, row.shape).float())  # (h, 1, W * 3)
    tall = tall.view(rows.kept, -1, 3).index_select(1, column.flatten())
    small = (tall.unflatten(1, column.shape) * by_column[..., None]).sum(dim=2)  # (h, w, 3)
    small = (small + HALF).floor().clamp(0, 255)
    filling = torch.tensor(fill, device=picture.device).float().round()
    small = torch.where(torch.logical_and(inner[:, None], within)[..., None], small, filling)
    return small.permute(2, 0, 1)[None]


def _weights(
    line: Line, methods: Mapping[str, Tensor | None], grows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which pixels each kept one reads (kept, taps), their weights, and whether it has any (kept,)."""
    place = line.start + torch.arange(line.kept, dtype=torch.float64, device=line.old.device)
    inside = torch.logical_and(place >= 0, place < line.new)
    scale = 1 / (line.new / line.old)  # rounded as in `axis_weights`
    least, chosen = max(TAPS[name] for name in methods), dict(methods)
    taps: Any = least
    if 'area' in methods:
        area = chosen.pop('area')
        averages = ~grows if area is None else torch.logical_and(area, ~grows)
        enlarges = grows if area is None else torch.logical_and(area, grows)
        needed = torch.where(averages, scale.ceil() + 1, 0).clamp(min=least)
        taps = needed.long().item()
        torch._check(taps >= least)
        chosen = {'averages': averages, 'enlarges': enlarges, **chosen}
    step = torch.arange(taps, dtype=torch.float64, device=line.old.device)
    pixels, weights = None, None
    for name, used in reversed(chosen.items()):
        pixel, weight = _method(name, place, scale, line, step)
        if pixels is None or weights is None or used is None:
            pixels, weights = pixel, weight
        else:
            pixels, weights = torch.where(used, pixel, pixels), torch.where(used, weight, weights)
    assert pixels is not None
    assert weights is not None
    index = line.first + torch.minimum(pixels.clamp(min=0), line.old - 1)
    return index.long(), weights.float(), inside


def _method(name: str, place: Tensor, scale: Tensor, line: Line, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels that `place` reads by one method, and their weights, float64 (kept, taps)."""
    if name == 'averages':
        begin = (place * scale).floor()
        pixel = begin[:, None] + step
        shared = torch.minimum((place[:, None] + 1) * scale, pixel + 1) - torch.maximum(
            place[:, None] * scale, pixel
        )
        return pixel, shared.clamp(min=0) / scale
    middle = (place + 0.5) * scale - 0.5
    if name == 'cubic':
        pixel = (middle.floor() - 1)[:, None] + step
        return pixel, keys(middle[:, None] - pixel)
    floor = (place * scale).floor()
    share = (place + 1 - (floor + 1) * (line.new / line.old)).float().clamp(min=0)
    centre = {
        'nearest': floor,
        'linear': middle,
        'tensorflow': place * scale,
        'enlarges': floor + (share - share.floor()).double(),
    }[name]
    centre = torch.minimum(centre.clamp(min=0), line.old - 1)
    pixel = centre.floor()[:, None] + step
    return pixel, (1 - (centre[:, None] - pixel).abs()).clamp(min=0)
