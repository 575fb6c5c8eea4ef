"""Losses over many scores in few walks, for training on CPUs: see `layers.fast.kernels.losses`.

Taken where `layers.fast.fused` is switched on and the numbers are float32; else the same by torch.
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from falconet.layers.fast.fused import computes_losses


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), of any shape."""
    if not (computes_losses(x) and x.is_contiguous()):
        return F.softplus(x)
    return Softplus.apply(x)


class Softplus(torch.autograd.Function):
    """`softplus` of a contiguous float32 tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        from falconet.layers.fast.kernels.losses import SOFTPLUS

        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        _run_over(SOFTPLUS, x=x, out=out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        from falconet.layers.fast.kernels.losses import SIGMOID

        (x,) = ctx.saved_tensors
        gradient, out = gradient.contiguous(), torch.empty_like(x)
        _run_over(SIGMOID, x=x, out=out, gradient=gradient)
        return out


def pixel_losses(
    logits: Tensor, labels: Tensor, rows: tuple[Tensor, Tensor], columns: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every pixel, of scores that are enlarged bilinearly.

    Args:
        logits: of cells, float32 (B, C, h, w).
        labels: of pixels, uint8 (B, H, W): classes below C, or 255, whose loss is 0.
        rows: the two rows of cells that each row of pixels lies between, int64 (2, H), and how far it is from
            the first towards the second, float32 (H,).
        columns: what each column of cells counts in each column of pixels, float32 (W, w).

    Returns:
        Losses, float32 (B, H, W), and whether no class scores higher than the pixel's label, bool (B, H, W).

    Raises:
        IndexError: a label is no class.
    """
    return PixelLosses.apply(logits @ columns.T, labels, *rows)


class PixelLosses(torch.autograd.Function):
    """`pixel_losses` of scores that are as wide as the labels already, (B, C, h, W)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, cells: Tensor, labels: Tensor, rows: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        from falconet.layers.fast.kernels.losses import PIXELS, UNKNOWN

        cells, labels, rows, shares = (each.contiguous() for each in (cells, labels, rows, shares))
        losses = torch.empty(labels.shape)
        log_sums, right = torch.empty(labels.shape), torch.empty(labels.shape, dtype=torch.uint8)
        given = {'cells': cells, 'labels': labels, 'rows': rows, 'shares': shares, 'log_sums': log_sums}
        _run_pixels(PIXELS, **given, out=losses, right=right)
        if (right == UNKNOWN).any():
            worst = int(labels[right == UNKNOWN].max())
            raise IndexError(f'label {worst} is no class: there are {cells.shape[1]}')
        ctx.save_for_backward(*given.values())
        right = right.bool()
        ctx.mark_non_differentiable(right)
        ctx.set_materialize_grads(False)
        return losses, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from falconet.layers.fast.kernels.losses import PIXELS_BACK

        if gradient is None:
            return None, None, None, None
        names = ('cells', 'labels', 'rows', 'shares', 'log_sums')
        given = dict(zip(names, ctx.saved_tensors, strict=True))
        made = torch.empty_like(given['cells'])
        _run_pixels(PIXELS_BACK, **given, out=made, gradient=gradient.contiguous())
        return made, None, None, None


def _run_pixels(
    which: int, *, cells: Tensor, labels: Tensor, rows: Tensor, shares: Tensor, **tensors: Tensor
) -> None:
    from falconet.layers.fast.kernels.losses import BAND, GROUP, PIXELS

    images, classes, high, width = cells.shape
    height = labels.shape[1]
    parts = -(-height // BAND) if which == PIXELS else -(-classes // GROUP)
    sizes = {'images': images, 'classes': classes, 'high': high, 'height': height, 'width': width}
    places = {'x': cells, 'labels': labels, 'cell_rows': rows, 'shares': shares}
    _run(which, images * parts, **places, **tensors, **sizes)


def _run_over(which: int, **tensors: Tensor) -> None:
    from falconet.layers.fast.kernels.losses import CHUNK

    numbers = tensors['x'].numel()
    _run(which, -(-numbers // CHUNK), **tensors, width=numbers)


def _run(which: int, jobs: int, **given: Tensor | int) -> None:
    """Run a pass; what is not given is zero."""
    from falconet.layers.fast.kernels import losses
    from falconet.layers.fast.kernels import openmp as team

    call = (ctypes.c_int64 * losses.LENGTH)()
    call[losses.PASS], call[losses.JOBS] = which, jobs
    for name, value in given.items():
        place = getattr(losses, name.upper())
        call[place] = value.data_ptr() if isinstance(value, Tensor) else value
    team.run(call, 'losses', threads=min(jobs, torch.get_num_threads()))
