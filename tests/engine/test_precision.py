"""From scratch a run begins in float32 and goes on in bfloat16 once that computes the same gradient."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from falconet import load_model
from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.engine import device
from falconet.engine.device import AutocastOptimWrapper, compile_parts, resolve_amp
from falconet.engine.hooks import precision
from falconet.engine.hooks.precision import PrecisionHook, agreement
from falconet.engine.seeding import seed_everything
from falconet.engine.train import train
from falconet.tasks.build import load_config

WriteConfig = Callable[..., Path]


@pytest.fixture
def has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as on a processor that computes bfloat16."""
    monkeypatch.setattr(device, 'has_fast_bf16', lambda _: True)


@pytest.fixture
def agrees_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let bfloat16 be found good from an iteration on; look at every one."""

    def choose(iteration: int) -> None:
        monkeypatch.setattr(precision, 'EVERY', 1)
        monkeypatch.setattr(precision, 'agreement', lambda runner, _: float(runner.iter >= iteration))

    return choose


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)['state_dict']


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.usefixtures('has_bfloat16')
@pytest.mark.parametrize(
    'switch', [pytest.param(3, marks=pytest.mark.slow), 8], ids=['before the stop', 'after it']
)
def test_a_stopped_run_changes_over_at_the_same_iteration(
    write_config: WriteConfig, tmp_path: Path, agrees_from: Callable[[int], None], switch: int
) -> None:
    agrees_from(switch)
    config = write_config('train_cfg = dict(max_epochs=2)')  # 6 iterations each
    train(load_config(config), work_dir=str(tmp_path / 'whole'))
    train(load_config(config, ['amp=off']), work_dir=str(tmp_path / 'float32'))
    part = str(tmp_path / 'part')
    with pytest.raises(StopIteration):
        train(load_config(config), work_dir=part, hooks=[StopAfterAnEpoch()])
    assert read_checkpoint(tmp_path / 'part/last.pth')['training']['hooks']['PrecisionHook'] == {
        'since': switch if switch < 6 else None
    }
    train(load_config(config), work_dir=part, resume=True)
    assert same(tmp_path / 'whole/last.pth', tmp_path / 'part/last.pth')
    assert not same(tmp_path / 'whole/last.pth', tmp_path / 'float32/last.pth')
    log = (tmp_path / 'whole/train.log').read_text()
    assert 'precision: float32 at first, bfloat16 autocast once its gradient is the same' in log
    assert f'precision: bfloat16 from iteration {switch + 1} on' in log


@pytest.mark.usefixtures('has_bfloat16')
def test_until_then_it_is_a_float32_run_bit_by_bit(write_config: WriteConfig, tmp_path: Path) -> None:
    """Comparing leaves no trace: not in the statistics, nor in the random numbers of dropout."""
    config = write_config('train_cfg = dict(max_epochs=1)')
    for amp in ('auto', 'off'):
        train(load_config(config, [f'amp={amp}']), work_dir=str(tmp_path / amp))
    assert same(tmp_path / 'auto/last.pth', tmp_path / 'off/last.pth')
    assert 'PrecisionHook' not in read_checkpoint(tmp_path / 'off/last.pth')['training']['hooks']


@pytest.mark.usefixtures('has_bfloat16')
def test_weights_that_are_there_train_in_bfloat16_at_once(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    train(load_config(config), work_dir=str(tmp_path / 'first'))
    start = str(tmp_path / 'first/last.pth')
    train(load_config(config, [f'load_from={start}']), work_dir=str(tmp_path / 'second'))
    assert 'precision: bfloat16 autocast;' in (tmp_path / 'second/train.log').read_text()
    assert 'PrecisionHook' not in read_checkpoint(tmp_path / 'second/last.pth')['training']['hooks']


class StopAfterAnEpoch(Hook):
    def before_train_epoch(self, runner: Any) -> None:
        if runner.epoch == 1:
            raise StopIteration


class Line(nn.Module):
    """A model with a dropout, a norm, and a gradient that bfloat16 computes as well, or not at all."""

    def __init__(self, *, opposite: bool) -> None:
        super().__init__()
        self.layer, self.norm, self.opposite = nn.Linear(8, 4), nn.BatchNorm1d(4), opposite
        self.device = torch.device('cpu')

    def data_preprocessor(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        assert training
        return batch

    def forward(self, images: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
        made = nn.functional.dropout(self.norm(self.layer(images).float()), 0.5)
        sign = -1 if self.opposite and torch.is_autocast_enabled('cpu') else 1
        return {'loss_square': sign * (made - 1).square().mean()}

    def parse_losses(self, losses: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return losses['loss_square'], losses


@pytest.mark.parametrize('opposite', [False, True])
def test_agreement_is_the_cosine_and_leaves_no_trace(opposite: bool) -> None:
    torch.manual_seed(0)
    model = Line(opposite=opposite)
    runner = SimpleNamespace(bare_model=model, seed=1, iter=2, rank=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cosine = agreement(runner, {'images': torch.randn(16, 8)})
    first = torch.rand(1)
    assert cosine < -0.99 if opposite else cosine > 0.99
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    seed_everything(1, 2, 0)
    assert torch.equal(first, torch.rand(1))


def test_a_hook_looks_every_so_often_and_stays_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def answer(runner: Any, _: Any) -> float:
        seen.append(runner.iter)
        return 0.9 if runner.iter < 100 else 0.96

    monkeypatch.setattr(precision, 'agreement', answer)
    hook = PrecisionHook()
    logger = SimpleNamespace(info=lambda _: None)
    runner = SimpleNamespace(optim_wrapper=SimpleNamespace(enabled=True), logger=logger, iter=0)
    hook.before_train(runner)
    assert not runner.optim_wrapper.enabled
    for runner.iter in range(200):
        hook.before_train_iter(runner, 0)
    assert seen == [0, 50, 100]
    assert runner.optim_wrapper.enabled
    later = PrecisionHook()
    later.load_state_dict(hook.state_dict())
    later.before_train(runner)
    assert later.since == 100
    assert runner.optim_wrapper.enabled


def test_gpus_without_bfloat16_train_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, 'has_fast_bf16', lambda _: False)
    assert resolve_amp('auto', torch.device('cuda')) == torch.float16
    assert resolve_amp('auto', torch.device('cpu')) is None
    assert resolve_amp('off', torch.device('cuda')) is None
    monkeypatch.setattr(device, 'has_fast_bf16', lambda _: True)
    assert resolve_amp('auto', torch.device('cuda')) == torch.bfloat16


@pytest.mark.parametrize('clip_grad', [None, {'max_norm': 100.0}])
def test_float16_scales_losses_and_leaves_out_steps_that_overflow(clip_grad: dict[str, float] | None) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 1, bias=False)
    wrapper = AutocastOptimWrapper(
        optimizer=torch.optim.SGD(layer.parameters(), lr=0.1), dtype='float16', clip_grad=clip_grad
    )
    x = torch.ones(2, 4)
    with wrapper.optim_context(layer):
        made = layer(x)
    assert made.dtype == torch.float16
    before = layer.weight.detach().clone()
    wrapper.update_params(made.float().sum() / 10)
    assert torch.allclose(layer.weight, before - 0.1 * 0.2, atol=1e-4)  # not multiplied by the scale
    with wrapper.optim_context(layer):
        made = layer(x)
    before = layer.weight.detach().clone()
    wrapper.update_params(made.float().sum() * 1e4)  # times 2^16: too large for float16
    assert torch.equal(layer.weight, before)
    state = wrapper.state_dict()
    assert state['loss_scaler']['scale'] == 2.0**15
    other = AutocastOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1), dtype='float16')
    other.load_state_dict(state)
    assert other.state_dict()['loss_scaler']['scale'] == 2.0**15


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf')  # Dynamo looks
def test_a_compiled_run_leaves_checkpoints_like_any_other(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def backend(graph: Any, _: Any) -> Any:
        counted.append(len(graph.graph.nodes))
        return graph.forward

    def compile_so(model: nn.Module, where: torch.device) -> None:
        compile_parts(model, where, backend=backend)  # type: ignore[arg-type]

    monkeypatch.setattr('falconet.engine.train.compile_parts', compile_so)
    config = write_config('train_cfg = dict(max_epochs=1)\namp = "off"\nmodel["head"]["dropout"] = 0.0')
    train(load_config(config), work_dir=str(tmp_path / 'plain'), kernels='torch')
    assert not counted
    steps: list[bool] = []

    class Look(Hook):
        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            steps.append('train_step' in vars(runner.model))  # where mmengine would put what it compiles

    told = load_config(config, ['compile=True'])
    train(told, work_dir=str(tmp_path / 'compiled'), kernels='torch', hooks=[Look()])
    assert not any(steps)
    assert max(counted) > 100  # a whole backbone, not pieces
    plain, compiled = (weights(tmp_path / name / 'last.pth') for name in ('plain', 'compiled'))
    assert plain.keys() == compiled.keys()
    assert all(plain[name].shape == compiled[name].shape for name in plain)
    assert load_model(tmp_path / 'compiled/best.pth').classes == ('blue', 'green', 'red')


def test_what_the_compiler_could_not_do_is_a_users_error(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(graph: Any, _: Any) -> Any:
        raise RuntimeError('C++ compile error\nx.cpp:3:10: fatal error: Python.h: No such file or directory')

    monkeypatch.setattr(
        'falconet.engine.train.compile_parts',
        lambda model, where: compile_parts(model, where, backend=backend),  # type: ignore[arg-type]
    )
    config = load_config(write_config(), ['compile=True'])
    with pytest.raises(
        UserError, match=r'torch\.compile failed \(.*: .*fatal error: Python\.h: No such file'
    ):
        train(config, work_dir=str(tmp_path / 'run'))


def test_compiling_changes_no_name() -> None:
    model = nn.Module()
    model.backbone, model.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
    before = list(model.state_dict())
    compile_parts(model, torch.device('cpu'), backend='eager')
    assert list(model.state_dict()) == before
    assert model.backbone(torch.rand(1, 3, 2, 2)).shape == (1, 4, 2, 2)


def test_compiling_without_a_compiler_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.cpp_builder as builder

    def none() -> str:
        raise RuntimeError('no compiler')

    monkeypatch.setattr(builder, 'get_cpp_compiler', none)
    with pytest.raises(UserError, match=r'compile=True needs a C\+\+ compiler on a CPU'):
        compile_parts(nn.Module(), torch.device('cpu'))
