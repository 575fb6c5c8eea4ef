"""Predict pictures: python tools/predict.py work_dirs/linear_intel/best.pth photo.jpg my_folder"""

import argparse
import sys
from pathlib import Path
from typing import Any

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))
MANY = 16  # pictures: folding a network's norms takes 0.1 s


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write annotated pictures and videos, a list of what was found and a contact sheet.'
    )
    parser.add_argument('checkpoint', help='a Falconet checkpoint (.pth), or a program of tools/export.py')
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help="pictures, folders of pictures, patterns in quotes ('shots/**/*.jpg'), videos, camera:0",
    )
    parser.add_argument(
        '--out', default='predictions', metavar='DIR', help='where to write (default: predictions)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace files there that Falconet did not make'
    )
    parser.add_argument(
        '--score-threshold',
        type=score,
        metavar='S',
        help='detection: leave out what scores less (default: 0.05, drawn from 0.3 on)',
    )
    parser.add_argument(
        '--tiles',
        type=int,
        metavar='N',
        help='cut pictures into overlapping tiles, N along the longer side, and join their answers',
    )
    parser.add_argument(
        '--format',
        choices=('json', 'jsonl', 'csv', 'coco'),
        default='json',
        help='of the list of what was found in pictures (default: json); videos get JSON lines',
    )
    parser.add_argument('--seconds', type=duration, metavar='S', help='video, camera: stop after S seconds')
    parser.add_argument(
        '--engine',
        choices=('auto', 'torch'),
        default='auto',
        help='auto (default): on a CPU OpenVINO computes the network, if it is installed, says what torch '
        'says of the first picture, and there are pictures enough; torch: never',
    )
    parser.add_argument('--device', default='auto', help='auto (default), cpu, cuda, cuda:1, mps')
    return parser.parse_args()


def score(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must lie in 0..1, got {text}')
    return value


def duration(text: str) -> float:
    """Parse a number of seconds above 0."""
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be above 0, got {text}')
    return value


def fit(model: Any, pictures: int | None, engine: str) -> Any:
    """Return a model that predicts so many pictures (None for a video) sooner, where there is one."""
    if engine == 'auto':
        from falconet.deploy.openvino_eval import quicken

        quicken(model, pictures, print)
    if (pictures is None or pictures >= MANY) and model.predictor.network == getattr(model, 'infer', None):
        from falconet.engine.predict.folded import folded

        return folded(model)
    return model


def main() -> None:
    arguments = parse_arguments()
    from falconet.checkpoints.load import load_model
    from falconet.core.errors import UserError
    from falconet.engine.cpu import tune_cpu
    from falconet.engine.predict.files import predict_files
    from falconet.engine.predict.inputs import find_inputs
    from falconet.engine.predict.names import video_names
    from falconet.engine.predict.video import predict_video

    if arguments.checkpoint.endswith('.py'):
        raise UserError(f'{arguments.checkpoint} is a config, whose model is untrained: name a checkpoint')
    tune_cpu()
    inputs = find_inputs(arguments.inputs)  # a misspelt path should not wait for the model
    if arguments.seconds is not None and not inputs.videos:
        raise UserError('--seconds is for videos and cameras, and there are none: leave it out')
    model = load_model(arguments.checkpoint, device=arguments.device)
    model = fit(model, None if inputs.videos else len(inputs.pictures), arguments.engine)
    options = {
        'score_threshold': arguments.score_threshold,
        'tiles': arguments.tiles,
        'overwrite': arguments.overwrite,
    }
    out = Path(arguments.out)
    if inputs.pictures:
        done = predict_files(model, inputs.pictures, out, form=arguments.format, **options)
        print(
            f'{done.pictures} picture{"s" * (done.pictures != 1)} predicted, {len(done.skipped)} skipped; '
            f'see {out}/contact_sheet.png and {done.listing}'
        )
    for source, name in zip(inputs.videos, video_names(inputs.videos), strict=True):
        watched = predict_video(model, source, out, seconds=arguments.seconds, name=name, **options)
        print(f'{watched.frames} frames predicted; see {watched.video} and {watched.lines}')
        if watched.note:
            print(watched.note)


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
