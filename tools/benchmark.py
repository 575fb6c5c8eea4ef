"""Measure a checkpoint and its exported files: python tools/benchmark.py best.pth best.onnx --data DIR"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Size, loading, latency, throughput, memory and score of a checkpoint and of the files '
        'that were exported from it, as one table and one picture. See docs/deploy.md.'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a Falconet checkpoint (.pth)')
    parser.add_argument('exported', nargs='*', metavar='EXPORTED', help='programs of tools/export.py')
    parser.add_argument(
        '--data',
        required=True,
        metavar='DIR',
        help='where the data lies that they are scored on; with --no-score any folder of photographs',
    )
    parser.add_argument(
        '--out', metavar='DIR', help='where to write (default: the folder benchmark beside the checkpoint)'
    )
    parser.add_argument('--no-score', action='store_true', help='measure speed and memory only')
    parser.add_argument(
        '--rounds', type=above_zero, default=5, metavar='N', help='turns of each file (default: 5)'
    )
    parser.add_argument(
        '--threads', type=above_zero, metavar='N', help='the most to use (default: as many as torch does)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace files there that Falconet did not make'
    )
    return parser.parse_args()


def above_zero(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number above 0, got {text!r}')
    return int(text)


def main() -> None:
    arguments = parse_arguments()
    from falconet.deploy.benchmark import benchmark, report
    from falconet.engine.predict.progress import progress

    def watch(turns: Sequence[Any]) -> Iterator[Any]:
        return progress(turns, len(turns), what='turns')

    out = (
        Path(arguments.out) if arguments.out else Path(arguments.checkpoint).expanduser().parent / 'benchmark'
    )
    report.check(out, overwrite=arguments.overwrite)
    found = benchmark(
        arguments.checkpoint,
        arguments.exported,
        data=arguments.data,
        score=not arguments.no_score,
        rounds=arguments.rounds,
        threads=arguments.threads,
        watch=watch,
    )
    print(report.markdown(found))
    written = report.write(found, out)
    print(f'wrote {", ".join(map(str, written))}')


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
