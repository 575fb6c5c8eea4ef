"""Fused norms compute what torch's do, and where they do not apply torch's are taken."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falconet.layers import LenientBatchNorm2d
from falconet.layers.fast.fused import NOTHING, RELU, RELU6, can_fuse, fits, fused_kernels, norm_relu6

needs_numba = pytest.mark.skipif(not can_fuse(), reason='needs Numba')

BFLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float32, torch.float64


def images(*shape: int, dtype: torch.dtype = FLOAT32, seed: int = 0) -> Tensor:
    """Maps far from zero, as a convolution's can be."""
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(shape, generator=generator) * 3 + 20).to(dtype)
    return made.contiguous(memory_format=torch.channels_last).requires_grad_()


def norm_of(channels: int, **options: Any) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **options)
    generator = torch.Generator().manual_seed(1)
    if norm.affine:
        norm.weight.data.copy_(1 + torch.randn(channels, generator=generator) / 3)
        norm.bias.data.copy_(1 + torch.randn(channels, generator=generator))
    return norm


def taken(made: Tensor) -> bool:
    """Whether the fused way made this."""
    return made.grad_fn is not None and 'NormClamp' in type(made.grad_fn).__name__


def results(x: Tensor, norm: nn.BatchNorm2d, limits: tuple[float, float]) -> list[Tensor]:
    """Output, gradients and statistics after a step."""
    made = norm_relu6(x, norm, limits=limits)
    made.backward(
        torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).bfloat16().to(made.dtype)
    )
    found = [made, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    assert all(each is not None for each in found)
    return found  # type: ignore[return-value]


@needs_numba
@pytest.mark.usefixtures('fusing')
@pytest.mark.parametrize('limits', [RELU6, RELU, NOTHING], ids=['relu6', 'relu', 'linear'])
@pytest.mark.parametrize('dtype', [BFLOAT16, FLOAT32])
@pytest.mark.parametrize(
    'shape',
    [
        (3, 5, 7, 9),
        (2, 16, 33, 17),
        (4, 130, 20, 20),
        (1, 24, 70, 61),
        (5, 3, 1, 1),
        (2, 1, 9, 4),
        (8, 960, 2, 1),
    ],
)
def test_it_equals_double_precision(
    shape: tuple[int, ...], dtype: torch.dtype, limits: tuple[float, float]
) -> None:
    norm, double = norm_of(shape[1]), norm_of(shape[1]).double()
    x = images(*shape, dtype=dtype)
    wide = x.detach().double().requires_grad_()
    ours, exact = results(x, norm, limits), results(wide, double, limits)
    assert taken(ours[0])
    assert not taken(exact[0])
    assert norm.num_batches_tracked == 1
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for index, (one, other) in enumerate(zip(ours, exact, strict=True)):
        # Maps are rounded to their dtype; statistics and the parameters' gradients never are.
        allowed = 5e-3 if dtype == BFLOAT16 and index < 2 else 3e-6 * (100 if shape[0] == 5 else 1)
        assert (one.double() - other).norm() <= allowed * other.norm() + 1e-9, index


@needs_numba
@pytest.mark.usefixtures('fusing')
@pytest.mark.parametrize('dtype', [BFLOAT16, FLOAT32])
def test_no_bit_depends_on_the_number_of_threads(dtype: torch.dtype) -> None:
    before, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            runs.append(results(images(4, 40, 50, 50, dtype=dtype), norm_of(40), RELU6))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for run in runs for pair in zip(run, runs[0], strict=True))


@needs_numba
@pytest.mark.slow
@pytest.mark.usefixtures('fusing')
def test_python_threads_do_the_same_where_torch_has_no_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    from falconet.layers.fast.kernels import openmp as team

    expected = results(images(4, 40, 50, 50), norm_of(40), RELU6)
    monkeypatch.setattr(team, 'openmp', lambda: None)
    before = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            made = results(images(4, 40, 50, 50), norm_of(40), RELU6)
            assert all(torch.equal(*pair) for pair in zip(made, expected, strict=True))
    finally:
        torch.set_num_threads(before)


@needs_numba
@pytest.mark.usefixtures('fusing')
def test_threads_of_python_do_not_disturb_each_other() -> None:
    expected = results(images(2, 24, 40, 40), norm_of(24), RELU6)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            made = results(images(2, 24, 40, 40), norm_of(24), RELU6)
            wrong.extend(not torch.equal(*pair) for pair in zip(made, expected, strict=True))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert len(wrong) == 3 * 5 * 6
    assert not any(wrong)


