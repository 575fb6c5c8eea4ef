"""What an ingredient of a recipe is worth: trains a config with and without it, with several seeds.

    python benchmarks/recipes.py distillation --data-root data/intel --weights mobilenet_v2-7ebf99e0.pth
    python benchmarks/recipes.py augmentation --data-root data/intel --weights mobilenet_v2-7ebf99e0.pth

`COMPARISONS` below says what is compared: a config, what its variants change, and nothing else. Each run is a
process of its own, scored after its last epoch. What is done is not done again, so it can be stopped and
continued; a table of all that is done is printed at the end, with the processor time of a run.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

Options = dict[str, Any]  # config keys, dotted; 'more' holds transforms to put behind the config's own
AUGMENT = 'train_dataloader.dataset.augment'
DONE = 'processor_seconds.json'  # of a run that is done; null where it was interrupted


@dataclass(frozen=True)
class Comparison:
    """A config and its variants.

    Attributes:
        config: file below the checkout.
        variants: what each changes.
        always: what all change.
        pretrained: whether they start from `--weights`.
        teacher: what changes in the config of a run that goes before all others, whose best.pth teaches the
            variants that have `distill`.
    """

    config: str
    variants: dict[str, Options]
    always: Options = field(default_factory=dict)
    pretrained: bool = True
    teacher: Options | None = None


SMALL_PICTURES: Options = {
    f'{AUGMENT}.0.size': (160, 160),
    'val_dataloader.dataset.augment.0.resize': 160,
    'val_dataloader.dataset.augment.0.crop': 160,
    'train_dataloader.batch_size': 32,
}
FLIP: Options = {'type': 'HorizontalFlip', 'p': 0.5}
# What a turn brings in is the mean pixel and is ignored; albumentations' own 0 would call it background.
TURN: Options = {'type': 'Rotate', 'limit': 10, 'p': 0.5, 'fill': (124, 116, 104), 'fill_mask': 255}


def scale_crop(least: float, largest: float) -> Options:
    """Return the entry of a random scale, and a window of 321 px."""
    return {'type': 'RandomScaleCrop', 'scale': (least, largest), 'size': 321}


# What linear_intel.py was before its rate, batch and length were looked for; older tables were made with it.
THREE_EPOCHS: Options = {
    'train_dataloader.batch_size': 64,
    'optim_wrapper.optimizer.lr': 5e-4,
    'schedule.warmup': 1 / 3,
    'train_cfg.max_epochs': 3,
}
COMPARISONS = {
    'distillation': Comparison(
        'configs/linear_intel.py',
        {
            'alone': {},
            'taught': {'distill.weight': 0.8, 'distill.temperature': 2.0},
        },
        always={
            **THREE_EPOCHS,
            **SMALL_PICTURES,
            'model.backbone.width': 0.35,
            'model.backbone.pretrained': None,
            'model.head.dropout': 0.0,
            f'{AUGMENT}.0.scale': (0.35, 1.0),
            'optim_wrapper.optimizer.lr': 2e-3,
            'optim_wrapper.optimizer.weight_decay': 0.05,
            'schedule.warmup': 0.1,
            'train_cfg.max_epochs': 20,
        },
        pretrained=False,
        teacher={**THREE_EPOCHS, **SMALL_PICTURES},
    ),
    'schedule': Comparison(
        'configs/linear_intel.py',
        {'batch 64, 5e-4, three epochs': THREE_EPOCHS, 'batch 32, 3e-4, four epochs': {}},
    ),
    'augmentation': Comparison(
        'configs/linear_intel.py',
        {
            'crops and flips': {},
            'RandAugment': {'more': [{'type': 'RandAugment'}]},
            'TrivialAugment': {'more': [{'type': 'TrivialAugment'}]},
            'AugMix': {'more': [{'type': 'AugMix'}]},
            'RandomErasing': {'more': [{'type': 'RandomErasing'}]},
            'mixup': {'train_dataloader.batch_augment': [{'type': 'MixUp', 'alpha': 0.2}]},
        },
        always={**THREE_EPOCHS, **SMALL_PICTURES},
    ),
    'resolution': Comparison(
        'configs/linear_intel.py',
        {
            'one size': {},
            'from 128 px, for half of the run': {'resolution.start': 128},
            'from 128 px, for three quarters': {'resolution.start': 128, 'resolution.until': 0.75},
        },
        always=THREE_EPOCHS,
    ),
    'resolution_fast': Comparison(
        'configs/linear_intel_fast.py',
        {
            'one size': {'resolution': None},
            'from 96 px, for half of the run': {'resolution.start': 96},
            'from 128 px, for half of the run': {'resolution.start': 128},
            'from 96 px, for three quarters': {'resolution.start': 96, 'resolution.until': 0.75},
        },
    ),
    'segmentation_augmentation': Comparison(
        'configs/deeplabv3_voc_small.py',
        {
            'crops and flips': {AUGMENT: [scale_crop(1, 1), FLIP]},
            'and scale 0.5 to 1.25': {AUGMENT: [scale_crop(0.5, 1.25), FLIP]},
            'and scale 0.5 to 2': {AUGMENT: [scale_crop(0.5, 2), FLIP]},
            'and scale, colours': {},
            'and scale, colours, turns': {'more': [TURN]},
            'and scale, colours, blur': {'more': [{'type': 'GaussianBlur', 'p': 0.5}]},
            'and scale, colours, RandomErasing': {'more': [{'type': 'RandomErasing', 'p': 0.5}]},
        },
        always={'train_cfg.max_epochs': 12},
    ),
}


def change(config: Any, options: Options) -> None:
    """Set what `options` names in a config."""
    options = dict(options)
    more = options.pop('more', [])
    config.merge_from_dict(options)
    augment = config.train_dataloader.dataset.augment
    config.train_dataloader.dataset.augment = [*augment, *more]


def train_one(comparison: Comparison, name: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Train a variant, or 'teacher', in this process."""
    from falconet import load_config, train
    from falconet.core.schema import check_config

    config = load_config(ROOT / comparison.config)
    of_teacher = name == 'teacher'
    if of_teacher or comparison.pretrained:
        config.model.backbone.pretrained = arguments.weights
    for options in [comparison.teacher] if of_teacher else [comparison.always, comparison.variants[name]]:
        change(config, options or {})
    if 'distill' in config:
        config.distill.teacher = str(_place(arguments.work_dir, 'teacher', 0) / 'best.pth')
    config.train_cfg.val_interval = config.train_cfg.max_epochs
    for stage in ('train_dataloader', 'val_dataloader'):
        config[stage].num_workers = arguments.workers
    config.seed = arguments.seed
    check_config(config, training=True)
    goes_on = (folder / 'last.pth').exists()
    train(config, root=arguments.data_root, work_dir=str(folder), resume=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in used)
    (folder / DONE).write_text(json.dumps(None if goes_on else round(seconds, 1)))


