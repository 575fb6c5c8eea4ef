"""Convolution blocks pad as they say, and learn from a single value a channel."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from falconet.backbones import MobileNetV2
from falconet.layers import ConvNormActivation, SamePadConv2d


def tensorflow_convolution(images: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """TensorFlow's definition of "SAME": pad by hand, then convolve without padding."""
    pads = []
    for axis in (1, 0):
        size, stride = images.shape[2 + axis], conv.stride[axis]
        reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
        leftover = stride if size % stride == 0 else size % stride
        total = max(reach - leftover, 0)
        pads += [total // 2, total - total // 2]
    padded = F.pad(images, pads)
    return F.conv2d(padded, conv.weight, None, conv.stride, 0, conv.dilation, conv.groups)


@pytest.mark.parametrize('size', [(8, 8), (7, 7), (8, 7), (5, 10), (1, 1), (1, 6)])
@pytest.mark.parametrize(('kernel', 'stride', 'dilation'), [(3, 2, 1), (3, 1, 2), (5, 2, 1), (3, 3, 1)])
def test_same_padding_equals_pad_then_valid(
    size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    conv = SamePadConv2d(4, 6, kernel, stride=stride, dilation=dilation, bias=False)
    images = torch.randn(2, 4, *size)
    result = conv(images)
    torch.testing.assert_close(result, tensorflow_convolution(images, conv))
    assert result.shape[2:] == tuple(-(-each // stride) for each in size)


@pytest.mark.parametrize('size', [(64, 64), (65, 63), (97, 33)])
@pytest.mark.parametrize('output_stride', [8, 16, 32])
def test_same_padded_network_equals_one_padded_by_hand(size: tuple[int, int], output_stride: int) -> None:
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, padding='same', output_stride=output_stride, taps=('stage7',)).eval()
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        (ours,) = backbone(images)
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.forward = lambda x, conv=module: tensorflow_convolution(x, conv)
        (expected,) = backbone(images)
    torch.testing.assert_close(ours, expected)


def test_a_batch_of_one_value_a_channel_is_normalised_with_the_running_statistics() -> None:
    layer = ConvNormActivation(3, 4)
    before = [value.clone() for value in layer.state_dict().values()]
    image = torch.rand(1, 3, 1, 1)
    made = layer.train()(image)
    assert all(torch.equal(*pair) for pair in zip(before, layer.state_dict().values(), strict=True))
    assert torch.equal(made, layer.eval()(image))