def fork_and_compare() -> None:
    """Compute, fork, compute in the child as a loader's process does, and once more."""
    with fused_kernels():
        expected = results(images(2, 24, 40, 40), norm_of(24), RELU6)
        child = os.fork()
        if child == 0:  # torch gives loading processes one thread
            torch.set_num_threads(1)
        made = results(images(2, 24, 40, 40), norm_of(24), RELU6)
        same = all(torch.equal(*pair) for pair in zip(made, expected, strict=True))
        if child == 0:
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert same


@needs_numba
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_a_fork_hangs_neither_side(root: Path) -> None:
    """In a process of its own: what other tests leave behind in this one may not survive a fork."""
    script = f'import runpy; runpy.run_path({__file__!r})["fork_and_compare"]()'
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    subprocess.run([sys.executable, '-c', script], check=True, timeout=120, env=environment)


ELSEWHERE: dict[str, Callable[[], tuple[Tensor, nn.Module]]] = {
    'evaluation': lambda: (images(2, 8, 5, 5), norm_of(8).eval()),
    'float64': lambda: (images(2, 8, 5, 5, dtype=FLOAT64), norm_of(8).double()),
    'weights in bfloat16': lambda: (images(2, 8, 5, 5, dtype=BFLOAT16), norm_of(8).to(BFLOAT16)),
    'channels first': lambda: (images(2, 8, 5, 5).detach().contiguous(), norm_of(8)),
    'a crop': lambda: (images(2, 8, 5, 5)[:, :, 1:, 1:], norm_of(8)),
    'every other channel': lambda: (images(2, 16, 5, 5)[:, ::2], norm_of(8)),
    'momentum None': lambda: (images(2, 8, 5, 5), norm_of(8, momentum=None)),
    'no running statistics': lambda: (images(2, 8, 5, 5), norm_of(8, track_running_stats=False)),
    'no weights': lambda: (images(2, 8, 5, 5), norm_of(8, affine=False)),
    'one value a channel': lambda: (images(1, 8, 1, 1), LenientBatchNorm2d(8)),
    'a group norm': lambda: (images(2, 8, 5, 5), nn.GroupNorm(2, 8)),
    'statistics over processes': lambda: (images(2, 8, 5, 5), nn.SyncBatchNorm(8)),
}


@pytest.mark.usefixtures('fusing')
@pytest.mark.parametrize('case', ELSEWHERE)
def test_elsewhere_torch_computes(case: str) -> None:
    x, norm = ELSEWHERE[case]()
    assert not fits(x, norm)
    if case == 'statistics over processes':
        return  # on a CPU torch refuses it, and so does a run
    made = norm_relu6(x, norm)
    assert not taken(made)
    again = ELSEWHERE[case]()
    with fused_kernels(False):
        assert torch.equal(made, norm_relu6(*again))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, again[1].state_dict()[name]), name


@needs_numba
@pytest.mark.usefixtures('fusing')
def test_without_gradients_or_under_transforms_torch_computes() -> None:
    x, norm = images(2, 8, 5, 5), norm_of(8)
    assert fits(x, norm)
    with torch.no_grad():
        assert not fits(x, norm)

    def loss(x: Tensor) -> Tensor:
        assert not fits(x, norm)
        return x.sum()

    torch.func.grad(loss)(x.detach())
    torch.vmap(lambda x: x.sum() * fits(x, norm))(torch.stack([x, x]))


@needs_numba
@pytest.mark.usefixtures('fusing')
def test_a_second_derivative_is_refused_in_words() -> None:
    x = images(2, 8, 5, 5)
    made = norm_relu6(x, norm_of(8))
    (first,) = torch.autograd.grad(made.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        first.sum().backward()


@needs_numba
def test_nan_and_infinite_values_stay_what_they_are_to_torch() -> None:
    x = images(2, 2, 3, 3).detach()
    x[0, 0, 1, 1] = torch.nan
    for dtype in (FLOAT32, BFLOAT16):
        with fused_kernels():
            ours = norm_relu6(x.to(dtype), norm_of(2))
        assert taken(ours)
        theirs = norm_relu6(x.to(dtype), norm_of(2))
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert ours.isnan().any()


@needs_numba
@pytest.mark.parametrize('frozen', ['input', 'weight and bias', 'weight'])
@pytest.mark.usefixtures('fusing')
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    x, norm = images(2, 8, 5, 5), norm_of(8)
    if frozen == 'input':
        x = x.detach()
    else:
        norm.weight.requires_grad_(False)
        norm.bias.requires_grad_(frozen == 'weight')
    norm_relu6(x, norm).sum().backward()
    assert (x.grad is None) == (frozen == 'input')
    assert (norm.weight.grad is None) == (frozen != 'input')
    assert (norm.bias.grad is None) == (frozen == 'weight and bias')
