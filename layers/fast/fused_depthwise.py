"""A depthwise convolution between two norms as one operation, for training on CPUs.

In an inverted residual block that is everything on the wide side: norm and ReLU6 of the expansion, the
depthwise convolution, its norm and ReLU6. The loops of `layers.fast.kernels.depthwise` write no map that the
backward pass does not need. What is not the ordinary case goes the ways of `layers.fast.fused`,
`layers.fast.depthwise` and torch: see `fits_depthwise`.
"""

import ctypes
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from falconet.layers.fast.fused import (
    NOTHING,
    TABLE_ROWS,
    Call,
    computes,
    normalised,
    normalises,
    update_statistics,
)
from falconet.layers.fast.recompute import remember

BAND = 2**18  # numbers of a map that one thread walks over by itself, the borders of bands twice
LEAST_ROWS = 8
Limits = tuple[float, float]


def depthwise_norm(
    x: Tensor,
    norm: nn.BatchNorm2d | None,
    limits: Limits,
    convolution: nn.Conv2d,
    following: nn.BatchNorm2d,
    final_limits: Limits,
) -> Tensor:
    """Norm, clamp, depthwise convolution, norm and clamp: (B, C, H, W) -> (B, C, H', W').

    Args:
        x: what `fits_depthwise`.
        norm, limits: of the first norm and clamp, or None and `NOTHING` without them.
        convolution: 3x3, one filter a channel.
        following, final_limits: of the second norm and clamp.
    """
    x = x.to(computed_in(x))
    tables = (torch.empty(TABLE_ROWS, x.shape[1]), torch.empty(TABLE_ROWS, x.shape[1]))
    weight, bias, epsilon = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
    numbers = (*limits, epsilon, *final_limits, following.eps)
    parameters = (weight, bias, convolution.weight, following.weight, following.bias)
    made, between = NormDepthwise.apply(x, *parameters, tables, numbers, geometry_of(convolution))
    remember(made, partial(normalised, between, tables[1], (*final_limits, following.eps)))
    if norm is not None:
        update_statistics(norm, tables[0], x.numel() // x.shape[1])
    update_statistics(following, tables[1], made.numel() // made.shape[1])
    return made


def fits_depthwise(x: Tensor, norm: nn.Module | None, convolution: nn.Module, following: nn.Module) -> bool:
    """Whether `depthwise_norm` computes what torch would, in training on a CPU."""
    if not (
        type(convolution) is nn.Conv2d  # padded otherwise, or with computed weights, it is another type
        and convolution.groups == convolution.in_channels == convolution.out_channels > 1
        and convolution.kernel_size == (3, 3)
        and convolution.bias is None
        and convolution.padding_mode == 'zeros'
        and isinstance(convolution.padding, tuple)
        and convolution.weight.dtype == torch.float32
        and convolution.weight.device.type == 'cpu'
    ):
        return False
    if not (computes(x) and x.shape[1] == convolution.in_channels and computed_in(x) is not None):
        return False
    high, wide = output_size(x, geometry_of(convolution))
    return (
        min(high, wide) >= 1
        and x.shape[0] * high * wide > 1
        and normalises(following, x.shape[1])
        and (norm is None or (normalises(norm, x.shape[1]) and x.numel() > x.shape[1]))
    )


def computed_in(x: Tensor) -> torch.dtype | None:
    """The dtype that a convolution with float32 weights computes this in, or None if it is another kind."""
    if torch.is_autocast_enabled('cpu'):
        dtype = torch.get_autocast_dtype('cpu')
        return dtype if dtype == torch.bfloat16 else None
    return torch.float32 if x.dtype == torch.float32 else None


def geometry_of(convolution: nn.Conv2d) -> tuple[int, ...]:
    """Strides, paddings and rates, down and across."""
    return (*convolution.stride, *convolution.padding, *convolution.dilation)  # type: ignore[return-value]


def output_size(x: Tensor, geometry: tuple[int, ...]) -> tuple[int, int]:
    """Height and width after the convolution."""
    high, wide = (
        (size + 2 * pad - 2 * rate - 1) // stride + 1
        for size, stride, pad, rate in zip(
            x.shape[2:], geometry[:2], geometry[2:4], geometry[4:], strict=True
        )
    )
    return high, wide


class NormDepthwise(torch.autograd.Function):
    """`depthwise_norm`; returns what the convolution made, too, for `layers.fast.recompute`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        kernel: Tensor,
        next_weight: Tensor,
        next_bias: Tensor,
        tables: tuple[Tensor, Tensor],
        numbers: tuple[float, ...],
        geometry: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        from falconet.layers.fast.kernels.depthwise import COMBINE_NEXT, FORWARD
        from falconet.layers.fast.kernels.norm import COMBINE, NORMALISE, SUM

        table, following = tables
        if weight is None:
            table[0], table[1], table[2] = 0.0, 1.0, 0.0
        else:
            assert bias is not None
            table[2] = bias
            call = Call(x, table, numbers[:3], weight=weight.contiguous())
            call.run(SUM)
            call.run(COMBINE)
        following[2] = next_bias
        between = torch.empty(
            (*x.shape[:2], *output_size(x, geometry)), dtype=x.dtype, memory_format=torch.channels_last
        )
        call = DepthwiseCall(
            x, between, kernel, tables, numbers, geometry, forward=True, next_weight=next_weight.contiguous()
        )
        call.run(FORWARD)
        call.run(COMBINE_NEXT)
        made = torch.empty_like(between)
        Call(between, following, numbers[3:], out=made).run(NORMALISE)
        ctx.save_for_backward(x, between, kernel, table, following)
        ctx.has_norm, ctx.numbers, ctx.geometry = weight is not None, numbers, geometry
        ctx.mark_non_differentiable(between)
        ctx.set_materialize_grads(False)
        return made, between

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from falconet.layers.fast.kernels.depthwise import BACKWARD, COMBINE_BACK
        from falconet.layers.fast.kernels.norm import COMBINE_GRADIENTS, REPLACE_GRADIENT, SUM_GRADIENTS

        if gradient is None:
            return (None,) * 9
        x, between, kernel, *tables = ctx.saved_tensors
        table, following = tables[0].clone(), tables[1].clone()
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        of_next, of_norm = torch.empty(2, x.shape[1]), torch.empty(2, x.shape[1])
        of_kernel = torch.empty(9, x.shape[1])
        call = Call(between, following, ctx.numbers[3:], gradient=gradient, made=of_next)
        call.run(SUM_GRADIENTS)
        call.run(COMBINE_GRADIENTS)
        made = torch.empty_like(x)
        back = DepthwiseCall(
            x,
            between,
            kernel,
            (table, following),
            ctx.numbers,
            ctx.geometry,
            forward=False,
            has_norm=ctx.has_norm,
            gradient=gradient,
            out=made,
            made=of_norm,
            next_made=of_kernel,
        )
        back.run(BACKWARD)
        back.run(COMBINE_BACK)
        if ctx.has_norm and ctx.needs_input_grad[0]:
            Call(x, table, ctx.numbers[:3], out=made).run(REPLACE_GRADIENT)
        return (
            made if ctx.needs_input_grad[0] else None,
            of_norm[0] if ctx.has_norm else None,
            of_norm[1] if ctx.has_norm else None,
            of_kernel.t().reshape(kernel.shape),
            of_next[0],
            of_next[1],
            None,
            None,
            None,
        )


def plain_gradients(
    gradient: Tensor, images: Tensor, kernel: Tensor, geometry: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Gradients of a convolution's input and weights, with nothing before it and nothing after.

    Args:
        gradient, images: channels_last, of one dtype that `layers.fast.fused.computes`.
        kernel: (C, 1, 3, 3).
        geometry: strides, paddings and rates.
    """
    from falconet.layers.fast.kernels.depthwise import BACKWARD, COMBINE_BACK

    neutral = torch.zeros(TABLE_ROWS, images.shape[1])
    neutral[1] = 1.0  # scale
    made, of_kernel = torch.empty_like(images), torch.empty(9, images.shape[1])
    numbers = (*NOTHING, 0.0, *NOTHING, 0.0)
    call = DepthwiseCall(
        images,
        gradient,
        kernel.float(),
        (neutral, neutral),
        numbers,
        geometry,
        forward=False,
        gradient=gradient,
        out=made,
        next_made=of_kernel,
    )
    call.run(BACKWARD)
    call.run(COMBINE_BACK)
    return made, of_kernel.t().reshape(kernel.shape)


class DepthwiseCall:
    """The passes over a convolution: the list of numbers of `layers.fast.kernels.depthwise`, and its memory.

    Args:
        x, between: input and output of the convolution, channels_last.
        kernel: (C, 1, 3, 3).
        tables: of the norms before and after it, (7, C) float32.
        numbers: floor, ceiling and epsilon of both.
        geometry: from `geometry_of`.
        forward: which way the passes go.
        has_norm: whether there is one before the convolution.
        **tensors: `out`, `gradient`, `made`, `next_weight`, `next_made`, as the passes want them.
    """

    def __init__(
        self,
        x: Tensor,
        between: Tensor,
        kernel: Tensor,
        tables: tuple[Tensor, Tensor],
        numbers: tuple[float, ...],
        geometry: tuple[int, ...],
        *,
        forward: bool,
        has_norm: bool = False,
        **tensors: Tensor,
    ) -> None:
        from falconet.layers.fast.kernels.depthwise import ROWS_OF_PARTIAL

        images, channels = x.shape[:2]
        walked = between if forward else x
        rows = max(LEAST_ROWS, BAND // (walked.shape[3] * channels))
        bands = -(-walked.shape[2] // rows)
        partial = torch.empty(images * bands, 3 if forward else ROWS_OF_PARTIAL, channels)
        by_tap = kernel.detach().reshape(channels, 9).t().contiguous()  # (9, C)
        self.dtype = x.dtype
        floor, ceiling, _, final_floor, final_ceiling, final_epsilon = numbers
        self._numbers = (ctypes.c_double * 5)(floor, ceiling, final_floor, final_ceiling, final_epsilon)
        self._alive = (x, between, by_tap, tables, partial, tensors)

        def place(name: str) -> int:
            return tensors[name].data_ptr() if name in tensors else 0

        fields = (
            0,
            images,
            channels,
            rows,
            x.data_ptr(),
            place('out'),
            place('gradient'),
            tables[0].data_ptr(),
            partial.data_ptr(),
            ctypes.addressof(self._numbers),
            by_tap.data_ptr(),
            place('made'),
            tables[1].data_ptr(),
            place('next_weight'),
            place('next_made'),
            between.data_ptr(),
            has_norm,
            *x.shape[2:],
            *between.shape[2:],
            *geometry,
            0,
        )
        self._call = (ctypes.c_int64 * len(fields))(*fields)

    def run(self, which: int) -> None:
        """Run one pass, on as many threads as torch computes with."""
        from falconet.layers.fast.kernels.depthwise import COMBINE_BACK, COMBINE_NEXT, NEXT, PASS
        from falconet.layers.fast.kernels.openmp import run

        self._call[PASS], self._call[NEXT] = which, 0
        alone = which in (COMBINE_NEXT, COMBINE_BACK)
        run(self._call, self.dtype, threads=1 if alone else torch.get_num_threads())
