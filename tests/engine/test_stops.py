"""Stops and company: signals to everybody, lost workers, a dead main process, busy cores; nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.loader import build_loader, close_loader
from falconet.engine import cpu
from falconet.engine.hooks import threads
from falconet.engine.hooks.stopping import StopRequest
from falconet.engine.hooks.threads import ThreadsHook
from falconet.engine.train import train
from falconet.tasks.build import load_config

WriteConfig = Callable[..., Path]
LONG = """
    train_cfg = dict(max_epochs=60)
    param_scheduler = [dict(type='CosineAnnealingLR', T_max=60, end=60)]
    val_dataloader['num_workers'] = 1
"""
needs_proc = pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='looks into /proc')


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a training in a process group of its own, and wait until it is in its third epoch."""
    groups = []

    def begin(config: Path) -> subprocess.Popen:
        command = [
            sys.executable,
            str(root / 'tools/train.py'),
            str(config),
            '--work-dir',
            str(tmp_path / 'run'),
        ]
        process = subprocess.Popen(
            [*command, '--work-dir', str(tmp_path / 'run')],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            start_new_session=True,
        )
        groups.append(process.pid)
        log = tmp_path / 'run/train.log'
        wait_for(lambda: process.poll() is not None or (log.exists() and 'Epoch(val) [2]' in log.read_text()))
        return process

    yield begin
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it never came'
        time.sleep(0.01)


def children(process: subprocess.Popen) -> list[int]:
    return [
        int(each) for each in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    ]


def is_running(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2][0] != 'Z'
    except FileNotFoundError:
        return False


@needs_proc
def test_sigterm_to_the_whole_group_and_twice_saves_first(
    write_config: WriteConfig, tmp_path: Path, start: Callable[..., subprocess.Popen]
) -> None:
    """As `timeout` sends it: to its command, then to the group."""
    process = start(write_config(LONG, workers=2))
    workers = children(process)
    assert len(workers) == 3
    process.terminate()
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 143, output
    assert 'Continue with the same command and --resume' in output
    assert 'Traceback' not in output
    assert read_checkpoint(tmp_path / 'run/last.pth')['iter'] >= 12
    assert not any(map(is_running, workers))


@needs_proc
def test_a_worker_that_is_killed_costs_nothing_and_is_explained(
    write_config: WriteConfig, tmp_path: Path, start: Callable[..., subprocess.Popen]
) -> None:
    process = start(write_config(LONG, workers=2))
    os.kill(children(process)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 2, output
    assert 'error: a loading process was ended from outside (signal 9, Killed, which a system does' in output
    reached = read_checkpoint(tmp_path / 'run/last.pth')['iter']
    assert f'after iteration {reached} of 360. {tmp_path}/run/last.pth holds everything up to' in output
    assert 'Continue with the same command and --resume' in output
    assert 'Traceback' not in output


@needs_proc
def test_workers_end_when_the_main_process_is_gone(
    write_config: WriteConfig, start: Callable[..., subprocess.Popen]
) -> None:
    process = start(write_config(LONG, workers=2))
    workers = children(process)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(is_running, workers)), seconds=20)


@needs_proc
def test_a_closed_loader_has_no_workers_though_a_traceback_holds_it(folders: Path) -> None:
    data = ImageFolder(str(folders), 'train', training=True)
    loader = build_loader(data, batch_size=2, num_workers=2, training=True, seed=0)
    batches = iter(loader)
    next(batches)
    workers = [worker.pid for worker in loader._iterator._workers]  # type: ignore[union-attr]
    close_loader(loader)
    assert not any(map(is_running, workers))
    assert batches is not None


