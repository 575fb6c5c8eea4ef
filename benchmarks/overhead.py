"""What Python costs in a training step: the share of mmengine's and our own code, by cProfile.

    python benchmarks/overhead.py configs/linear_intel.py --data-root data/intel --batch-size 32

Trains as `tools/train.py` does, with untrained weights, and profiles `--iterations` whole steps, logging
included, after a few to warm up. A function's own time counts for the file it stands in; calls into C (the
operators of torch, and waiting for the loader) count apart. What cProfile itself takes for every call is
measured on an empty function and taken away.
"""

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from measuring import ROOT, WARM_UP, skip_float32

OURS = ('core', 'layers', 'backbones', 'heads', 'datasets', 'tasks', 'checkpoints', 'engine')


def owner(file: str, function: str) -> str:
    """Return whose code a profiled function is."""
    if file == '~' or 'numba' in Path(file).parts:
        return 'operators and waiting, in C'
    path = Path(file).resolve()  # falconet/heads is a link
    if path.is_relative_to(ROOT) and (room := path.relative_to(ROOT).parts[0]) in OURS:
        # What calls a compiled kernel has the kernel's time as its own.
        return 'kernels' if 'kernels' in Path(file).parts else f'Falconet, {room}'
    return next((name for name in ('mmengine', 'torch') if name in Path(file).parts), 'other Python')


def main() -> None:
    parser = argparse.ArgumentParser(description='The share of Python in a training step.')
    parser.add_argument('config')
    parser.add_argument('--data-root', required=True)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--iterations', type=int, default=50)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument(
        '--show', type=int, default=12, help="Falconet's and mmengine's most costly functions"
    )
    arguments = parser.parse_args()

    from mmengine.hooks import Hook

    from falconet import load_config, train

    profile = cProfile.Profile()
    times: list[float] = []

    class Profiling(Hook):
        priority = 'LOWEST'

        def before_train(self, runner: Any) -> None:
            skip_float32(runner)

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())
            if len(times) == WARM_UP:
                profile.enable()
            elif len(times) == WARM_UP + arguments.iterations:
                profile.disable()
                raise StopIteration

    options = [
        'model.backbone.pretrained=None',
        f'train_dataloader.batch_size={arguments.batch_size}',
        f'train_dataloader.num_workers={arguments.workers}',
        'train_cfg.max_epochs=1000',
        'train_cfg.val_interval=1000',
    ]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            config = load_config(ROOT / arguments.config, options)
            train(config, root=arguments.data_root, work_dir=scratch, hooks=[Profiling()])
    except StopIteration:
        pass
    report(profile, times[-1] - times[WARM_UP - 1], arguments)
    os._exit(0)  # loaders' processes need no ceremony here


def report(profile: cProfile.Profile, seconds: float, arguments: argparse.Namespace) -> None:
    """Print the shares of a profile over `seconds`, and the functions behind ours."""
    charged = cost_of_a_call()
    seconds_of: defaultdict[str, float] = defaultdict(float)
    functions: list[tuple[float, str]] = []
    stats: Any = pstats.Stats(profile)
    for (file, line, function), (_, count, own, _, _) in stats.stats.items():
        whose = owner(file, function)
        own = max(0.0, own - count * charged)
        seconds_of[whose] += own
        if whose.startswith(('Falconet', 'mmengine')):
            place = f'{"/".join(Path(file).parts[-3:])}:{line} {function}'
            functions.append((own, f'{count / arguments.iterations:8.1f} calls a step  {place}'))
    total = sum(seconds_of.values())
    steps = arguments.iterations
    print(f'{seconds / steps:.3f} s a profiled step, {total / steps:.3f} s without the profiler')
    for name, own in sorted(seconds_of.items(), key=lambda pair: -pair[1]):
        print(f'{own / total:7.2%}  {name}')
    for own, text in sorted(functions, reverse=True)[: arguments.show]:
        print(f'{own / total:7.2%}  {text}', flush=True)


def cost_of_a_call(calls: int = 200_000) -> float:
    """Return the seconds that cProfile adds to a Python call."""

    def empty() -> None:
        pass

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            empty()
        return time.perf_counter() - begin

    bare = min(run() for _ in range(3))
    profile = cProfile.Profile()
    return (min(profile.runcall(run) for _ in range(3)) - bare) / calls


if __name__ == '__main__':
    main()
