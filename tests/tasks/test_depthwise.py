"""FastStridedDepthwise changes how a gradient is computed, not what it is."""

import pytest
import timm
import torch
from torch import nn

from backbones.mobilenetv2 import SamePadConv2d
from tasks.runtime.depthwise import FastStridedDepthwise, StridedDepthwise


def gradients(layer: nn.Module, images: torch.Tensor, *, fast: bool) -> list[torch.Tensor]:
    """Of the input and of every parameter, after one pass in bfloat16."""
    layer.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        if fast:
            with FastStridedDepthwise():
                made = layer(images)
        else:
            made = layer(images)
    torch.manual_seed(1)
    made.backward(torch.randn_like(made))
    assert images.grad is not None
    return [images.grad, *(value.grad.clone() for value in layer.parameters() if value.grad is not None)]


@pytest.mark.parametrize('size', [(16, 16), (15, 10), (1, 3), (3, 2)])
@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, stride=(2, 3), padding=2, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2, groups=8, bias=False),
        SamePadConv2d(8, 8, 3, stride=2, groups=8, bias=False),
    ],
    ids=['stride 2', 'strides 2 and 3', 'dilated', 'SAME'],
)
def test_the_gradient_is_the_same(layer: nn.Module, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    for ours, theirs in zip(
        gradients(layer, images, fast=True), gradients(layer, images, fast=False), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # stride 1
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),  # full
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),  # with a bias
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8, bias=False),  # two filters a channel
    ],
)
def test_other_convolutions_are_left_alone(layer: nn.Conv2d, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StridedDepthwise, 'forward', lambda *_: pytest.fail('not strided depthwise'))
    gradients(layer, torch.randn(2, 8, 9, 9), fast=True)


def test_it_reaches_models_of_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = StridedDepthwise.forward
    monkeypatch.setattr(
        StridedDepthwise, 'forward', staticmethod(lambda *args: calls.append(1) or forward(*args))
    )
    gradients(timm.create_model('mobilenetv3_small_050'), torch.randn(1, 3, 64, 64), fast=True)
    assert len(calls) == 4  # one for each halving after the first, which is a full convolution