def _place(work_dir: Path, name: str, seed: int) -> Path:
    return work_dir / f'{name.replace(" ", "_")}_{seed}'


def run(name: str, seed: int, work_dir: Path) -> None:
    """Run this script again for one training, unless it is done."""
    if (_place(work_dir, name, seed) / DONE).exists():
        return
    subprocess.run([sys.executable, *sys.argv, '--one', name, '--seed', str(seed)], check=True)


def table(names: list[str], seeds: list[int], work_dir: Path) -> str:
    """Return a Markdown table of the scores by variant, over the runs that are done.

    Label maps have a column more, the mean of their pixel accuracy.
    """
    rows: dict[str, list[str]] = {}
    pixels: dict[str, str] = {}
    for name in names:
        scores, accuracies, seconds, cells = [], [], [], []
        for seed in seeds:
            folder = _place(work_dir, name, seed)
            if not (folder / DONE).exists():
                cells.append('not run')
                continue
            report = json.loads((folder / 'metrics.json').read_text())
            scores.append(next(report[key] for key in ('top1', 'AP', 'miou') if key in report))
            accuracies += [report['pixel_accuracy']] if 'pixel_accuracy' in report else []
            cells.append(f'{scores[-1]:.3f}')
            seconds.append(json.loads((folder / DONE).read_text()))
        if scores:
            whole = [each for each in seconds if each is not None]
            cells.append(f'{statistics.mean(scores):.3f}')
            cells.append(f'{statistics.median(whole):.0f}' if whole else '')
            rows[name] = cells
        if accuracies:
            pixels[name] = f'{statistics.mean(accuracies):.3f}'
    heads = ['', *(f'seed {seed}' for seed in seeds), 'mean', 'processor seconds']
    heads += ['pixel accuracy'] if pixels else []
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for name, cells in rows.items():
        lines.append(f'| {" | ".join([name, *cells, *([pixels[name]] if pixels else [])])} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('comparison', choices=COMPARISONS)
    parser.add_argument('--data-root', required=True, help="folder of the config's data")
    parser.add_argument('--weights', required=True, help='file of ImageNet weights for width 1.0')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--variants', nargs='+', help='only these')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--work-dir', type=Path, help='by default work_dirs/<comparison>')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    parser.add_argument('--seed', type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    comparison = COMPARISONS[arguments.comparison]
    arguments.work_dir = arguments.work_dir or ROOT / 'work_dirs' / arguments.comparison
    if arguments.one is not None:
        folder = _place(arguments.work_dir, arguments.one, arguments.seed)
        return train_one(comparison, arguments.one, arguments, folder)
    if comparison.teacher is not None:
        run('teacher', 0, arguments.work_dir)
    names = list(comparison.variants)
    for seed in arguments.seeds:
        for name in arguments.variants or names:
            run(name, seed, arguments.work_dir)
    print(table(names, arguments.seeds, arguments.work_dir))


if __name__ == '__main__':
    main()
