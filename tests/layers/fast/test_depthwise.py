"""fast_depthwise changes how a gradient is computed, not what it is."""

from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
from torch import nn

from falconet.backbones import MobileNetV2
from falconet.layers import SamePadConv2d
from falconet.layers.fast import depthwise as depthwise_module
from falconet.layers.fast.depthwise import Depthwise, FastDepthwise, fast_depthwise
from falconet.layers.fast.fused import can_fuse, fused_kernels
from falconet.layers.fast.fused_depthwise import plain_gradients

CPU = torch.device('cpu')


def gradients(layer: nn.Module, images: torch.Tensor, *, fast: bool, amp: bool = True) -> list[torch.Tensor]:
    """Of the input and of every parameter, after one pass."""
    layer.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=amp), fast_depthwise(CPU) if fast else nullcontext():
        made = layer(images)
    torch.manual_seed(1)
    made.backward(torch.randn(made.shape).bfloat16().to(made.dtype))
    assert images.grad is not None
    return [images.grad, *(value.grad.clone() for value in layer.parameters() if value.grad is not None)]


def depthwise(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(8, 8, **{'kernel_size': 3, 'groups': 8, 'bias': False, **options})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shape of every input that takes the detour."""
    seen: list[torch.Size] = []
    forward = Depthwise.forward

    def noted(ctx: Any, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(images.shape)
        return forward(ctx, images, *rest)

    monkeypatch.setattr(Depthwise, 'forward', staticmethod(noted))
    return seen


@pytest.mark.parametrize('kernels', ['fused', 'torch'])
@pytest.mark.parametrize('size', [(16, 16), (15, 10), (1, 3), (3, 2), (1, 1)])
@pytest.mark.parametrize('amp', [True, False])
@pytest.mark.parametrize(
    'layer',
    [
        depthwise(stride=2, padding=1),
        depthwise(kernel_size=5, stride=(2, 3), padding=2),
        SamePadConv2d(8, 8, 3, stride=2, groups=8, bias=False),
        depthwise(padding=2, dilation=2),
        depthwise(kernel_size=(3, 5), padding=(4, 6), dilation=(4, 3)),
    ],
    ids=['stride 2', 'strides 2 and 3', 'SAME', 'rate 2', 'rates 4 and 3'],
)
def test_the_gradient_is_the_same(
    layer: nn.Module, amp: bool, size: tuple[int, int], kernels: str, calls: list[torch.Size]
) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    images = images.bfloat16().float()
    layer.weight.data = layer.weight.data.bfloat16().float()  # type: ignore[union-attr]
    with fused_kernels(kernels == 'fused'):
        ours = gradients(layer, images, fast=True, amp=amp)
    exact = gradients(layer.double(), images.double(), fast=False, amp=False)
    layer.float()
    for one, other in zip(ours, exact, strict=True):
        error = (one.double() - other).norm()
        # bfloat16 has 8 bits: each rounding costs up to 4e-3.
        assert error <= (5e-3 if amp else 1e-6) * other.norm()
    is_dilated = layer.dilation != (1, 1)  # type: ignore[union-attr]
    assert len(calls) == (1 if amp or is_dilated else 0)  # strided ones are fast in float32


@pytest.mark.parametrize(
    'layer',
    [
        depthwise(padding=1),
        depthwise(stride=2, padding=1, bias=True),
        depthwise(padding=1, dilation=2),  # changes the size
        depthwise(kernel_size=2, padding=1, dilation=2),  # keeps it, out of step with the rate
        depthwise(stride=2, padding=2, dilation=2),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8, bias=False),  # two filters a channel
    ],
)
def test_other_convolutions_are_left_alone(layer: nn.Conv2d, calls: list[torch.Size]) -> None:
    gradients(layer, torch.randn(2, 8, 9, 9), fast=True)
    assert calls == []


def test_it_reaches_models_of_other_libraries(calls: list[torch.Size]) -> None:
    gradients(timm.create_model('mobilenetv3_small_050'), torch.randn(1, 3, 64, 64), fast=True)
    assert len(calls) == 4  # one for each halving after the first, which is a full convolution


@pytest.mark.parametrize(('output_stride', 'layers'), [(32, 4), (16, 3 + 3), (8, 2 + 10)])
def test_strided_and_dilated_blocks_of_the_backbone_take_the_detour(
    output_stride: int, layers: int, calls: list[torch.Size]
) -> None:
    backbone = MobileNetV2(width=0.35, taps=('stage7',), output_stride=output_stride)
    with torch.autocast('cpu', torch.bfloat16), fast_depthwise(CPU):
        backbone(torch.rand(1, 3, 64, 64))
    assert len(calls) == layers


def test_other_devices_are_left_alone() -> None:
    assert isinstance(fast_depthwise(CPU), FastDepthwise)
    assert not isinstance(fast_depthwise(torch.device('cuda')), FastDepthwise)


def test_the_compiled_loops_are_taken_for_3x3_where_they_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_fuse():
        pytest.skip('needs Numba')
    taken: list[tuple[int, ...]] = []

    def noted(*args: Any) -> Any:
        taken.append(args[-1])
        return plain_gradients(*args)

    monkeypatch.setattr(depthwise_module, 'kernel_gradients', noted)
    images = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last)
    gradients(depthwise(stride=2, padding=1), images, fast=True)
    with fused_kernels():
        gradients(depthwise(kernel_size=5, stride=2, padding=1), images, fast=True)
        gradients(depthwise(stride=2, padding=1), images.contiguous().clone(), fast=True)
        gradients(SamePadConv2d(8, 8, 3, stride=2, groups=8, bias=False), images, fast=True)
        gradients(depthwise(padding=2, dilation=2), images, fast=True, amp=False)
    assert taken == [(2, 2, 0, 0, 1, 1), (1, 1, 2, 2, 2, 2)]
