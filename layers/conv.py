"""Convolution, batch norm and activation as heads use them, padded as TensorFlow or symmetrically."""

import torch.nn.functional as F
from torch import Tensor, nn

PADDINGS = ('same', 'symmetric')


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
        return super().forward(input)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6: (B, in, H, W) -> (B, out, ceil(H/s), ceil(W/s)).

    Args:
        in_channels, out_channels, kernel_size, stride, groups: of the convolution.
        padding: 'same' as TensorFlow, which at a stride puts the odd row and column of zeros at the lower
            right, or 'symmetric'. At stride 1 they are one.
        norm_eps, norm_momentum: of the batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: str = 'same',
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.03,
    ) -> None:
        if padding not in PADDINGS:
            raise ValueError(f'padding must be one of {PADDINGS}, got {padding!r}')
        needs_same = padding == 'same' and stride > 1
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding=0 if needs_same else kernel_size // 2,
                groups=groups,
                bias=False,
            ),
            LenientBatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum),
            nn.ReLU6(inplace=True),
        )
        self.pads = needs_same
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Sequential gives it)
        if self.pads:
            y, x = (
                max(0, (-(-size // self.stride) - 1) * self.stride + self.kernel_size - size)
                for size in input.shape[2:]
            )
            input = F.pad(input, (x // 2, x - x // 2, y // 2, y - y // 2))  # noqa: A001
        return super().forward(input)
