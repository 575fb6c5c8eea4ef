"""Strided depthwise convolutions trained in bfloat16 on a CPU, where oneDNN lacks a kernel.

With respect to its input, the gradient of a depthwise convolution of stride 2 takes oneDNN 3.12 ten times as
long in bfloat16 as in float32. At stride 1 it is fast, and the one is the other with zeros put between rows
and columns. benchmarks/strided_depthwise.py measures what that saves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FastStridedDepthwise(TorchFunctionMode):
    """Inside this context `conv2d` computes that gradient by way of stride 1; nothing else changes.

    It is to be used together with bfloat16 autocast on a CPU.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding, dilation, groups = args
            is_depthwise = groups > 1 and groups == images.shape[1] == weight.shape[0]
            # As nn.Conv2d calls it; a padding named by a string stays with torch.
            strides = isinstance(stride, tuple) and isinstance(padding, tuple) and max(stride) > 1
            if is_depthwise and strides and bias is None:
                return StridedDepthwise.apply(images.bfloat16(), weight.bfloat16(), stride, padding, dilation)
        return func(*args, **(kwargs or {}))


class StridedDepthwise(torch.autograd.Function):
    """`conv2d` with one filter a channel, without bias."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        """(B, C, H, W), (C, 1, k, k) -> (B, C, H', W')."""
        ctx.save_for_backward(images, weight)
        ctx.geometry = (stride, padding, dilation)
        return torch.conv2d(images, weight, None, stride, padding, dilation, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        groups = weight.shape[0]

        def differentiate(gradient: Tensor, stride: Sequence[int], wanted: list[bool]) -> Sequence[Tensor]:
            return torch.ops.aten.convolution_backward(
                gradient, images, weight, None, stride, padding, dilation, False, (0, 0), groups, wanted
            )

        for_weight = differentiate(gradient, stride, [False, True, False])[1]
        for_images = None
        if ctx.needs_input_grad[0]:
            # What the same convolution at stride 1 returns, of which every stride-th cell is kept.
            height, width = (
                size + 2 * pad - dilate * (kernel - 1)
                for size, pad, dilate, kernel in zip(
                    images.shape[2:], padding, dilation, weight.shape[2:], strict=True
                )
            )
            shape = (*gradient.shape[:2], height, width)
            spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
            spread[:, :, :: stride[0], :: stride[1]] = gradient
            for_images = differentiate(spread, (1, 1), [True, False, False])[0]
        return for_images, for_weight, None, None, None
