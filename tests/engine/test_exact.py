"""The same to the bit: runs that are repeated, resumed, killed or stopped; and shared between processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from falconet.checkpoints.file import read_checkpoint
from falconet.engine.train import train
from falconet.tasks.build import load_config

WriteConfig = Callable[..., Path]


def run(config: Path, work_dir: Path, *options: str, **keywords: Any) -> dict[str, Any]:
    return train(load_config(config, options), work_dir=str(work_dir), **keywords)


def assert_same_tensors(one: Any, other: Any, where: str = '') -> None:
    """Every tensor and number in two nests is identical to the bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same_tensors(one[key], other[key], f'{where}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same_tensors(left, right, f'{where}[{index}]')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def final_state(work_dir: Path) -> dict[str, Any]:
    """What must not depend on interruptions: weights, optimiser, schedule, EMA, scores."""
    content = read_checkpoint(work_dir / 'last.pth')
    return {key: content[key] for key in ('state_dict', 'training', 'metrics', 'epoch', 'iter')}


EXTRA = """
    ema = dict(decay=0.9)
    early_stopping = dict(patience=50)
    train_cfg = dict(max_epochs=3)
    save_every_iters = 4
    optim_wrapper = dict(
        optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.01),
        accumulative_counts=2, clip_grad=dict(max_norm=5.0),
        paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.5))))
    param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, end=1 / 3),
        dict(type='CosineAnnealingLR', begin=1 / 3)]
    train_dataloader['batch_augment'] = [dict(type='MixUp', alpha=0.2)]
"""


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EMA, accumulation, warm-up, mixup, early stopping; stopped everywhere, resumed with workers."""
    config = write_config(EXTRA)
    run(config, tmp_path / 'whole')
    expected = final_state(tmp_path / 'whole')
    assert expected['iter'] == 18

    from falconet.engine.loops import TrainLoop

    class Killed(BaseException):
        pass

    original = TrainLoop.run_iter
    budget = {'iterations': 0}

    def run_iter(self: TrainLoop, idx: int, data_batch: Any) -> None:
        if budget['iterations'] == 0:
            raise Killed
        budget['iterations'] -= 1
        original(self, idx, data_batch)

    monkeypatch.setattr(TrainLoop, 'run_iter', run_iter)
    rng = random.Random(0)
    for attempt in range(20):
        budget['iterations'] = rng.randint(4, 7)
        try:
            workers = 2 * (attempt % 2)
            run(config, tmp_path / 'parts', f'train_dataloader.num_workers={workers}', resume=True)
            break
        except Killed:
            torch.manual_seed(attempt)  # whatever state a new process starts from
    assert attempt >= 2
    actual = final_state(tmp_path / 'parts')
    assert_same_tensors(actual, expected)


def test_two_runs_are_identical_and_another_seed_is_not(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    states = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        run(config, tmp_path / name, f'seed={seed}')
        states.append(final_state(tmp_path / name)['state_dict'])
    assert_same_tensors(states[0], states[1])
    assert not torch.equal(states[0]['head.fc.weight'], states[2]['head.fc.weight'])


def start(config: Path, work_dir: Path, root: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(root / 'tools/train.py'), str(config), '--work-dir', str(work_dir)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


SLOWLY = """
    save_every_iters = 1
    train_cfg = dict(max_epochs=40)
    val_dataloader['dataset']['augment'] = [dict(type='ResizeCenterCrop', resize=32, crop=32)]
    param_scheduler = []  # it is compared with shorter runs
"""


def test_a_run_killed_at_any_moment_leaves_a_whole_checkpoint(
    write_config: WriteConfig, tmp_path: Path, root: Path
) -> None:
    """SIGKILL while last.pth is written after every iteration: what is there always opens and resumes."""
    config, last = write_config(SLOWLY, workers=1), tmp_path / 'run/last.pth'
    process = start(config, last.parent, root)
    wait_for(last.exists, process)
    time.sleep(random.Random(0).random())
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    reached = read_checkpoint(last)['training']['iter']
    assert 0 < reached < 240
    # Its weights are those of a run that was never touched.
    epochs = -(-reached // 6)
    run(config, tmp_path / 'whole', 'save_every_iters=0', f'train_cfg.max_epochs={epochs}')
    run(config, last.parent, 'save_every_iters=0', f'train_cfg.max_epochs={epochs}', resume=True)
    assert_same_tensors(final_state(last.parent)['state_dict'], final_state(tmp_path / 'whole')['state_dict'])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_says_how_to_go_on(
    write_config: WriteConfig, tmp_path: Path, root: Path, number: signal.Signals
) -> None:
    config, log = write_config(SLOWLY.replace('save_every_iters = 1', '')), tmp_path / 'run/train.log'
    process = start(config, log.parent, root)
    wait_for(lambda: log.exists() and 'Epoch(val)' in log.read_text(), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert 'Continue with the same command and --resume' in output
    assert 'Traceback' not in output
    assert read_checkpoint(log.parent / 'last.pth')['training']['iter'] > 0


def test_a_stop_during_validation_validates_first_after_resuming(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from falconet.core.errors import Interrupted
    from falconet.engine.loops import EvalLoop

    config = write_config(EXTRA.replace('accumulative_counts=2', 'accumulative_counts=1'))
    run(config, tmp_path / 'whole')
    original, calls = EvalLoop.run_iter, []

    def interrupting(self: EvalLoop, idx: int, data_batch: Any) -> None:
        calls.append(idx)
        if len(calls) == 5:  # in the middle of the second validation
            os.kill(os.getpid(), signal.SIGINT)
        original(self, idx, data_batch)

    monkeypatch.setattr(EvalLoop, 'run_iter', interrupting)
    with pytest.raises(Interrupted):
        run(config, tmp_path / 'parts')
    state = read_checkpoint(tmp_path / 'parts/last.pth')['training']
    assert (state['iter'], state['validated_iter']) == (12, 6)
    run(config, tmp_path / 'parts', resume=True)
    assert_same_tensors(final_state(tmp_path / 'parts'), final_state(tmp_path / 'whole'))


DISTRIBUTED = """
    train_cfg = dict(max_epochs=2)
    model['norm_eval'] = True
    model['head'] = dict(type='LinearHead', dropout=0.0)
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05))
"""


def test_two_processes_train_like_one_with_twice_the_batch(
    write_config: WriteConfig, tmp_path: Path, root: Path
) -> None:
    """Norm statistics fixed, no dropout; an odd number of test images, each counted once."""
    (tmp_path / 'data/test/red/3.png').unlink()
    config = write_config(DISTRIBUTED)
    report = run(config, tmp_path / 'one', 'train_dataloader.batch_size=8')
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(root / 'tools/train.py'), str(config), '--launcher', 'pytorch']
    done = subprocess.run(
        [sys.executable, *command, '--work-dir', str(tmp_path / 'two')],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('best top1 so far') >= 1
    assert done.stdout.count('work dir') == 1  # one process speaks

    one, two = final_state(tmp_path / 'one'), final_state(tmp_path / 'two')
    assert one['iter'] == two['iter'] == 6
    for key, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][key], value, atol=1e-4, rtol=1e-4, msg=key)
    both = json.loads((tmp_path / 'two/metrics.json').read_text())
    assert both['images'] == report['images'] == 11
    assert both['confusion_matrix'] == report['confusion_matrix']
