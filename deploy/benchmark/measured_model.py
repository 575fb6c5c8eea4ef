"""One checkpoint or exported program under measurement, opened by `load_model` as users open it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import METRICS
from torch import Tensor

from falconet.checkpoints.load import is_program, load_model
from falconet.core.errors import UserError
from falconet.core.registry import find
from falconet.datasets.samples import SampleInfo
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import sha256
from falconet.deploy.formats import format_of
from falconet.engine.cpu import tune_cpu
from falconet.engine.evaluate import evaluate
from falconet.tasks.predictor import to_image

BATCH = 32
OWN_THREADS = ('executorch',)  # takes as many threads as it likes


class Subject:
    """A file, opened and ready.

    Args:
        path: a checkpoint, or a program of tools/export.py.
        pictures: photographs to answer for.
        threads: the most that are used.

    Attributes:
        facts: what is known of it before anything is timed: file, bytes, format, task, ...

    Raises:
        UserError: it cannot be opened, or takes other pictures than these.
    """

    def __init__(self, path: str, *, pictures: Sequence[str], threads: int) -> None:
        tune_cpu()
        torch.set_num_threads(threads)
        self.path, self.threads, self.pictures = Path(path), threads, list(pictures)
        before = resident_memory()
        begin = time.perf_counter()
        self.model: Any = load_model(path)
        loading = time.perf_counter() - begin
        program = is_program(path)
        self.format = format_of(self.path).name if program else 'checkpoint'
        description = self.model.description if program else None
        self.inputs = [self.model.to_input(to_image(each)) for each in self.pictures]
        # Pictures of other sizes than the first cannot share its batch.
        self.inputs = [each for each in self.inputs if each.shape == self.inputs[0].shape]
        self.alone: Any = self.model if self.format in OWN_THREADS or not program else None
        self.answer(1)
        self.facts = {
            'file': self.path.name,
            'format': self.format,
            'precision': 'int8' if program and self.path.stem.endswith('_int8') else 'float32',
            'bytes': size_of(self.path),
            'task': self.model.task.name,
            'source': sha256(self.path) if description is None else description.sha256,
            'load_s': loading,
            'threads': threads,
            'opening_mb': max(0.0, peak_memory() - before),
        }

    def latency(self, *, threads: int, seconds: float) -> list[float]:
        """Return seconds of each answer for one prepared picture, of as many as fit into `seconds`.

        Empty where the engine cannot be told how many threads to use.
        """
        if threads != self.threads and self.format in OWN_THREADS:
            return []
        model = self._with(threads)
        try:
            self._answer(model, 1)
            return repeat(lambda: self._answer(model, 1), seconds)
        finally:
            torch.set_num_threads(self.threads)

    def throughput(self, *, seconds: float) -> list[float]:
        """Return seconds of each batch of `BATCH`; empty where the program takes another number."""
        description = getattr(self.model, 'description', None)
        if description is not None and description.batch is not None:
            return []
        self.answer(BATCH)
        return repeat(lambda: self.answer(BATCH), seconds)

    def whole(self, *, seconds: float) -> list[float]:
        """Return seconds of each `predict` of a file: reading, resizing, the network, the result."""
        files = iter(self.pictures * 1000)
        return repeat(lambda: self.model.predict(next(files)), seconds)

    def memory(self) -> float:
        """Return the most memory that this process has held so far, in MB."""
        return peak_memory()

    def score(self, *, root: str) -> dict[str, float]:
        """Return the score by its name, of the checkpoint's own metric on the data there."""
        name = find(METRICS, self.model.task.metric, where='evaluator').primary
        return {name: float(evaluate(None, checkpoint=str(self.path), root=root)[name])}

    def answer(self, count: int) -> list[Any]:
        """Return the results for `count` prepared pictures."""
        return self._answer(self.model, count)

    def _answer(self, model: Any, count: int) -> list[Any]:
        chosen = [self.inputs[place % len(self.inputs)] for place in range(count)]
        images: Tensor = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2)
        size = (images.shape[2], images.shape[3])
        infos = [SampleInfo(index=place, path='', size=size, content=None) for place in range(count)]
        return model.predictor.answer(images, infos)

    def _with(self, threads: int) -> Any:
        """Return the model with its engine told to use this many threads."""
        torch.set_num_threads(threads)
        if threads == self.threads or self.format == 'checkpoint':
            return self.model
        self.alone = self.alone or ExportedModel(self.path, threads=threads)
        return self.alone


def repeat(call: Any, seconds: float, *, most: int = 1000) -> list[float]:
    """Call until the time is up, at least three times; return how long each took."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < most):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def size_of(path: Path) -> int:
    """Return the bytes of a file, of what belongs to it, or of a folder's files."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob('*') if each.is_file())
    beside = path.with_suffix('.bin')
    return path.stat().st_size + (beside.stat().st_size if path.suffix == '.xml' and beside.exists() else 0)


def peak_memory() -> float:
    """Return the most memory that this process has held at once, in MB."""
    return _status('VmHWM')


def resident_memory() -> float:
    """Return the memory that this process holds, in MB."""
    return _status('VmRSS')


def _status(key: str) -> float:
    # Not getrusage: a child's counter there begins with its parent's peak.
    status = Path('/proc/self/status')
    if status.exists():
        lines = dict(line.split(':', 1) for line in status.read_text().splitlines() if ':' in line)
        return int(lines[key].split()[0]) / 1024
    if sys.platform == 'win32':
        return float('nan')
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def missing(path: str) -> str | None:
    """Return why a file's engine cannot run here at all, or None: its library is not installed."""
    if not is_program(path):
        return None
    try:
        format_of(Path(path)).module()
    except UserError as error:
        return str(error)
    return None
