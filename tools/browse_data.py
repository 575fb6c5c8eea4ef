"""See what a network sees, augmented and labelled: python tools/browse_data.py configs/ssdlite_folder.py

A page of samples as the config's transforms leave them, with boxes, masks or classes, several draws of each.
"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a page of samples as the transforms of a config leave them, labels drawn in.'
    )
    parser.add_argument('config', help='the config that will be trained')
    parser.add_argument(
        '--data-root', metavar='DIR', help="where the data lies, instead of the config's place"
    )
    parser.add_argument(
        '--data-format', metavar='NAME', help="format of one's own data, where a folder holds several"
    )
    parser.add_argument(
        '--split',
        choices=('train', 'val', 'test'),
        default='train',
        help='whose pictures and transforms (default: train)',
    )
    parser.add_argument('--class', dest='class_name', metavar='NAME', help='pictures with this class only')
    parser.add_argument(
        '--draws', type=int, default=4, metavar='N', help='augmented draws of every picture (default: 4)'
    )
    parser.add_argument(
        '--count', type=int, default=24, metavar='N', help='pictures, spread over the data (default: 24)'
    )
    parser.add_argument(
        '--out', default='browse.html', metavar='FILE', help='page to write (default: browse.html)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config, as in train.py'
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from falconet.doctor.browse import browse, write_browser
    from falconet.engine.held_out import with_format
    from falconet.tasks.build import load_config

    config = load_config(arguments.config, arguments.cfg_options)
    if arguments.data_format is not None:
        with_format(config, arguments.data_format)
    page = browse(
        config,
        root=arguments.data_root,
        split=arguments.split,
        class_name=arguments.class_name,
        draws=arguments.draws,
        count=arguments.count,
    )
    write_browser(page, Path(arguments.out))
    print(f'wrote {arguments.out}')


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
