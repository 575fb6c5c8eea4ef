"""The demo's scores over several seeds: trains each config with each, scores the results on val and on test.

Recipes and checkpoints may be picked on val; nothing is picked on test. What is done is not done again, so it
can be stopped and continued. Writes scores.json and scores.md into the work dir.

    python tools/make_demo_data.py data/demo
    python benchmarks/demo_seeds.py --seeds 0 1 2
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
CONFIGS = [f'configs/demo/{name}_demo.py' for name in ('linear', 'ssdlite', 'deeplabv3')]
SPLITS = ('val', 'test')
MAIN_SCORES = ('top1', 'AP', 'miou')  # of the three tasks, in a report's spelling


def run(config: str, seed: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """Train one config with one seed unless that is done, and score its best checkpoint on both splits.

    Args:
        config: path below the checkout.
        seed: of the weights and of the order and augmentation of the pictures.
        folder: of all runs.
        options: `--cfg-options` for the training.

    Returns:
        {'seconds': of the training, or None when it was interrupted, 'val': {name: score}, 'test': ...}.
    """
    work_dir = folder / f'{Path(config).stem}_{seed}'
    scores = work_dir / 'scores.json'
    if scores.exists():
        return json.loads(scores.read_text())
    seconds = None
    if not (work_dir / 'metrics.json').exists():
        begun, goes_on = time.monotonic(), (work_dir / 'last.pth').exists()
        command = [sys.executable, str(ROOT / 'tools/train.py'), config, '--seed', str(seed), '--resume']
        command += ['--work-dir', str(work_dir)]
        subprocess.run([*command, *(['--cfg-options', *options] if options else [])], cwd=ROOT, check=True)
        seconds = None if goes_on else round(time.monotonic() - begun, 1)
    done = {'seconds': seconds, **{split: score(config, work_dir / 'best.pth', split) for split in SPLITS}}
    scores.with_suffix('.new').write_text(json.dumps(done, indent=2) + '\n')
    scores.with_suffix('.new').replace(scores)
    return done


def score(config_file: str, checkpoint: Path, split: str) -> dict[str, float]:
    """Return the scores of a checkpoint on 'val' or 'test' of its config's data."""
    from falconet import evaluate, load_config

    config = load_config(config_file)
    if split == 'val':
        config.pop('test_dataloader')
    report = evaluate(config, checkpoint=str(checkpoint))
    return {name: value for name, value in report.items() if isinstance(value, (int, float))}


def table(runs: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return a Markdown table, a row for each config and split: seeds, mean, standard deviation, range."""
    seeds = sorted({seed for done in runs.values() for seed in done}, key=int)
    heads = ['config', 'split', *(f'seed {seed}' for seed in seeds), 'mean', 'std', 'lowest to highest']
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for config, done in runs.items():
        for split in SPLITS:
            of_seed = {seed: main_score(each[split]) for seed, each in done.items()}
            values = [value for _, value in of_seed.values()]
            cells = [f'{of_seed[seed][1]:.3f}' if seed in of_seed else 'not run' for seed in seeds]
            spread = f'{statistics.stdev(values):.3f}' if len(values) > 1 else '-'
            name = next(iter(of_seed.values()))[0]
            cells += [f'{statistics.mean(values):.3f}', spread, f'{min(values):.3f} to {max(values):.3f}']
            lines.append(f'| `{config}` | {split}, {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main_score(scores: dict[str, float]) -> tuple[str, float]:
    """Return the name and value of the one score a task is judged by."""
    name = next(each for each in MAIN_SCORES if each in scores)
    return name, scores[name]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--configs', nargs='+', default=CONFIGS, metavar='CONFIG')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/demo_seeds', metavar='DIR')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for the trainings')
    arguments = parser.parse_args()
    from falconet.engine.cpu import tune_cpu

    tune_cpu()
    os.chdir(ROOT)  # the configs' data lies there
    folder = arguments.work_dir.resolve()
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for seed in arguments.seeds:
        for config in arguments.configs:
            done = run(config, seed, folder, arguments.cfg_options)
            runs.setdefault(config, {})[str(seed)] = done
            content = {'processor': platform.processor() or platform.machine(), 'runs': runs}
            (folder / 'scores.json').write_text(json.dumps(content, indent=2) + '\n')
            (folder / 'scores.md').write_text(table(runs))
    print(table(runs))


if __name__ == '__main__':
    main()
