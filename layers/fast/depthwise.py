"""Gradients of depthwise convolutions on a CPU, where oneDNN computes some of them by slow reference code.

With oneDNN 3.12 that is the input's gradient at stride 2 in bfloat16, and both gradients of a dilated
convolution in any precision; they take ten to forty times as long as those of a plain one. Where the
compiled loops of `layers.fast.kernels` are switched on they compute those of 3x3 convolutions, else both are
computed from plain ones. The numbers are the same, in another order of summation at most, apart from strided
ones on maps of one cell, where oneDNN's gradient of the weights is wrong and ours is not.
benchmarks/depthwise.py measures what that saves.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from falconet.layers.fast.fused import computes
from falconet.layers.fast.fused_depthwise import plain_gradients as kernel_gradients

Pair = tuple[int, int]


def fast_depthwise(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context for a training step's forward pass on `device`, in which `conv2d` learns faster."""
    return FastDepthwise() if device.type == 'cpu' else nullcontext()


class FastDepthwise(TorchFunctionMode):
    """Inside this context `conv2d` takes the detour where oneDNN is slow; nothing else changes."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:  # as nn.Conv2d calls it
            images, weight, bias, stride, padding, dilation, groups = args
            is_depthwise = groups > 1 and groups == images.shape[1] == weight.shape[0]
            if is_depthwise and bias is None and isinstance(stride, tuple) and isinstance(padding, tuple):
                dtype = torch.bfloat16 if torch.is_autocast_enabled('cpu') else images.dtype
                is_strided = max(stride) > 1 and dilation == (1, 1) and dtype == torch.bfloat16
                reach = tuple(
                    rate * (kernel - 1) for rate, kernel in zip(dilation, weight.shape[2:], strict=True)
                )
                keeps_size = stride == (1, 1) and reach == tuple(2 * each for each in padding)
                in_step = all(pad % rate == 0 for pad, rate in zip(padding, dilation, strict=True))
                is_dilated = max(dilation) > 1 and keeps_size and in_step
                if is_strided or is_dilated:
                    images = images.to(dtype)
                    by_kernel = weight.shape[2:] == (3, 3) and computes(images)
                    return Depthwise.apply(images, weight.to(dtype), stride, padding, dilation, by_kernel)
        return func(*args, **(kwargs or {}))


class Depthwise(torch.autograd.Function):
    """`conv2d` with one filter a channel: either strided, or dilated and of unchanged size."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, by_kernel: bool
    ) -> Tensor:
        """(B, C, H, W), (C, 1, k, k) -> (B, C, H', W')."""
        ctx.save_for_backward(images, weight)
        ctx.geometry, ctx.by_kernel = (stride, padding, dilation), by_kernel
        return torch.conv2d(images, weight, None, stride, padding, dilation, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        if ctx.by_kernel:
            gradient = gradient.contiguous(memory_format=torch.channels_last)
            for_images, for_weight = kernel_gradients(
                gradient, images, weight, (*stride, *padding, *dilation)
            )
        elif dilation == (1, 1):
            for_images, for_weight = strided_gradients(
                gradient, images, weight, stride, padding, with_images=ctx.needs_input_grad[0]
            )
        else:
            for_images, for_weight = dilated_gradients(gradient, images, weight, padding, dilation)
        return for_images, for_weight, None, None, None, None


def plain_gradients(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    padding: Pair,
    wanted: Sequence[bool],
    stride: Pair = (1, 1),
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight of an undilated depthwise convolution, by torch."""
    geometry = (stride, padding, (1, 1), False, (0, 0), weight.shape[0])
    return torch.ops.aten.convolution_backward(gradient, images, weight, None, *geometry, [*wanted, False])[
        :2
    ]


def strided_gradients(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, *, with_images: bool
) -> tuple[Tensor | None, Tensor]:
    """By way of stride 1, of whose result every stride-th cell is kept: zeros lie between the gradients."""
    # On maps one cell high or wide oneDNN leaves part of the bfloat16 result unset; in float32 it does not.
    wide = torch.float32 if min(gradient.shape[2:]) == 1 else gradient.dtype
    tensors = (gradient.to(wide), images.to(wide), weight.to(wide))
    for_weight = plain_gradients(*tensors, padding, (False, True), stride)[1].to(weight.dtype)
    if not with_images:
        return None, for_weight
    height, width = (
        size + 2 * pad - (kernel - 1)
        for size, pad, kernel in zip(images.shape[2:], padding, weight.shape[2:], strict=True)
    )
    shape = (*gradient.shape[:2], height, width)
    spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
    spread[:, :, :: stride[0], :: stride[1]] = gradient
    return plain_gradients(spread, images, weight, padding, (True, False))[0], for_weight


def dilated_gradients(
    gradient: Tensor, images: Tensor, weight: Tensor, padding: Pair, dilation: Pair
) -> tuple[Tensor, Tensor]:
    """By way of plain convolutions over every rate-th row and column, which never see each other."""
    for_images = torch.empty_like(images)
    for_weight = torch.zeros_like(weight, dtype=torch.float32)
    once = (padding[0] // dilation[0], padding[1] // dilation[1])
    for row in range(min(dilation[0], images.shape[2])):
        for column in range(min(dilation[1], images.shape[3])):
            every = (..., slice(row, None, dilation[0]), slice(column, None, dilation[1]))
            for_images[every], part = plain_gradients(
                gradient[every], images[every], weight, once, (True, True)
            )
            for_weight += part
    return for_images, for_weight.to(weight.dtype)
