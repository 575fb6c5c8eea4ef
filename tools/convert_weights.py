"""Convert weights: python tools/convert_weights.py keras/mobilenet_v2_0.5_160 mobilenet_v2_0.5_160.pth"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write weights of any project as a Falconet checkpoint, or in another project's layout.",
        epilog='With --list, prints every name that SOURCE may be.',
    )
    parser.add_argument(
        'source',
        nargs='?',
        metavar='SOURCE',
        help='a name of published weights, a weight file (.pth, .safetensors, .h5, .npz, .tflite, a '
        'TensorFlow checkpoint), or a Falconet checkpoint',
    )
    parser.add_argument(
        'out', nargs='?', metavar='OUT', help='file to write: .pth, .h5 for keras, .npz for slim'
    )
    parser.add_argument(
        '--to',
        default='falconet',
        metavar='LAYOUT',
        help='falconet (default), torchvision, timm, d-li14, tonylins, transformers, keras or slim',
    )
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='class names in order, or one file with a name per line'
    )
    parser.add_argument('--config', help='config of the model, where the weights do not say all of it')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change that config, for example model.backbone.width=0.5',
    )
    parser.add_argument(
        '--resolution',
        type=positive,
        metavar='PIXELS',
        help='side of the pictures (default: as published, or 224)',
    )
    parser.add_argument(
        '--drop-background',
        action='store_true',
        help="take away the first class of TensorFlow's 1001, so that the file scores on ImageNet's 1000",
    )
    parser.add_argument(
        '--pooled-branch',
        choices=('first', 'second'),
        help="which of a folded DeepLab's two 1x1 branches reads the picture's mean, in the order they run "
        '(default: found by trying both)',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace OUT where there is one')
    parser.add_argument('--list', action='store_true', help='list the names of published weights and stop')
    arguments = parser.parse_args()
    if not arguments.list and (arguments.source is None or arguments.out is None):
        parser.error('SOURCE and OUT are needed')
    return arguments


def positive(text: str) -> int:
    """Return a whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    arguments = parse_arguments()
    if arguments.list:
        from falconet.backbones.weights.published import NAMED

        for name, weights in NAMED.items():
            score = f'top-1 {weights.top1:.1f}' if weights.top1 else 'no published score'
            print(f'{name:36} {weights.resolution} px, {weights.num_classes} classes, {score}  {weights.url}')
        return
    from falconet.checkpoints.convert import convert
    from falconet.datasets.classes import read_names
    from falconet.tasks.build import load_config

    classes = arguments.classes
    if classes is not None and len(classes) == 1 and Path(classes[0]).is_file():
        classes = read_names(Path(classes[0]))
    done = convert(
        arguments.source,
        Path(arguments.out),
        layout=arguments.to,
        classes=classes,
        config=None if arguments.config is None else load_config(arguments.config, arguments.cfg_options),
        resolution=arguments.resolution,
        without_background=arguments.drop_background,
        pooled_branch=arguments.pooled_branch,
        overwrite=arguments.overwrite,
    )
    print(f'wrote {done}')


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
