"""Predict pictures: python tools/predict.py work_dirs/linear_intel/best.pth photo.jpg my_folder"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write annotated pictures, predictions.json and a contact sheet.'
    )
    parser.add_argument('checkpoint', help='a Kestrel checkpoint (.pth), or a program of tools/export.py')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='pictures and folders of pictures')
    parser.add_argument(
        '--out', default='predictions', metavar='DIR', help='where to write (default: predictions)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace files there that Kestrel did not make'
    )
    parser.add_argument(
        '--score-threshold',
        type=score,
        metavar='S',
        help='detection: leave out what scores less (default: draw from 0.3 on, write everything)',
    )
    return parser.parse_args()


def score(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must lie in 0..1, got {text}')
    return value


def main() -> None:
    arguments = parse_arguments()
    from tasks.checkpoints.load import load_model
    from tasks.data.folders import find_images
    from tasks.predict import predict_files
    from tasks.training.device import pick_device

    find_images(arguments.inputs)  # a misspelt path should not wait for the model
    model = load_model(arguments.checkpoint, device=pick_device())
    done = predict_files(
        model,
        arguments.inputs,
        Path(arguments.out),
        score_threshold=arguments.score_threshold,
        overwrite=arguments.overwrite,
    )
    print(
        f'{done.pictures} pictures predicted, {len(done.skipped)} skipped; '
        f'see {arguments.out}/contact_sheet.png and {arguments.out}/predictions.json'
    )


if __name__ == '__main__':
    from tasks.errors import run_command

    run_command(main)
