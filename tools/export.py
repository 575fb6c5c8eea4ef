"""Take a checkpoint out of Python: python tools/export.py work_dirs/linear_intel/best.pth --to onnx"""

import argparse
import sys
from pathlib import Path
from typing import Any

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a checkpoint as a program of its own, pictures in and answers out, and compare '
        'the two. See docs/deploy.md.'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a Falconet checkpoint (.pth)')
    parser.add_argument(
        '--to',
        required=True,
        metavar='FORMAT[,FORMAT]',
        help='torch (.pt2), onnx (.onnx), openvino (.xml), litert (.tflite), executorch (.pte), coreml '
        '(.mlpackage), web (a folder, for browsers)',
    )
    parser.add_argument('--out', metavar='DIR', help='where to write (default: beside the checkpoint)')
    parser.add_argument(
        '--size',
        type=picture_size,
        metavar='HxW|any',
        help='take pictures of this size, or one at a time of any size, and resize them inside (default: '
        'pictures that were resized before)',
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
        '--overwrite', action='store_true', help='replace files there that Falconet did not make'
    )
    parser.add_argument(
        '--web-runtime',
        metavar='PATH',
        help="for web, needed once: npm's archive or folder of it (npm pack onnxruntime-web@1.30.0)",
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='also score the files on the data that lies there (with --int8 they always are, by '
        "default where the checkpoint's config says)",
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help='weights and maps in eight bits (onnx, openvino, litert); refused where that costs too much',
    )
    parser.add_argument(
        '--calibration',
        type=count,
        metavar='N',
        help='with --int8: pictures of the training data to measure ranges on (default: 300)',
    )
    parser.add_argument(
        '--calibrate-on',
        nargs='+',
        metavar='INPUT',
        help='with --int8: pictures and folders to draw them from',
    )
    parser.add_argument(
        '--max-drop',
        type=points,
        metavar='POINTS',
        help='with --int8: hundredths of the score that may be lost (default: 1.0)',
    )
    parser.add_argument(
        '--qat',
        type=count,
        metavar='EPOCHS',
        help="with --int8: train so many epochs more in eight bits first, as the checkpoint's config says",
    )
    parser.add_argument(
        '--memory',
        metavar='SIZE',
        help='compute in so much memory for activations, as 300KB: in patches and slices, see docs/memory.md',
    )
    return parser.parse_args()


def picture_size(text: str) -> Any:
    """Parse 'HxW', or 'any', which stays as it is."""
    if text == 'any':
        return text
    height, _, width = text.lower().partition('x')
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH in pixels, as 480x640, or 'any', got {text!r}"
        )
    return int(height), int(width)


def batch_size(text: str) -> int | None:
    """Parse a whole number above 0, or 'dynamic', which is None."""
    if text == 'dynamic':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 'dynamic' or a whole number above 0, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number above 0, got {text!r}')
    return int(text)


def points(text: str) -> float:
    """Parse points of a score, 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:  # which not-a-number is not either
        raise argparse.ArgumentTypeError(f'must be a number of points, 0 to 100, got {text!r}')
    return value


def int8_of(arguments: argparse.Namespace) -> Any:
    """Return how to quantise, or None for float32."""
    from falconet.core.errors import UserError
    from falconet.deploy.int8.calibration import Int8

    given = {
        'pictures': arguments.calibration,
        'inputs': arguments.calibrate_on,
        'max_drop': arguments.max_drop,
        'epochs': arguments.qat,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and not arguments.int8:
        raise UserError('--calibration, --calibrate-on, --max-drop and --qat go with --int8: add it')
    return Int8(**given) if arguments.int8 else None


def main() -> None:
    arguments = parse_arguments()
    from falconet.core.errors import UserError
    from falconet.deploy.export import export
    from falconet.deploy.memory.sizes import memory_size

    int8 = int8_of(arguments)
    formats = arguments.to.split(',')
    if int8 is not None and 'web' in formats:
        raise UserError('the format web has no INT8 here; those that have: onnx, openvino, litert')
    common = {
        'out': Path(arguments.out) if arguments.out else Path(arguments.checkpoint).expanduser().parent,
        'check': arguments.check,
        'data_root': arguments.data_root,
        'overwrite': arguments.overwrite,
    }
    if arguments.memory is not None and 'web' in formats:
        raise UserError('a page for browsers keeps to no amount of memory: leave web or --memory out')
    files = [each for each in formats if each != 'web']
    written, page = [], None
    if len(files) < len(formats):
        from falconet.deploy.web_format import check_options, export_page

        check_options(size=arguments.size, batch=arguments.batch, raw=arguments.raw)
        page = export_page(arguments.checkpoint, runtime=arguments.web_runtime, **common)
    if files:
        written = export(
            arguments.checkpoint,
            files,
            size=arguments.size,
            batch=arguments.batch,
            raw=arguments.raw,
            int8=int8,
            memory=None if arguments.memory is None else memory_size(arguments.memory),
            **common,
        )
    written += [page] if page else []
    for each in written:
        if int8 is not None:
            (name, value), lost = next(iter(each.scores.items())), each.lost
            print(f'{each.path}  {each.size / 1e6:.1f} MB; {name} {value:.4f}, {lost:.2f} points lost')
            continue
        if not each.measured:
            print(f"{each.path}  {each.size / 1e6:.1f} MB; not compared: it runs on Apple's systems only")
            continue
        apart = ', '.join(f'{name} {value:.2g}' for name, value in each.measured.items())
        scores = ''.join(f'; {name} {value:.4f}' for name, value in each.scores.items())
        print(f'{each.path}  {each.size / 1e6:.1f} MB; differs from the checkpoint by {apart}{scores}')
    for folder in dict.fromkeys(each.path if each is page else each.path.parent for each in written):
        print(f'see {folder}/model_card.md')
    if page:
        print(
            f'to look at the page: python -m http.server --directory {page.path} 8000, and http://localhost:8000'
        )


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
