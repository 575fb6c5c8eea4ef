"""Put runs side by side: python tools/compare.py work_dirs/one work_dirs/other"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Put runs side by side in one page.')
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='folder of a training or test, or its report.html; 2 to 8'
    )
    parser.add_argument('--out', default='compare.html', metavar='FILE', help='default: compare.html')
    parser.add_argument(
        '--overwrite', action='store_true', help='let --out replace a file that Falconet did not make'
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from falconet.engine.compare import compare

    written = compare(arguments.runs, Path(arguments.out), overwrite=arguments.overwrite)
    print(f'wrote {written}')


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
