"""Score a checkpoint on its data: python tools/test.py work_dirs/linear_intel/best.pth"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score a checkpoint on its data.')
    parser.add_argument(
        'source',
        metavar='CHECKPOINT_OR_CONFIG',
        help='a Kestrel checkpoint (.pth), a program of tools/export.py, or a config (.py)',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='CKPT',
        help="weights for a config: a Kestrel checkpoint, or another project's file (.pth, .npz)",
    )
    parser.add_argument(
        '--data-root', metavar='DIR', help="where the data lies, instead of the config's place"
    )
    parser.add_argument(
        '--out', metavar='metrics.json', help='write the scores there, and pictures beside it'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='let --out replace files that Kestrel did not make'
    )
    parser.add_argument(
        '--engine',
        choices=('onnx', 'openvino'),
        help='compute with this engine on the CPU: export the checkpoint, once, and score that',
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


def main() -> None:
    arguments = parse_arguments()
    from tasks import evaluate, load_config
    from tasks.errors import UserError
    from tasks.training.cpu import tune_cpu
    from tasks.training.seeding import seed_everything

    tune_cpu()
    seed_everything(0)

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
    if arguments.engine is not None:
        from deploy.export import converted

        checkpoint = str(converted(checkpoint, arguments.engine))
        print(f'engine {arguments.engine}: {checkpoint}')
    evaluate(
        config,
        checkpoint=checkpoint,
        root=arguments.data_root,
        out=arguments.out,
        multi_scale=arguments.multi_scale,
        overwrite=arguments.overwrite,
        verbose=True,
    )


if __name__ == '__main__':
    from tasks.errors import run_command

    run_command(main)
