"""What the benchmarks share: timing a run of Falconet's runner, and two sides that take turns.

Each measurement is a process of its own; the sides alternate, so that a busy machine disturbs both. The first
iterations of each are left out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
WARM_UP = 3


def time_training(
    config: str, *, options: Sequence[str], data_root: str, batch_size: int, iterations: int
) -> dict[str, float]:
    """Train with Falconet's runner, hooks and logging included, and time every iteration from end to end.

    Returns:
        What `summarise` returns, and which share of the time went into the model, into its head's loss, into
        waiting for data, and into the rest: mmengine and our own Python.
    """
    from mmengine.hooks import Hook

    from falconet import load_config, train

    ends: list[float] = []
    inside: list[float] = []  # seconds in the loop's step
    in_loss: list[float] = []  # of those, seconds in the head's loss, forward only
    waiting: list[float] = []  # seconds waiting for the loader

    def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds.append(time.perf_counter() - begin)

        return call

    class Clock(Hook):
        priority = 'LOWEST'

        def before_train(self, runner: Any) -> None:
            skip_float32(runner)
            loop, model = runner.train_loop, runner.model
            loader = loop.dataloader
            loop.step = timed(loop.step, inside)
            model.head.loss = timed(model.head.loss, in_loss)

            class TimedLoader:
                def __getattr__(self, name: str) -> Any:
                    return getattr(loader, name)

                def __len__(self) -> int:
                    return len(loader)

                def __iter__(self) -> Iterator[Any]:
                    batches = iter(loader)
                    following = timed(lambda: next(batches, None), waiting)
                    while (batch := following()) is not None:
                        yield batch

            loop.dataloader = TimedLoader()

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())
            if len(ends) == iterations + WARM_UP:
                raise StopIteration

    # Without validation, which the other side does not do either.
    endless = ['train_cfg.max_epochs=1000', 'train_cfg.val_interval=1000']
    loaded = load_config(ROOT / config, [*options, f'train_dataloader.batch_size={batch_size}', *endless])
    try:
        with tempfile.TemporaryDirectory() as scratch:
            train(loaded, root=data_root, work_dir=scratch, hooks=[Clock()])
    except StopIteration:
        pass
    total = ends[-1] - ends[WARM_UP - 1]
    timed_part = slice(WARM_UP, len(ends))
    model_time, data_time = sum(inside[timed_part]), sum(waiting[timed_part])
    return summarise(ends, batch_size) | {
        'model_share': model_time / total,
        'loss_share': sum(in_loss[timed_part]) / total,
        'data_share': data_time / total,
        'rest_share': 1 - (model_time + data_time) / total,
    }


def skip_float32(runner: Any) -> None:
    """Compute in bfloat16 at once, as with pretrained weights, which measurements leave out."""
    from falconet.engine.hooks.precision import PrecisionHook

    for hook in runner.hooks:
        if isinstance(hook, PrecisionHook):
            hook.since, runner.optim_wrapper.enabled = 0, True


def time_ours(config: str, arguments: Any, *options: str) -> dict[str, float]:
    """Time a config's training from nothing, with the options that every benchmark's command line has."""
    common = [
        f'train_dataloader.num_workers={arguments.workers}',
        'model.backbone.pretrained=None',
        f'amp={arguments.amp}',
    ]
    return time_training(
        config,
        options=[*common, *options],
        data_root=arguments.data_root,
        batch_size=arguments.batch_size,
        iterations=arguments.iterations,
    )


def summarise(ends: list[float], batch_size: int) -> dict[str, float]:
    """Images per second over all timed iterations and in the median one, and the peak memory in MB."""
    times = [later - earlier for earlier, later in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)]
    result = {
        'images_per_s': batch_size * len(times) / sum(times),
        'median_images_per_s': batch_size / statistics.median(times),
    }
    if sys.platform != 'win32':
        import resource

        result['peak_mb'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def finish(result: dict[str, Any]) -> None:
    """Hand one measurement to the parent process and end; loaders' processes need no ceremony here."""
    print('RESULT ' + json.dumps(result))
    sys.stdout.flush()
    os._exit(0)


def run_side(side: str, *options: str) -> dict[str, Any]:
    """Run this script again for one side, and return what it measured."""
    command = [sys.executable, *sys.argv, '--side', side, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((each for each in done.stdout.splitlines() if each.startswith('RESULT ')), None)
    if line is None:
        sys.exit(done.stdout + done.stderr)
    return json.loads(line.removeprefix('RESULT '))


def alternate(sides: Sequence[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run this script again for each side in turn, `rounds` times, and print what each measured."""
    results: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in results:
            results[side].append(run_side(side))
            print(side, {key: round(value, 3) for key, value in results[side][-1].items()}, flush=True)
    return results


def compare(results: dict[str, list[dict[str, float]]], key: str) -> tuple[float, float]:
    """Print and return the medians of 'ours' and 'theirs' and their ratio."""
    ours = statistics.median(each[key] for each in results['ours'])
    theirs = statistics.median(each[key] for each in results['theirs'])
    print(f'{key}: ours {ours:.1f}, theirs {theirs:.1f}, ratio {ours / theirs:.2f}')
    return ours, theirs
