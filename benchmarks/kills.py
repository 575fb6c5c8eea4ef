"""Kill trainings at every kind of moment, continue them with --resume, and look for what was lost.

    python benchmarks/kills.py --kills 100 --seed 0

Trainings of the three tasks on generated pictures get SIGKILL, SIGTERM or SIGINT: the main process, one
loading process or all at once; while a checkpoint is written, in validation, or at any moment. When one has
come to its end its weights and scores must be those of a training that nobody touched. Linux only: it looks
into /proc.
"""

import argparse
import collections
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
PATIENCE = 240  # seconds after which a process counts as hanging
EPOCHS = 3
COMMON = [
    'log_interval=1',
    'save_every_iters=1',
    'ema.decay=0.9',
    f'train_cfg.max_epochs={EPOCHS}',
    'train_cfg.val_interval=1',
    'train_dataloader.num_workers=2',
    'val_dataloader.num_workers=1',
    'train_dataloader.batch_size=4',
    'val_dataloader.batch_size=2',
]
TASKS = {'linear_demo': 'classification', 'ssdlite_demo': 'coco', 'deeplabv3_demo': 'VOCdevkit'}


class Training:
    """One training, started as often as it takes.

    Args:
        name: of a config in configs/demo.
        data: folder that tools/make_demo_data.py wrote.
        folder: its work dir.
    """

    def __init__(self, name: str, data: Path, folder: Path) -> None:
        self.folder, self.log = folder, folder / 'train.log'
        self.command = [sys.executable, str(ROOT / 'tools/train.py'), str(ROOT / f'configs/demo/{name}.py')]
        self.command += ['--work-dir', str(folder), '--data-root', str(data / TASKS[name]), '--resume']
        self.command += ['--threads', '1', '--cfg-options', *COMMON]
        self.output = folder.with_suffix('.txt')

    def start(self) -> None:
        """Begin, or go on, in a process group of its own."""
        with self.output.open('a') as output:
            self.begun = output.tell()
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def said(self) -> str:
        """What the latest process has printed."""
        return self.output.read_text()[self.begun :]

    def workers(self) -> list[int]:
        """Process numbers of the children that live."""
        try:
            listed = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text()
        except OSError:
            return []
        return [int(each) for each in listed.split()]

    def wait(self, reached: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Wait until something is reached, or the process has ended; whether it is still there."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline and not reached():
            time.sleep(0.002)
        return self.process.poll() is None

    def is_writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(self.folder.glob('.*.pth.*.tmp'))

    def is_validating(self) -> bool:
        """Whether the log has an epoch's last iteration and not yet its validation."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        latest = next((line for line in reversed(lines) if ' Epoch(' in line), '')
        return re.search(r'Epoch\(train\) +\[\d+\]\[ *(\d+)/\1\]', latest) is not None

    def finish(self) -> None:
        """End what may still be there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Campaign:
    """Kills, and what they did.

    Attributes:
        counts: how often what happened.
    """

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch, self.random = scratch, random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        data = scratch / 'data'
        make = [
            sys.executable,
            str(ROOT / 'tools/make_demo_data.py'),
            str(data),
            '--train',
            '24',
            '--val',
            '8',
            '--test',
            '1',
        ]
        subprocess.run(make, check=True)
        self.expected = {}
        for name in TASKS:
            training = Training(name, data, scratch / f'{name}_untouched')
            training.start()
            if training.process.wait() != 0:
                sys.exit(training.said())
            self.expected[name] = outcome(training.folder)

    def run(self, name: str, number: int, limit: int) -> None:
        """Kill a training until it has come to its end; after `limit` kills in all only continue it."""
        training = Training(name, self.scratch / 'data', self.scratch / f'{name}_{number}')
        training.start()
        while training.process.poll() != 0:
            if self.counts['kills'] < limit:
                self.kill(training)
            elif training.wait(lambda: False):
                self.report('hanging', training)
                training.finish()
            if training.process.poll():
                if not may_go_on(training):
                    self.report('lost runs', training)
                    return
                training.start()
        self.counts['runs that ended'] += 1
        if outcome(training.folder) != self.expected[name]:
            self.report('runs that differ', training)
        left = [*training.folder.glob('.*.tmp'), *training.folder.glob('*.owner')]
        self.counts['left-over files'] += len(left)

    def kill(self, training: Training) -> None:
        """Wait for a moment and kill, unless the training ends before."""
        moment = self.random.choice(['writing', 'validation', 'any moment'])
        whom = self.random.choice(['main process', 'worker', 'group'])
        number = self.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        reached = {'writing': training.is_writing, 'validation': training.is_validating}
        there = moment not in reached or training.wait(reached[moment])
        if not there or not training.wait(
            lambda: False, self.random.random() * (0.1 if moment in reached else 8)
        ):
            return
        workers = training.workers()
        if whom == 'worker' and not workers:
            whom = 'main process'
        try:
            if whom == 'group':
                os.killpg(training.process.pid, number)
            else:
                os.kill(self.random.choice(workers) if whom == 'worker' else training.process.pid, number)
        except ProcessLookupError:  # it has ended this very moment
            return
        self.counts['kills'] += 1
        self.counts[f'  {number.name}, {whom}, {moment}'] += 1
        if whom == 'worker' and number != signal.SIGKILL:
            return  # not heard, by design: the training goes on
        if training.wait(lambda: False):
            self.report('hanging', training)
            training.finish()
        deadline = time.monotonic() + 20
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if any(map(is_running, workers)):
            self.report('left-over processes', training)
        if not has_begun(training):
            self.counts['before the first line of ours'] += 1
        elif 'Traceback' in training.said():
            self.report('tracebacks', training)

    def report(self, what: str, training: Training) -> None:
        """Count a fault and show where it happened."""
        self.counts[what] += 1
        print(f'{what}: {training.folder}\n{training.said()[-3000:]}', flush=True)


def may_go_on(training: Training) -> bool:
    """Whether a training was ended by what it got, rather than by a fault."""
    code = training.process.returncode
    ended = code < 0 or code in (130, 143) or not has_begun(training)
    return ended or 'a loading process was ended from outside' in training.said()


def has_begun(training: Training) -> bool:
    """Whether Python was up when the signal came: while it starts it ends in a traceback of its own."""
    return 'Fatal Python error: init_import_site' not in training.said()


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2][0] != 'Z'
    except FileNotFoundError:
        return False


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on kills: weights and optimiser to the bit, positions, scores, the report."""
    from falconet.checkpoints.file import read_checkpoint

    content = read_checkpoint(folder / 'last.pth')
    kept = {key: content[key] for key in ('state_dict', 'training', 'metrics', 'epoch', 'iter')}
    return {'report': (folder / 'metrics.json').read_text(), 'state': bits(kept)}


def bits(value: Any) -> Any:
    """Return nested values with tensors as bytes and numbers as text, to be compared exactly."""
    if isinstance(value, dict):
        return {key: bits(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(each) for each in value]
    return value.numpy().tobytes() if hasattr(value, 'numpy') else repr(value)


def main() -> None:
    parser = argparse.ArgumentParser(description='Kill trainings, continue them, and look for what was lost.')
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        campaign, number = Campaign(Path(scratch), arguments.seed), 0
        while campaign.counts['kills'] < arguments.kills:
            for name in TASKS:
                campaign.run(name, number, arguments.kills)
            number += 1
            print(f'{campaign.counts["kills"]} kills', flush=True)
    for what, count in sorted(campaign.counts.items()):
        if what.startswith('  '):
            print(f'{count:5}{what}')
    faults = (
        'lost runs',
        'runs that differ',
        'hanging',
        'tracebacks',
        'left-over files',
        'left-over processes',
    )
    for what in ('kills', 'before the first line of ours', 'runs that ended', *faults):
        print(f'{what}: {campaign.counts[what]}')
    sys.exit(any(campaign.counts[what] for what in faults))


if __name__ == '__main__':
    main()
