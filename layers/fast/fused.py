"""Batch norm and activation as one operation, for training on CPUs.

torch walks over a map nine times to normalise it, to clamp it and to come back; here it is four times, in
loops that Numba compiles (`layers.fast.kernels`). Statistics and sums are float32 and float64 whatever the
maps are, and the sums' order follows from a map's shape alone. What is not plain training on a CPU goes
torch's way: see `fits`.

Off unless a training switches it on with `fused_kernels`, and without Numba nothing changes.
"""

import ctypes
import importlib.util
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from falconet.layers.fast.recompute import remember

RELU6 = (0.0, 6.0)
RELU = (0.0, math.inf)
NOTHING = (-math.inf, math.inf)
CHUNK = 2**16  # numbers that one thread adds up by itself
TABLE_ROWS = 7
_wanted = [False]


def can_fuse() -> bool:
    """Whether Numba is there to compile with."""
    return all(importlib.util.find_spec(name) is not None for name in ('numba', 'llvmlite'))


def is_fused() -> bool:
    """Whether the fused way is switched on."""
    return _wanted[0]


def set_fused(wanted: bool) -> None:
    """Switch the fused way on or off for this process; on has no effect without Numba."""
    _wanted[0] = wanted and can_fuse()


@contextmanager
def fused_kernels(wanted: bool = True) -> Iterator[None]:
    """Switch the fused way on or off until the end of the block, backward passes included."""
    before = _wanted[0]
    set_fused(wanted)
    try:
        yield
    finally:
        _wanted[0] = before


def norm_relu6(x: Tensor, norm: nn.Module, *, limits: tuple[float, float] = RELU6) -> Tensor:
    """Batch norm, then a clamp: (B, C, H, W) -> the same shape, dtype and memory format.

    Args:
        x: a convolution's output.
        norm: its `BatchNorm2d`, whose running statistics follow as always.
        limits: what the result is clamped to; `NOTHING` leaves it alone.
    """
    if fits(x, norm):
        return fused_norm(x, norm, limits)  # type: ignore[arg-type]  # fits says so
    tensor = norm(x)
    return tensor if limits == NOTHING else F.hardtanh(tensor, *limits)


