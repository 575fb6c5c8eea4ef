"""Convolution, batch norm and activation as one block, padded symmetrically or as TensorFlow does."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from falconet.layers.fast.fused import NOTHING, RELU, RELU6, fits, fused_norm, is_fused
from falconet.layers.fast.fused_depthwise import depthwise_norm, fits_depthwise

LIMITS = {nn.ReLU6: RELU6, nn.ReLU: RELU}
PADDINGS = ('symmetric', 'same')


class SamePadConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's "SAME": ceil(size / stride) outputs, the odd pixel at the end.

    At stride 2 an even image gets nothing before it and one row after it. torch's own
    `padding='same'` refuses strides, hence this class.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Conv2d gives it)
        height = self._total_padding(input.shape[-2], axis=0)
        width = self._total_padding(input.shape[-1], axis=1)
        padding = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(F.pad(input, padding))

    def _total_padding(self, size: int, *, axis: int) -> int:
        stride = self.stride[axis]
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        outputs = -(-size // stride)
        return max((outputs - 1) * stride + reach - size, 0)


class LenientBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that trains on a batch with one value per channel, too.

    A batch of one image on a 1x1 map has no variance: torch refuses it, and the normalised value would be
    zero whatever the image. Such a batch is normalised with the running statistics instead, and leaves them
    as they are. (A run that only ever has batches of one therefore keeps the initial 0 and 1 there: the norm
    is then a learnt scale and shift.)
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.BatchNorm2d gives it)
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if fits(input, self):
            return fused_norm(input, self, NOTHING)
        return super().forward(input)


class ConvNormActivation(nn.Sequential):
    """Convolution without bias, batch norm, activation: (B, in, H, W) -> (B, out, ceil(H/s), ceil(W/s)).

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: of the convolution.
        padding: 'symmetric', or 'same' as TensorFlow, which at a stride puts the odd row and column of
            zeros at the lower right. At stride 1 they are one.
        norm_eps, norm_momentum: of the batch norm.
        activation: class of the last layer, built in place.

    Raises:
        ValueError: `padding` is neither.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: str = 'symmetric',
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        activation: Callable[..., nn.Module] = nn.ReLU6,
    ) -> None:
        if padding not in PADDINGS:
            raise ValueError(f'padding must be one of {PADDINGS}, got {padding!r}')
        # At stride 1 TensorFlow's padding is symmetric too, and a plain convolution is faster.
        needs_same = padding == 'same' and stride > 1
        super().__init__(
            (SamePadConv2d if needs_same else nn.Conv2d)(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=0 if needs_same else dilation * (kernel_size - 1) // 2,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            LenientBatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum),
            activation(inplace=True),
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Sequential gives it)
        if not is_fused() or len(self) != 3:
            return super().forward(input)
        convolution, norm, _ = self
        limits = limits_of(self)
        if (
            limits is not None
            and fits_depthwise(input, None, convolution, norm)
            and not has_hooks(convolution)
        ):
            return depthwise_norm(input, None, NOTHING, convolution, norm, limits)  # type: ignore[arg-type]  # fits
        return self.finish(convolution(input))

    def finish(self, tensor: Tensor) -> Tensor:
        """Norm and activation of the convolution's output."""
        _, norm, activation = self
        limits = limits_of(self)
        if limits is not None and fits(tensor, norm):
            return fused_norm(tensor, norm, limits)  # type: ignore[arg-type]  # fits says so
        return activation(norm(tensor))


def in_turn(first: ConvNormActivation, second: ConvNormActivation, tensor: Tensor) -> Tensor:
    """Return `second(first(tensor))`; a depthwise `second` becomes one operation with `first`'s norm."""
    if is_fused() and not any(map(has_hooks, (first, second))):
        before, after = limits_of(first), limits_of(second)
        if before is not None and after is not None and not has_hooks(second[0]):
            expanded = first[0](tensor)
            if fits_depthwise(expanded, first[1], second[0], second[1]):
                return depthwise_norm(expanded, first[1], before, second[0], second[1], after)  # type: ignore[arg-type]  # fits
            return second(first.finish(expanded))
    return second(first(tensor))


def limits_of(block: ConvNormActivation) -> tuple[float, float] | None:
    """What a block's last layer clamps to, if its norm and clamp may be computed as one."""
    if len(block) != 3 or has_hooks(block[1]) or has_hooks(block[2]):
        return None
    return LIMITS.get(type(block[2]))


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to hear of this module's calls."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in module.__dict__
    )
