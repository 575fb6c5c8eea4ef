"""Convolution blocks that compute norm and clamp as one operation; and where they cannot."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from falconet.backbones import MobileNetV2
from falconet.layers import ConvNormActivation
from falconet.layers.fast import fused
from falconet.layers.fast.fused import can_fuse, fused_kernels, is_fused, norm_relu6

needs_numba = pytest.mark.skipif(not can_fuse(), reason='needs Numba')


def images(*shape: int) -> Tensor:
    """Maps far from zero, as a convolution's can be."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 20
    return made.contiguous(memory_format=torch.channels_last).requires_grad_()


def taken(made: Tensor) -> bool:
    """Whether the fused way made this."""
    return made.grad_fn is not None and 'NormClamp' in type(made.grad_fn).__name__


def block_after(block: nn.Module, x: Tensor, *, times: int = 1, checkpointed: bool = False) -> list[Tensor]:
    """Gradients and state after a step in which the block is used several times."""
    tensor = x.detach().requires_grad_()
    made = tensor
    for _ in range(times):
        made = checkpoint(block, made, use_reentrant=False) if checkpointed else block(made)
    made.square().mean().backward()
    assert tensor.grad is not None
    return [made, tensor.grad, *(each.grad for each in block.parameters()), *block.state_dict().values()]  # type: ignore[list-item]


@needs_numba
@pytest.mark.parametrize('activation', [nn.ReLU6, nn.ReLU, nn.Hardswish])
def test_a_block_used_twice_counts_twice(activation: type[nn.Module]) -> None:
    def block() -> nn.Module:
        torch.manual_seed(0)
        made = ConvNormActivation(8, 8, 3, activation=activation)
        return made.to(memory_format=torch.channels_last)

    x = images(4, 8, 12, 12)
    expected = block_after(block(), x, times=2)
    with fused_kernels():
        ours = block_after(block(), x, times=2)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@needs_numba
@pytest.mark.usefixtures('fusing')
def test_checkpointing_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    block = ConvNormActivation(8, 8, 3).to(memory_format=torch.channels_last)
    plain = block_after(block, images(4, 8, 12, 12))[:5]
    block.zero_grad()
    again = block_after(block, images(4, 8, 12, 12), checkpointed=True)[:5]
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))


@needs_numba
@pytest.mark.usefixtures('fusing')
def test_hooks_are_still_called() -> None:
    block, heard = ConvNormActivation(3, 8).to(memory_format=torch.channels_last), []
    block[2].register_forward_hook(lambda *_: heard.append('activation'))
    block(images(2, 3, 4, 4))
    block[1].register_forward_hook(lambda *_: heard.append('norm'))
    block(images(2, 3, 4, 4))
    assert heard == ['activation', 'norm', 'activation']


@needs_numba
def test_a_backbone_learns_as_with_torchs() -> None:
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, taps=('stage4',)).to(memory_format=torch.channels_last)
    x = torch.rand(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)

    def gradient() -> Tensor:
        backbone.zero_grad()
        backbone(x)[0].square().mean().backward()
        return torch.cat([each.grad.flatten() for each in backbone.parameters() if each.grad is not None])

    theirs = gradient()
    with fused_kernels():
        ours = gradient()
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.999
    assert not torch.equal(ours, theirs)


def test_it_is_off_until_asked_for_and_off_again_afterwards() -> None:
    assert not is_fused()
    with fused_kernels():
        assert is_fused() == can_fuse()
        with fused_kernels(False):
            assert not is_fused()
    assert not is_fused()


def test_without_numba_nothing_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused.importlib.util, 'find_spec', lambda name: None)
    with fused_kernels():
        assert not is_fused()
        assert not taken(norm_relu6(images(2, 8, 5, 5), nn.BatchNorm2d(8)))


@needs_numba
def test_a_numba_that_cannot_compile_costs_speed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from falconet.layers.fast.kernels import openmp as team

    def broken(*_: Any) -> Any:
        raise RuntimeError('no such instruction')

    monkeypatch.setattr(team, 'compiled', broken)
    fused.compiles.cache_clear()
    with fused_kernels():
        with pytest.warns(UserWarning, match='without the fused kernels.*no such instruction'):
            made = norm_relu6(images(2, 8, 5, 5), nn.BatchNorm2d(8))
        assert not taken(made)
        assert not is_fused()
    fused.compiles.cache_clear()


@needs_numba
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    from falconet.layers.fast.kernels import openmp as team

    def cfunc(signature: Any, *, cache: bool = False) -> Callable[[Any], str]:
        if cache:
            raise RuntimeError('cannot cache function: no locator available for file')
        return lambda function: f'{function.__name__}, in memory'

    monkeypatch.setattr(team, 'cfunc', cfunc)
    assert team.compiled.__wrapped__(torch.float32) == 'in_float32, in memory'


def test_importing_layers_does_not_import_numba() -> None:
    root = Path(__file__).parents[3]
    script = 'import sys, falconet.layers.fast.fused; assert "numba" not in sys.modules'
    subprocess.run([sys.executable, '-c', script], cwd=root, check=True)
