"""Write labelled pictures in another format: python tools/convert_data.py my_boxes OUT --to yolo"""

import argparse
import sys
from pathlib import Path
from typing import Any

# Lets the tools run from a checkout that was never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

KINDS = ('coco', 'voc', 'yolo', 'csv', 'masks', 'folders')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write labelled pictures in another format, into a new folder. Boxes become coco, voc, '
        'yolo or csv; masks and outlines become masks; pictures with a class each become folders.'
    )
    parser.add_argument('source', help='folder of labelled pictures, as tools/train.py --data-root takes it')
    parser.add_argument('out', help='folder to write: new, or empty')
    parser.add_argument('--to', choices=KINDS, required=True, help='format to write')
    parser.add_argument('--data-format', metavar='NAME', help='format of the source, where it holds several')
    parser.add_argument('--link', action='store_true', help='make links to the pictures instead of copies')
    return parser.parse_args()


def read(source: str, kind: str, data_format: str | None) -> dict[str, Any]:
    """Return the data set of every split of a folder."""
    from mmengine.config import Config

    from tasks.build import build_dataset

    name = {'masks': 'SegmentationFolder', 'folders': 'ClassificationFolder'}.get(kind, 'DetectionFolder')
    entry: dict[str, Any] = {'type': name, 'holdout': 0.0, 'format': data_format or 'auto'}

    def part(split: str | None) -> Any:
        config = Config({'val_dataloader': {'dataset': {**entry, 'split': split}}})
        return build_dataset(config, 'val_dataloader', root=Path(source), classes=None, seed=0)

    first = part(None)
    return {split: part(split) for split in first.splits}


def main() -> None:
    arguments = parse_arguments()
    from tasks.data.layouts import writers

    parts, out = read(arguments.source, arguments.to, arguments.data_format), Path(arguments.out)
    for split, dataset in parts.items():
        print(f'{split or "all"}: {dataset}')
        if arguments.to in writers.WITH_BOXES:
            for line in writers.not_held(dataset.annotations, arguments.to):
                print(f'cannot be held: {line}')
    writers.empty_folder(out)
    if arguments.to == 'masks':
        pairs = {
            split: [(path, dataset.read_mask(index)) for index, path in enumerate(dataset.paths)]
            for split, dataset in parts.items()
        }
        classes = next(iter(parts.values())).classes
        writers.write_masks(pairs, classes, out, link=arguments.link)
    elif arguments.to == 'folders':
        labelled = {
            split: [(path, each.classes[label]) for path, label in zip(each.paths, each.labels, strict=True)]
            for split, each in parts.items()
        }
        writers.write_class_folders(labelled, out, link=arguments.link)
    else:
        boxes = {split: dataset.annotations for split, dataset in parts.items()}
        writers.write_boxes(boxes, out, arguments.to, link=arguments.link)
    print(f'wrote {out}')


if __name__ == '__main__':
    from tasks.errors import run_command

    run_command(main)
