"""Maps made again in the backward pass are the same bits, and take no memory in between."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falconet.layers import ConvNormActivation
from falconet.layers.fast.fused import can_fuse, fused_kernels
from falconet.layers.fast.recompute import _known, recompute

pytestmark = pytest.mark.skipif(not can_fuse(), reason='needs Numba')


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        ConvNormActivation(3, 16, 3),
        ConvNormActivation(16, 16, 3, groups=16),
        ConvNormActivation(16, 8),
    ]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def gradients(*, again: bool, seen: list[Any] | None = None, amp: bool = False) -> list[Tensor]:
    net, x = network(), torch.rand(2, 3, 20, 20).contiguous(memory_format=torch.channels_last)
    if seen is not None:
        for layer in net[:2]:
            layer.register_forward_hook(lambda module, given, made: seen.append(weakref.ref(made)))
    with fused_kernels(), torch.autocast('cpu', torch.bfloat16, enabled=amp):
        torch.manual_seed(1)
        with recompute(again):
            made = net(x)
        loss = made.float().square().mean()
        del made
        gc.collect()
        if seen is not None:
            seen[:] = [each() is None for each in seen]
        loss.backward()
    return [each.grad for each in net.parameters() if each.grad is not None]


@pytest.mark.parametrize('amp', [False, True])
def test_the_bits_are_the_same_and_the_maps_are_gone_in_between(amp: bool) -> None:
    torch.manual_seed(1)
    kept_gone: list[Any] = []
    again_gone: list[Any] = []
    torch.manual_seed(5)
    kept = gradients(again=False, seen=kept_gone, amp=amp)
    torch.manual_seed(5)
    again = gradients(again=True, seen=again_gone, amp=amp)
    assert all(torch.equal(*pair) for pair in zip(kept, again, strict=True))
    assert kept_gone == [False, False]
    assert again_gone == [True, True]
    assert not _known


def test_a_map_that_was_changed_in_place_is_kept_as_it_is() -> None:
    torch.manual_seed(0)
    block = ConvNormActivation(3, 8).to(memory_format=torch.channels_last)
    weight = torch.rand(8, 1, 1, requires_grad=True)
    with fused_kernels(), recompute():
        made = block(torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
        made.mul_(2)
        (made * weight).sum().backward()
    torch.testing.assert_close(weight.grad, made.sum((0, 2, 3)).detach()[:, None, None])


@pytest.mark.parametrize('fused', [False, True])
def test_what_torch_refuses_for_a_change_in_place_is_refused_here(fused: bool) -> None:
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    with fused_kernels(fused), recompute():
        made = x.sigmoid()  # whose gradient needs what it returned
        made += 1
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        made.sum().backward()
