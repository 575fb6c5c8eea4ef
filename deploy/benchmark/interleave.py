"""The measurement: a process for each file, and turns that they take."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from falconet.core.errors import UserError, listing
from falconet.datasets.files import find_images
from falconet.deploy.benchmark.measured_model import BATCH, size_of

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 32
# Yields its items, and may show how many are left.
Watch = Callable[[Sequence[Any]], Iterable[Any]]


class Worker:
    """A process that measures one file; see `deploy.benchmark.worker`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'falconet.deploy.benchmark.worker'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path.cwd(),
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])},
        )

    def do(self, name: str, **order: Any) -> Any:
        """Have it done and return what it says.

        Raises:
            UserError: the file is not what is needed, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({'do': name, **order}) + '\n')
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ''
        if not line:
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ['it printed nothing']
            code = self._process.wait()
            raise UserError(f'{self.path}: its process ended with {code} at "{name}": {lines[-1]}')
        answer = json.loads(line)
        if 'error' in answer:
            raise UserError(answer['error'])
        return answer['said']

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def benchmark(
    checkpoint: str | Path,
    exported: Sequence[str | Path] = (),
    *,
    data: str | Path,
    score: bool = True,
    rounds: int = 5,
    seconds: float = 1.0,
    threads: int | None = None,
    watch: Watch = iter,
) -> dict[str, Any]:
    """Measure a checkpoint and its exported files beside each other.

    Args:
        checkpoint: a Falconet checkpoint, the first row and what the others are compared with.
        exported: programs of tools/export.py.
        data: folder with the checkpoint's data, or with any photographs where nothing is scored.
        score: also score each with the checkpoint's own metric.
        rounds: turns that each file has at each measurement.
        seconds: length of a turn.
        threads: the most that engines may use; by default as many as torch.
        watch: goes through the turns, for a display of progress.

    Returns:
        {'rows': a dict for each file, 'threads', 'pictures', 'versions'}; times in seconds, memory in MB.
        A measurement that does not apply to a file is None.

    Raises:
        UserError: a file that cannot be opened, of another task, or data that cannot be read.
    """
    paths = [Path(each).expanduser() for each in (checkpoint, *exported)]
    if gone := [path for path in paths if not path.exists()]:
        raise UserError(f'{listing(gone)}: no such file')
    most = threads or torch.get_num_threads()
    with ExitStack() as stack:
        pictures = photographs(data)
        workers = [Worker(path) for path in paths]
        for worker in workers:
            stack.callback(worker.close)
        rows = [
            {'file': path.name, 'format': path.suffix[1:], 'bytes': size_of(path), 'missing': None}
            | worker.do('open', path=str(path), pictures=pictures, threads=most)
            for path, worker in zip(paths, workers, strict=True)
        ]
        check_tasks(rows)
        running = [(worker, row) for worker, row in zip(workers, rows, strict=True) if not row['missing']]
        kinds: list[tuple[str, str, dict[str, Any]]] = [
            ('latency', 'latency', {'threads': most}),
            ('throughput', 'batch', {}),
            ('whole', 'whole', {}),
        ]
        times: dict[tuple[int, str], list[float]] = {}
        turns = [(kind, *each) for kind in kinds for _ in range(rounds) for each in running]
        turns += [(('memory', 'peak_mb', {}), *each) for each in running]
        alone = ('latency', 'alone', {'threads': 1})
        turns += [(alone, *each) for _ in range(rounds) for each in running] if most > 1 else []
        turns += [(('score', 'score', {'root': str(data)}), *each) for each in running] if score else []
        for (what, key, options), worker, row in watch(turns):
            if what in ('memory', 'score'):
                row[key] = worker.do(what, **options)
            else:
                times.setdefault((id(row), key), []).extend(worker.do(what, **options, seconds=seconds))
        for row in rows:
            row |= summary(lambda key, row=row: times.get((id(row), key), []), one=most == 1)
    for row in rows:
        row['of_this_checkpoint'] = row.get('source') in (None, rows[0]['source'])
    return {
        'checkpoint': paths[0].name,
        'threads': most,
        'batch': BATCH,
        'pictures': len(pictures),
        'torch': torch.__version__,
        'rows': rows,
    }


def summary(times: Callable[[str], list[float]], *, one: bool) -> dict[str, Any]:
    """Return a row's medians and ninth deciles, of measurements by name; seconds, and images a second."""

    def median(key: str) -> float | None:
        return statistics.median(times(key)) if times(key) else None

    def late(key: str) -> float | None:
        return statistics.quantiles(times(key), n=10)[-1] if len(times(key)) > 1 else None

    alone = 'latency' if one else 'alone'
    batch = median('batch')
    return {
        'median_s': median('latency'),
        'p90_s': late('latency'),
        'one_thread_median_s': median(alone),
        'one_thread_p90_s': late(alone),
        'images_per_s': None if batch is None else BATCH / batch,
        'from_file_s': median('whole'),
    }


def check_tasks(rows: Sequence[dict[str, Any]]) -> None:
    """Raise UserError unless all files do what the first, the checkpoint, does."""
    if rows[0]['missing'] or rows[0]['format'] != 'checkpoint':
        raise UserError(
            f'{rows[0]["file"]} is an exported program: name the checkpoint first, the programs after it'
        )
    for row in rows[1:]:
        if row.get('task', rows[0]['task']) != rows[0]['task']:
            raise UserError(f'{row["file"]} is for {row["task"]}, {rows[0]["file"]} for {rows[0]["task"]}')


def photographs(data: str | Path) -> list[str]:
    """Return the paths of up to `PICTURES` photographs in a folder, evenly chosen."""
    found = [str(each) for each in find_images([str(data)])]
    # Masks beside photographs are never JPEG.
    found = [each for each in found if each.lower().endswith(('.jpg', '.jpeg'))] or found
    return (
        [found[place * len(found) // PICTURES] for place in range(PICTURES)]
        if len(found) > PICTURES
        else found
    )
