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
    parser.add_argument('checkpoint', help='a Kestrel checkpoint (.pth)')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='pictures and folders of pictures')
    parser.add_argument(
        '--out', default='predictions', metavar='DIR', help='where to write (default: predictions)'
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from tasks.loading import load_model
    from tasks.prediction import find_images, predict_files
    from tasks.runtime.device import pick_device

    find_images(arguments.inputs)  # a misspelt path should not wait for the model
    model = load_model(arguments.checkpoint, device=pick_device())
    report = predict_files(model, arguments.inputs, Path(arguments.out))
    print(
        f'{len(report["predictions"])} pictures predicted, {len(report["skipped"])} skipped; '
        f'see {arguments.out}/contact_sheet.png and {arguments.out}/predictions.json'
    )


if __name__ == '__main__':
    from tasks.errors import run_command

    run_command(main)
