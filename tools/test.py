"""Score a checkpoint on its data: python tools/test.py work_dirs/linear_intel/best.pth"""

import argparse
import sys
from pathlib import Path
from typing import Any

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score a checkpoint on its data.')
    parser.add_argument(
        'source',
        metavar='CHECKPOINT_OR_CONFIG',
        help='a Falconet checkpoint (.pth), a program of tools/export.py, or a config (.py)',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='CKPT',
        help="weights for a config: a Falconet checkpoint, or another project's file (.pth, .npz)",
    )
    parser.add_argument(
        '--data-root', metavar='DIR', help="where the data lies, instead of the config's place"
    )
    parser.add_argument(
        '--data-format', metavar='NAME', help="format of one's own data, where a folder holds several"
    )
    parser.add_argument(
        '--out',
        metavar='metrics.json',
        help='write the scores there, pictures and report.html beside it (without it: report.html only, into '
        'the folder test beside the checkpoint)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='let --out replace files that Falconet did not make'
    )
    parser.add_argument(
        '--engine',
        choices=('auto', 'torch', 'onnx', 'openvino'),
        default='auto',
        help='auto (default): on a CPU OpenVINO computes the network, if it is installed, says what torch '
        'says of the first batch, and there are pictures enough; torch: never; onnx, openvino: export '
        'the checkpoint, once, and score that',
    )
    parser.add_argument(
        '--multi-scale',
        action='store_true',
        help='segmentation: average six scales (0.5 to 1.75) and their mirror images, 12 passes an image',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change the config (with a config only)',
    )
    return parser.parse_args()


def place_of(source: str, config: Any) -> Path:
    """Return the folder of the run that a checkpoint or a config belongs to."""
    if config is None:
        return Path(source).parent
    return Path(config.get('work_dir') or f'work_dirs/{Path(source).stem}')


def main() -> None:
    arguments = parse_arguments()
    from falconet import evaluate, load_config
    from falconet.core.errors import UserError
    from falconet.engine.cpu import tune_cpu
    from falconet.engine.seeding import seed_everything
    from falconet.tasks.build import find_config

    tune_cpu()
    seed_everything(0)

    if not Path(arguments.source).suffix and not Path(arguments.source).exists():
        arguments.source = str(find_config(arguments.source))  # the name of one of the project's own
    if arguments.source.endswith('.py'):
        config, checkpoint = load_config(arguments.source, arguments.cfg_options), arguments.checkpoint
        if checkpoint is None:
            raise UserError('a config alone has an untrained head: add --checkpoint CKPT')
    elif arguments.checkpoint is not None:
        raise UserError('--checkpoint goes with a config; a checkpoint as first argument needs nothing else')
    elif arguments.cfg_options:
        raise UserError('--cfg-options goes with a config: tools/test.py CONFIG --checkpoint CKPT')
    else:
        config, checkpoint = None, arguments.source
    quicken = None
    if arguments.engine == 'auto':
        from falconet.deploy.openvino_eval import quick_network as quicken
    elif arguments.engine != 'torch':
        from falconet.deploy.export import converted

        checkpoint = str(converted(checkpoint, arguments.engine))
        print(f'engine {arguments.engine}: {checkpoint}')
    evaluate(
        config,
        checkpoint=checkpoint,
        root=arguments.data_root,
        out=arguments.out,
        page=None if arguments.out else place_of(arguments.source, config) / 'test' / 'report.html',
        multi_scale=arguments.multi_scale,
        quicken=quicken,
        overwrite=arguments.overwrite,
        data_format=arguments.data_format,
        verbose=True,
    )


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