def fused_norm(x: Tensor, norm: nn.BatchNorm2d, limits: tuple[float, float]) -> Tensor:
    """The fused way of `norm_relu6`, for what `fits`."""
    table = torch.empty(TABLE_ROWS, x.shape[1])
    made = NormClamp.apply(x, norm.weight, norm.bias, table, limits, norm.eps)
    remember(made, partial(normalised, x.detach(), table, (*limits, norm.eps)))
    update_statistics(norm, table, x.numel() // x.shape[1])
    return made


def update_statistics(norm: nn.BatchNorm2d, table: Tensor, rows: int) -> None:
    """Let a norm's running statistics follow those of a batch with so many numbers a channel."""
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        norm.running_mean.lerp_(table[0], norm.momentum)  # type: ignore[union-attr]
        norm.running_var.lerp_(table[5] * (rows / (rows - 1)), norm.momentum)  # type: ignore[union-attr]


def fits(x: Tensor, norm: nn.Module) -> bool:
    """Whether the fused way computes what torch would: in training, on a CPU, the ordinary case."""
    return computes(x) and normalises(norm, x.shape[1]) and x.numel() > x.shape[1]


def normalises(norm: nn.Module, channels: int) -> bool:
    """Whether this is a plain batch norm in training, of so many channels."""
    return (
        isinstance(norm, nn.BatchNorm2d)  # SyncBatchNorm is none
        and norm.training
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.running_mean is not None
        and norm.affine
        and norm.weight.dtype == norm.running_mean.dtype == torch.float32
        and norm.weight.device.type == 'cpu'
        and norm.num_features == channels
    )


def computes(x: Tensor) -> bool:
    """Whether the loops are wanted here and can read these maps."""
    return (
        x.dtype in (torch.bfloat16, torch.float32)
        and x.ndim == 4
        and _wants(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and compiles(x.dtype)
    )


def computes_losses(x: Tensor) -> bool:
    """Whether the loops are wanted here for the losses of these scores."""
    return x.dtype == torch.float32 and _wants(x) and compiles('losses')


def _wants(x: Tensor) -> bool:
    """Whether the loops are switched on and this is an ordinary tensor, in training on a CPU."""
    return (
        _wanted[0]
        and torch.is_grad_enabled()
        and type(x) is Tensor
        and x.device.type == 'cpu'
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and torch._C._functorch.peek_interpreter_stack() is None  # type: ignore[attr-defined]
    )


@cache
def compiles(kind: torch.dtype | str) -> bool:
    """Whether Numba makes machine code here; it takes seconds the first time, and comes from a cache then."""
    try:
        from falconet.layers.fast.kernels.openmp import compiled

        compiled(kind)
    except Exception as error:  # a Numba or LLVM of another kind: what is missing is speed
        set_fused(False)
        warnings.warn(f'trains without the fused kernels, which do not compile here: {error}', stacklevel=2)
        return False
    return True


class NormClamp(torch.autograd.Function):
    """Batch norm by a batch's own statistics, and a clamp, over the rows of a channels_last map."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        table: Tensor,
        limits: tuple[float, float],
        epsilon: float,
    ) -> Tensor:
        """Return the result; `table` gets what `layers.fast.kernels.norm` says."""
        from falconet.layers.fast.kernels.norm import COMBINE, NORMALISE, SUM

        made = torch.empty_like(x)
        table[2] = bias
        numbers = (*limits, epsilon)
        call = Call(x, table, numbers, out=made, weight=weight.contiguous())
        call.run(SUM)
        call.run(COMBINE)
        call.run(NORMALISE)
        ctx.save_for_backward(x, table)
        ctx.numbers = numbers
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of input, weight and bias."""
        from falconet.layers.fast.kernels.norm import COMBINE_GRADIENTS, MAKE_GRADIENT, SUM_GRADIENTS

        x, table = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        made, of_parameters = torch.empty_like(x), torch.empty(2, x.shape[1])
        call = Call(x, table.clone(), ctx.numbers, out=made, gradient=gradient, made=of_parameters)
        call.run(SUM_GRADIENTS)
        call.run(COMBINE_GRADIENTS)
        if ctx.needs_input_grad[0]:
            call.run(MAKE_GRADIENT)
        return (
            (made if ctx.needs_input_grad[0] else None),
            of_parameters[0],
            of_parameters[1],
            None,
            None,
            None,
        )


def normalised(x: Tensor, table: Tensor, numbers: tuple[float, ...]) -> Tensor:
    """Normalise and clamp again by a table that is there."""
    from falconet.layers.fast.kernels.norm import NORMALISE

    made = torch.empty_like(x)
    Call(x, table, numbers, out=made).run(NORMALISE)
    return made


class Call:
    """The passes of one operation: `kernels.norm`'s list of numbers, and what keeps its memory alive.

    Args:
        x: the rows, (B, C, H, W) in channels_last.
        table: (7, C) float32.
        numbers: floor, ceiling, epsilon.
        **tensors: `out`, `gradient`, `weight`, `made`, as the passes want them.
    """

    def __init__(self, x: Tensor, table: Tensor, numbers: tuple[float, ...], **tensors: Tensor) -> None:
        channels = x.shape[1]
        rows = x.numel() // channels
        chunk_rows = max(32, CHUNK // channels)
        chunks = -(-rows // chunk_rows)
        partial = torch.empty(chunks, 3, channels)
        self.dtype = x.dtype
        self._numbers = (ctypes.c_double * 3)(*numbers)
        self._alive = (x, table, partial, tensors)

        def place(name: str) -> int:
            return tensors[name].data_ptr() if name in tensors else 0

        self._call = (ctypes.c_int64 * 13)(
            0,
            rows,
            channels,
            chunk_rows,
            x.data_ptr(),
            place('out'),
            place('gradient'),
            table.data_ptr(),
            partial.data_ptr(),
            ctypes.addressof(self._numbers),
            place('weight'),
            place('made'),
            0,
        )

    def run(self, which: int) -> None:
        """Run one pass, on as many threads as torch computes with."""
        from falconet.layers.fast.kernels.norm import COMBINE, COMBINE_GRADIENTS, NEXT, PASS
        from falconet.layers.fast.kernels.openmp import run

        self._call[PASS], self._call[NEXT] = which, 0
        alone = which in (COMBINE, COMBINE_GRADIENTS)
        run(self._call, self.dtype, threads=1 if alone else torch.get_num_threads())
