"""Take a checkpoint out of Python: python tools/export.py work_dirs/linear_intel/best.pth --to onnx"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a checkpoint as a program of its own, pictures in and answers out, and compare '
        'the two. See docs/deploy.md.'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a Kestrel checkpoint (.pth)')
    parser.add_argument(
        '--to', required=True, metavar='FORMAT[,FORMAT]', help='torch (.pt2), onnx (.onnx), openvino (.xml)'
    )
    parser.add_argument('--out', metavar='DIR', help='where to write (default: beside the checkpoint)')
    parser.add_argument(
        '--size',
        type=picture_size,
        metavar='HxW',
        help='take pictures of this size and resize them inside (default: pictures that were resized before)',
    )
    parser.add_argument(
        '--batch',
        type=batch_size,
        default=None,
        metavar='N|dynamic',
        help='pictures at a time (default: dynamic, any number)',
    )
    parser.add_argument('--raw', action='store_true', help="end at the head's outputs, without decoding")
    parser.add_argument(
        '--check', nargs='+', default=[], metavar='INPUT', help='pictures and folders to compare on'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace files there that Kestrel did not make'
    )
    parser.add_argument('--data-root', metavar='DIR', help='also score the files on the data that lies there')
    return parser.parse_args()


def picture_size(text: str) -> tuple[int, int]:
    """Parse 'HxW'."""
    height, _, width = text.lower().partition('x')
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'must be HEIGHTxWIDTH in pixels, as 480x640, got {text!r}')
    return int(height), int(width)


def batch_size(text: str) -> int | None:
    """Parse a whole number above 0, or 'dynamic', which is None."""
    if text == 'dynamic':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 'dynamic' or a whole number above 0, got {text!r}")
    return int(text)


def main() -> None:
    arguments = parse_arguments()
    from deploy.export import export

    written = export(
        arguments.checkpoint,
        arguments.to.split(','),
        out=Path(arguments.out) if arguments.out else Path(arguments.checkpoint).expanduser().parent,
        size=arguments.size,
        batch=arguments.batch,
        raw=arguments.raw,
        check=arguments.check,
        data_root=arguments.data_root,
        overwrite=arguments.overwrite,
    )
    for each in written:
        apart = ', '.join(f'{name} {value:.2g}' for name, value in each.measured.items())
        scores = ''.join(f'; {name} {value:.4f}' for name, value in each.scores.items())
        print(f'{each.path}  {each.size / 1e6:.1f} MB; differs from the checkpoint by {apart}{scores}')
    print(f'see {written[0].path.parent}/model_card.md')


if __name__ == '__main__':
    from tasks.errors import run_command

    run_command(main)
