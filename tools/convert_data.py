"""Write labelled pictures in another format: python tools/convert_data.py my_boxes OUT --to yolo"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

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
    parser.add_argument(
        '--split',
        metavar='SHARES',
        help='split all pictures anew into train, val and test: 0.8,0.1,0.1, of every class alike; near '
        'copies stay together',
    )
    parser.add_argument(
        '--classes', metavar='NAMES', help='keep these classes only, in this order: cat,dog (after --merge)'
    )
    parser.add_argument(
        '--merge',
        action='append',
        default=[],
        metavar='NAMES=NAME',
        help='call classes by one name: kitten,tomcat=cat (may be given several times)',
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from falconet.datasets.layouts import writers
    from falconet.datasets.layouts.remap_classes import merges_of, shares_of
    from falconet.doctor.convert import changed, read_folder, said_first, write_folder

    merge = merges_of(arguments.merge)
    keep = None if arguments.classes is None else [each.strip() for each in arguments.classes.split(',')]
    shares = None if arguments.split is None else shares_of(arguments.split)
    parts = read_folder(arguments.source, arguments.to, arguments.data_format)
    for split, dataset in parts.items():
        print(f'{split or "all"}: {dataset}')
    parts, lines = changed(parts, arguments.to, merge=merge, keep=keep, shares=shares)
    for line in [*lines, *said_first(parts, arguments.to)]:
        print(line)
    place = writers.linked if arguments.link else writers.copied
    with writers.new_folder(Path(arguments.out)) as folder:
        write_folder(parts, arguments.to, folder, place=place)
    print(f'wrote {arguments.out}')


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