def test_a_lost_worker_is_told_from_a_fault_in_the_data(folders: Path) -> None:
    class Faulty(ImageFolder):
        def __getitem__(self, key: Any) -> Any:
            raise RuntimeError('a fault of its own')

    loader = build_loader(Faulty(str(folders), 'train'), batch_size=2, num_workers=1, training=True, seed=0)
    with pytest.raises(RuntimeError, match='a fault of its own'):  # and no WorkerLostError, a UserError
        list(loader)
    close_loader(loader)


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Of a command in the background the shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('heard_interrupts')
def test_a_stop_asked_for_twice_at_once_is_one_and_later_is_another() -> None:
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.came()
        time.sleep(1.1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.signal_number == signal.SIGINT


@pytest.fixture
def one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures('one_thread_again')
def test_a_resumed_run_keeps_its_threads_unless_told_otherwise(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    config, last = load_config(write_config('train_cfg = dict(max_epochs=1)')), tmp_path / 'run/last.pth'
    log = tmp_path / 'run/train.log'
    train(config, work_dir=str(last.parent), threads=2)
    torch.set_num_threads(1)
    train(config, work_dir=str(last.parent), resume=True)
    assert torch.get_num_threads() == 2
    assert 'goes on with 2 threads, as before (here it would have 1)' in log.read_text()
    train(config, work_dir=str(last.parent), resume=True, threads='1')
    assert torch.get_num_threads() == 1
    assert 'this run had 2 threads and goes on with 1: results change in their last bits' in log.read_text()


@pytest.mark.usefixtures('one_thread_again')
@pytest.mark.parametrize(('taken', 'number'), [(0.02, 4), (0.9, 3), (2.2, 2), (9.0, 1)])
def test_auto_leaves_busy_cores_alone(taken: float, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, '_cores_taken_by_others', lambda: taken)
    torch.set_num_threads(4)
    cpu.choose_threads('auto')
    assert torch.get_num_threads() == number


@pytest.mark.parametrize('wish', ['0', '-1', 'two', '1.5', '99999', ''])
def test_a_number_of_threads_that_is_none_is_refused(wish: str) -> None:
    with pytest.raises(UserError, match=r"--threads takes a whole number from 1 to 1024 or 'auto', got"):
        cpu.choose_threads(wish)


@pytest.mark.usefixtures('one_thread_again')
def test_a_run_that_is_held_up_says_so_once(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts are threads that are ready and have no core, not that a step is slow."""
    calls: list[str] = []
    monkeypatch.setattr(threads, 'wait_briefly', lambda: calls.append('brief'))
    monkeypatch.setattr(threads, 'SECONDS', 0.0)
    for name, rate in (('alone', 0.1), ('beside', 0.9)):
        monkeypatch.setattr(threads, 'seconds_kept_waiting', lambda rate=rate: rate * time.perf_counter())
        train(load_config(write_config()), work_dir=str(tmp_path / name), threads=2)
        assert len(calls) == (name == 'beside')
        said = (tmp_path / name / 'train.log').read_text().count('held up: 0.9 of the cores')
        assert said == len(calls)


def test_being_held_up_for_a_moment_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    hook, spoken, clock = ThreadsHook(), [], iter(range(100))
    runner = SimpleNamespace(logger=SimpleNamespace(warning=spoken.append))
    hook._watching = True
    monkeypatch.setattr(threads, 'wait_briefly', lambda: None)
    monkeypatch.setattr(threads, 'SECONDS', 0.0)
    monkeypatch.setattr(threads.time, 'perf_counter', lambda: next(clock))
    waited = iter([0, 0, 9, 18, 18, 27, 36, 36, 45, 54, 63])
    monkeypatch.setattr(threads, 'seconds_kept_waiting', lambda: next(waited))
    for step in range(10):
        hook.after_train_iter(runner, step)
        assert not spoken
    hook.after_train_iter(runner, 10)  # the third in a row
    assert len(spoken) == 1


def test_waiting_briefly_changes_no_bit_and_no_number_of_threads(root: Path) -> None:
    code = (
        'import torch\n'
        'from falconet.engine.cpu import wait_briefly\n'
        'torch.set_num_threads(2)\n'
        'norm, images = torch.nn.BatchNorm2d(8), torch.rand(4, 8, 60, 60)\n'
        'before = norm(images)\n'
        'wait_briefly()\n'
        'assert torch.equal(norm(images), before) and torch.get_num_threads() == 2\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
