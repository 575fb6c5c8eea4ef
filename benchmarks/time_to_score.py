"""Time until a fine-tuned classifier is good: Intel's scenes, both sides from the same ImageNet weights.

    python benchmarks/time_to_score.py --data-root data/intel --weights mobilenet_v2-7ebf99e0.pth

Three sides, each in a process of its own, as often as there are seeds:

ours       `tasks.train` with a config of ours (`configs/linear_intel_fast.py`), hooks and logging included.
theirs     the loop one writes first: torchvision's mobilenet_v2 and transforms, float32, batch 32, Adam 1e-4.
reference  the same loop with the settings of torchvision's references/classification for this network:
           SGD 0.045 at batch 256, which is 0.0056 at batch 32, momentum 0.9, weight decay 4e-5, times 0.98
           an epoch, random crops from 8 % of the area.

Every 160 images all 300 pictures of the test split are scored, in float32 and in evaluation mode, until the
share that is right reaches `--score` for the first time. That takes none of the time that counts, on any
side alike: the clock stands still while a model is scored, and the pictures to score are prepared before it
starts. It runs from the command's start, imports and building included ('command'); 'training' counts from
the first batch asked for. Pictures are those of a small test split, so a single run says little: see
`--seeds`, and give the machine nothing else to do.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

from measuring import ROOT, finish, run_side  # noqa: E402  # the clock comes first

EVERY = 160  # images between two scorings
TEST_BATCH = 50


class Clock:
    """Counts images and seconds until a score is reached, without the time that scoring takes.

    Args:
        score: (model in evaluation mode) -> share of the test pictures that are right.
        target: the score to reach.
        limit: images after which it is given up.
    """

    def __init__(self, score: Callable[[], float], *, target: float, limit: int) -> None:
        self.score, self.target, self.limit = score, target, limit
        self.images, self.due = 0, EVERY
        self.away = self.before = 0.0  # seconds not to count: so far, and before the first batch
        self.scores: list[tuple[int, float]] = []
        self.first_batch = time.perf_counter()

    def leave_out(self, since: float) -> None:
        """Count the time from `since` to now as none of the training's."""
        self.away += time.perf_counter() - since

    def start(self) -> None:
        """The first batch is asked for."""
        self.first_batch, self.before = time.perf_counter(), self.away

    def step(self, images: int) -> bool:
        """Count a batch; whether that was the last one."""
        self.images += images
        if self.images < self.due:
            return False
        self.due += EVERY
        now = time.perf_counter()
        self.scores.append((self.images, self.score()))
        self.leave_out(now)
        return self.scores[-1][1] >= self.target - 1e-9 or self.images >= self.limit

    def result(self) -> dict[str, Any]:
        """What was measured; seconds where the score was reached, else none."""
        end = time.perf_counter()
        return {
            'reached': self.scores[-1][1] >= self.target - 1e-9,
            'images': self.images,
            'command_s': end - STARTED - self.away,
            'training_s': end - self.first_batch - (self.away - self.before),
            'best': max(score for _, score in self.scores),
            'scores': self.scores,
        }


def measure_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with Falconet's runner."""
    import torch
    from mmengine.hooks import Hook

    from falconet import load_config, train
    from falconet.datasets.samples import collate
    from falconet.tasks.build import build_dataset

    options = [
        f'seed={arguments.seed}',
        f'model.backbone.pretrained={arguments.weights}',
        'train_cfg.val_interval=1000',
        *arguments.cfg_options,
    ]
    config = load_config(ROOT / arguments.config, options)
    now = time.perf_counter()
    validation = build_dataset(config, 'val_dataloader', root=Path(arguments.data_root), classes=None, seed=0)
    batch = collate([validation[index] for index in range(len(validation))])
    pictures, labels = batch['images'].split(TEST_BATCH), batch['targets']
    model: Any = None

    def score() -> float:
        with torch.inference_mode():
            answers = torch.cat([model.infer(each) for each in pictures]).argmax(dim=1)
        return float((answers == labels).float().mean())

    clock = Clock(score, target=arguments.score, limit=arguments.limit)
    clock.leave_out(now)

    class ScoreHook(Hook):
        priority = 'LOWEST'

        def before_train(self, runner: Any) -> None:
            nonlocal model
            model = runner.model_to_use
            clock.start()

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            if clock.step(len(data_batch['images'])):
                raise StopIteration

    try:
        with tempfile.TemporaryDirectory() as scratch:
            train(config, root=arguments.data_root, work_dir=scratch, hooks=[ScoreHook()])
    except StopIteration:
        pass
    return clock.result()


