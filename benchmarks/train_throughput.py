"""Training throughput, whole loop with data, against a plain torchvision loop, in one run.

    python benchmarks/train_throughput.py --data-root data/intel

Both sides train the same network (MobileNetV2 1.0, 224 px, 6 classes) from the same folder with the same
batch size and number of workers. Ours is `tasks.runner` with `configs/linear_intel.py`, hooks and logging
included. Theirs is what a user writes first: `torchvision.models.mobilenet_v2`, `ImageFolder`, torchvision
transforms, float32, AdamW. Each measurement is a process of its own; they alternate, so that a busy machine
disturbs both. The first iterations of each are left out. Of ours it also says which share of the time went
into the model, into waiting for data, and into the rest: mmengine and our own Python.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WARM_UP = 3


def measure_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with Kestrel's runner and time every iteration from the end of one to the end of the next."""
    from mmengine.hooks import Hook

    import tasks.runner as runner

    ends: list[float] = []
    inside: list[float] = []  # seconds in the model's train_step
    waiting: list[float] = []  # seconds waiting for the loader

    class Clock(Hook):
        priority = 'LOWEST'

        def before_train(self, runner: Any) -> None:
            loop, model = runner.train_loop, runner.model
            step, loader = model.train_step, loop.dataloader

            def timed_step(*args: Any, **kwargs: Any) -> Any:
                begin = time.perf_counter()
                try:
                    return step(*args, **kwargs)
                finally:
                    inside.append(time.perf_counter() - begin)

            model.train_step = timed_step

            class TimedLoader:
                def __getattr__(self, name: str) -> Any:
                    return getattr(loader, name)

                def __len__(self) -> int:
                    return len(loader)

                def __iter__(self) -> Iterator[Any]:
                    batches = iter(loader)
                    while True:
                        begin = time.perf_counter()
                        try:
                            batch = next(batches)
                        except StopIteration:
                            return
                        waiting.append(time.perf_counter() - begin)
                        yield batch

            loop.dataloader = TimedLoader()

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())
            if len(ends) == arguments.iterations + WARM_UP:
                raise StopIteration

    optional = runner._optional_hooks
    runner._optional_hooks = lambda config: [*optional(config), Clock()]
    options = [
        f'train_dataloader.batch_size={arguments.batch_size}',
        f'train_dataloader.num_workers={arguments.workers}',
        'model.backbone.pretrained=None',
        'train_cfg.max_epochs=100',
        f'amp={arguments.amp}',
    ]
    config = runner.load_config(ROOT / 'configs/linear_intel.py', options)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            runner.train(config, root=arguments.data_root, work_dir=scratch)
    except StopIteration:
        pass
    result = summarise(ends, arguments.batch_size)
    total = ends[-1] - ends[WARM_UP - 1]
    model_time, data_time = sum(inside[WARM_UP : len(ends)]), sum(waiting[WARM_UP : len(ends)])
    return result | {
        'model_share': model_time / total,
        'data_share': data_time / total,
        'rest_share': 1 - (model_time + data_time) / total,
    }


def measure_theirs(arguments: argparse.Namespace) -> dict[str, float]:
    """Train with the loop a user writes first."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.models import mobilenet_v2

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    folder = Path(arguments.data_root) / 'seg_train'
    nested = folder / 'seg_train'
    data = ImageFolder(str(nested if nested.is_dir() else folder), transform)
    loader = DataLoader(
        data, arguments.batch_size, shuffle=True, num_workers=arguments.workers, drop_last=True
    )
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = mobilenet_v2(num_classes=len(data.classes)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    ends: list[float] = []
    model.train()
    while True:
        for images, labels in loader:
            loss = criterion(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            ends.append(time.perf_counter())
            if len(ends) == arguments.iterations + WARM_UP:
                return summarise(ends, arguments.batch_size)


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


def main() -> None:
    parser = argparse.ArgumentParser(description='Training throughput against a plain torchvision loop.')
    parser.add_argument('--data-root', required=True, help='folder that holds seg_train (Intel scenes)')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--iterations', type=int, default=12, help='timed iterations per measurement')
    parser.add_argument('--rounds', type=int, default=2, help='alternations of the two sides')
    parser.add_argument('--amp', choices=('auto', 'off'), default='auto')
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        result = measure_ours(arguments) if arguments.side == 'ours' else measure_theirs(arguments)
        print('RESULT ' + json.dumps(result))
        sys.stdout.flush()
        os._exit(0)  # loaders' processes need no ceremony here

    results: dict[str, list[dict[str, float]]] = {'theirs': [], 'ours': []}
    for _ in range(arguments.rounds):
        for side in results:
            command = [sys.executable, __file__, *sys.argv[1:], '--side', side]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            line = next((each for each in done.stdout.splitlines() if each.startswith('RESULT ')), None)
            if line is None:
                sys.exit(done.stdout + done.stderr)
            results[side].append(json.loads(line.removeprefix('RESULT ')))
            print(side, {key: round(value, 3) for key, value in results[side][-1].items()}, flush=True)
    for key in ('images_per_s', 'median_images_per_s'):
        ours = statistics.median(each[key] for each in results['ours'])
        theirs = statistics.median(each[key] for each in results['theirs'])
        print(f'{key}: ours {ours:.1f}, theirs {theirs:.1f}, ratio {ours / theirs:.2f}')


if __name__ == '__main__':
    main()
