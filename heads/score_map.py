"""Scores of every pixel of a picture that are not written out: those of cells, and how pixels read them.

A bilinear enlargement does to every column of cells what it does to the others, and then the same to rows. So
it is a matrix on either side, as are several in a row, cuts and weights that differ from row to row. Any part
of a large picture can be computed from the cells without the rest.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ScoreMap(NamedTuple):
    """The scores of class c are `rows @ cells[c] @ columns.T`, (H, W).

    Attributes:
        cells: scores of every class in every cell, float32 (C, h, w).
        rows: what each cell counts in each row of pixels, float32 (H, h).
        columns: the same for columns, float32 (W, w).
    """

    cells: Tensor
    rows: Tensor
    columns: Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # whoever asks first: training wants it too
def line(cells: int, pixels: int, kept: int, size: int, *, align_corners: bool) -> Tensor:
    """Return what each cell of a line counts in each of its pixels, float32 (size, cells); not to be changed.

    Args:
        cells: in the line.
        pixels: to which they are enlarged.
        kept: of these, from the beginning; what follows is padding.
        size: to which the kept ones are resized, if that is another number.
        align_corners: of the first enlargement; see `torch.nn.functional.interpolate`.
    """
    matrix = _interpolation(cells, pixels, align_corners=align_corners)[:kept]
    return matrix if kept == size else _interpolation(kept, size, align_corners=False) @ matrix


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def neighbours(cells: int, pixels: int, *, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Return the cells that each pixel of an enlarged line lies between; not to be changed.

    Returns:
        The first and the second cell of each, int64 (2, pixels), and what the second counts, float32
        (pixels,).
    """
    matrix = _interpolation(cells, pixels, align_corners=align_corners)
    first = (matrix > 0).to(torch.uint8).argmax(dim=1)
    second = (first + 1).clamp(max=cells - 1)
    return torch.stack([first, second]), matrix.gather(1, second[:, None])[:, 0]


def _interpolation(old: int, new: int, *, align_corners: bool) -> Tensor:
    identity = torch.eye(old)[None]
    return F.interpolate(identity, size=new, mode='linear', align_corners=align_corners)[0].T