def measure_theirs(arguments: argparse.Namespace, *, reference: bool = False) -> dict[str, Any]:
    """Train with the loop a user writes first, or with torchvision's reference settings."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.models import mobilenet_v2

    torch.manual_seed(arguments.seed)
    tail = [
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    crop = transforms.RandomResizedCrop(224, scale=(0.08 if reference else 0.5, 1.0))
    training = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *tail])
    testing = transforms.Compose([transforms.Resize(224), transforms.CenterCrop(224), *tail])
    root = Path(arguments.data_root)
    data = ImageFolder(str(_nested(root / 'seg_train')), training)
    loader = DataLoader(data, 32, shuffle=True, drop_last=True, num_workers=arguments.workers)
    model = mobilenet_v2()
    model.load_state_dict(torch.load(arguments.weights, weights_only=True))
    model.classifier[1] = nn.Linear(model.last_channel, len(data.classes))
    if reference:
        optimizer: Any = torch.optim.SGD(model.parameters(), 0.045 / 8, momentum=0.9, weight_decay=4e-5)
    else:
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98 if reference else 1.0)

    now = time.perf_counter()
    test = ImageFolder(str(_nested(root / 'seg_test')), testing)
    pairs = [test[index] for index in range(len(test))]
    pictures = torch.stack([picture for picture, _ in pairs]).split(TEST_BATCH)
    labels = torch.tensor([label for _, label in pairs])

    def score() -> float:
        model.eval()
        with torch.inference_mode():
            answers = torch.cat([model(each) for each in pictures]).argmax(dim=1)
        model.train()
        return float((answers == labels).float().mean())

    clock = Clock(score, target=arguments.score, limit=arguments.limit)
    clock.leave_out(now)
    clock.start()
    model.train()
    while True:
        for images, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
            if clock.step(len(images)):
                return clock.result()
        decay.step()


def _nested(folder: Path) -> Path:
    return folder / folder.name if (folder / folder.name).is_dir() else folder


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    'ours': measure_ours,
    'theirs': measure_theirs,
    'reference': lambda arguments: measure_theirs(arguments, reference=True),
}


def summary(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the medians of every side, and what ours takes of the others' time."""
    lines = []
    for side, runs in results.items():
        done = sum(each['reached'] for each in runs)
        text = ', '.join(
            f'{key} {statistics.median(each[key] for each in runs):.1f}'
            for key in ('images', 'training_s', 'command_s', 'best')
        )
        lines.append(f'{side}: reached by {done} of {len(runs)}; medians: {text}')
    for side in results.keys() - {'ours'} if 'ours' in results else ():
        for key in ('training_s', 'command_s'):
            ours, theirs = (statistics.median(each[key] for each in results[name]) for name in ('ours', side))
            lines.append(f'{key}: ours takes 1/{theirs / ours:.1f} of {side}')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description='Time until a fine-tuned classifier is good.')
    parser.add_argument('--data-root', required=True, help='folder that holds seg_train and seg_test')
    parser.add_argument('--weights', required=True, help="torchvision's file of ImageNet weights")
    parser.add_argument('--score', type=float, default=0.92, help='share of the test pictures to get right')
    parser.add_argument('--limit', type=int, default=20_000, help='images after which it is given up')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--sides', nargs='+', choices=SIDES, default=list(SIDES))
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--config', default='configs/linear_intel_fast.py')
    parser.add_argument('--cfg-options', nargs='*', default=[], help='of our side')
    parser.add_argument('--side', choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument('--seed', type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        finish(SIDES[arguments.side](arguments))
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in arguments.sides}
    for seed in arguments.seeds:
        for side in arguments.sides:
            results[side].append(run_side(side, '--seed', str(seed)))
            shown = {key: value for key, value in results[side][-1].items() if key != 'scores'}
            print(side, seed, shown, flush=True)
    print(summary(results))


if __name__ == '__main__':
    main()
