"""Pack a folder of classes into tar shards: python tools/pack_shards.py my_pictures OUT --size 500MB"""

import argparse
import sys
from pathlib import Path
from typing import Any

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Pack pictures with a class each into tar files of a given size, which read and copy '
        "faster than millions of small files. The layout is WebDataset's; type='ImageShards' trains on it."
    )
    parser.add_argument('source', help='folder of labelled pictures, as tools/train.py --data-root takes it')
    parser.add_argument('out', help='folder to write: new, or empty')
    parser.add_argument('--size', default='500MB', help='size of a shard (default: 500MB)')
    parser.add_argument('--seed', type=int, default=0, help='of the random order')
    parser.add_argument('--data-format', metavar='NAME', help='format of the source, where it holds several')
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from mmengine.config import Config

    from falconet.datasets.images.cache import parse_size
    from falconet.datasets.shards.write import pack
    from falconet.tasks.build import build_dataset

    size = parse_size(arguments.size, name='--size')
    entry = {
        'type': 'ClassificationFolder',
        'holdout': 0.0,
        'format': arguments.data_format or 'auto',
    }

    def part(split: str | None, classes: Any = None) -> Any:
        config = Config({'val_dataloader': {'dataset': {**entry, 'split': split}}})
        return build_dataset(config, 'val_dataloader', root=Path(arguments.source), classes=classes, seed=0)

    first = part(None)
    parts: dict[str, Any] = {split or 'all': part(split, first.classes) for split in first.splits}
    samples = {name: list(zip(each.paths, each.labels.tolist(), strict=True)) for name, each in parts.items()}
    counts = pack(samples, first.classes, Path(arguments.out), size=size, seed=arguments.seed)
    for name, count in counts.items():
        print(f"{len(samples[name]):,} pictures in {count} shards: shards='{name}-*.tar'")
    print(f'wrote {arguments.out}')


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
