"""Figure 6 of the paper on the demo data: trains every variant with every seed and prints the table.

Runs that are done are not done again, so it can be stopped and continued.

    python tools/make_demo_data.py data/demo
    python benchmarks/ablations.py --seeds 0 1 2
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {
    'linear bottleneck, shortcut between the thin ends (the paper)': 'configs/demo/linear_demo.py',
    'ReLU6 after the projection': 'configs/ablations/relu_bottleneck.py',
    'shortcut between the expansions': 'configs/ablations/expansion_shortcut.py',
    'no shortcut': 'configs/ablations/no_shortcut.py',
}


def run(config: str, seed: int, folder: Path) -> Path:
    """Train one variant unless it is done, and return the file of its scores."""
    work_dir = folder / f'{Path(config).stem}_{seed}'
    scores = work_dir / 'metrics.json'
    if not scores.exists():
        command = [sys.executable, str(ROOT / 'tools/train.py'), config, '--seed', str(seed)]
        subprocess.run([*command, '--work-dir', str(work_dir), '--resume'], cwd=ROOT, check=True)
    return scores


def table(folder: Path, seeds: list[int]) -> str:
    """Return a Markdown table of top-1 by variant, over the runs that are done."""
    columns = [f'seed {seed}' for seed in seeds]
    lines = [f'| variant | {" | ".join(columns)} | mean |', f'|---|{"---|" * (len(seeds) + 1)}']
    for name, config in VARIANTS.items():
        files = [folder / f'{Path(config).stem}_{seed}' / 'metrics.json' for seed in seeds]
        scores = [json.loads(file.read_text())['top1'] if file.exists() else None for file in files]
        done = [score for score in scores if score is not None]
        cells = ['not run' if score is None else f'{score:.3f}' for score in scores]
        mean = f'{statistics.mean(done):.3f}' if len(done) == len(seeds) else 'incomplete'
        lines.append(f'| {name} | {" | ".join(cells)} | {mean} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/ablations')
    parser.add_argument('--limit', type=int, help='train at most so many runs now')
    arguments = parser.parse_args()
    trained = 0
    for seed in arguments.seeds:
        for config in VARIANTS.values():
            done = (arguments.work_dir / f'{Path(config).stem}_{seed}' / 'metrics.json').exists()
            if done or (arguments.limit is not None and trained >= arguments.limit):
                continue
            run(config, seed, arguments.work_dir)
            trained += 1
    print(table(arguments.work_dir, arguments.seeds))


if __name__ == '__main__':
    main()
