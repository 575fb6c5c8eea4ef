"""Train a model as a config says: python tools/train.py configs/linear_intel.py"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model as a config says.')
    parser.add_argument('config', help='config file, for example configs/linear_intel.py')
    parser.add_argument(
        '--data-root', metavar='DIR', help="where the data lies, instead of the config's place"
    )
    parser.add_argument(
        '--work-dir', metavar='DIR', help='where everything is written (default: work_dirs/<config name>)'
    )
    parser.add_argument(
        '--data-format',
        metavar='NAME',
        help="format of one's own data, where a folder holds several (coco, voc, yolo, csv, labelme, masks, "
        'folders)',
    )
    parser.add_argument('--epochs', type=int, metavar='N', help='length of the run; the schedule follows it')
    parser.add_argument(
        '--batch-size',
        type=int,
        metavar='N',
        help='pictures in a training batch, per process; the learning rate is scaled with it, linearly',
    )
    parser.add_argument(
        '--init',
        metavar='FILE',
        help='start from a Falconet checkpoint (all its weights), or from a backbone in any file of weights',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        metavar='CKPT',
        help="go on from the work dir's last.pth, or from CKPT; begins anew when there is none",
    )
    parser.add_argument(
        '--amp',
        choices=('auto', 'off'),
        help='bfloat16 autocast where the hardware has it, or never (default: auto)',
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help="do not look for faults in folders of one's own data first",
    )
    parser.add_argument('--seed', type=int, metavar='N', help='seed of all randomness (default: 0)')
    parser.add_argument(
        '--threads',
        metavar='N|auto',
        help='threads to compute with; auto leaves out cores that other programs keep busy at the start '
        "(default: as many as the run began with, or torch's own number)",
    )
    parser.add_argument(
        '--kernels',
        choices=('fused', 'torch'),
        help='on a CPU: batch norms and activations as one (needs Numba), or as torch computes them '
        '(default: as the run began, or fused)',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='what started the processes; torchrun is pytorch',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change the config, for example model.backbone.width=0.5',
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from falconet import load_config, train
    from falconet.engine.cli_overrides import set_batch_size, set_epochs, set_start
    from falconet.engine.held_out import with_format

    config = load_config(arguments.config, arguments.cfg_options)
    if arguments.amp is not None:
        config.amp = arguments.amp
    if arguments.seed is not None:
        config.seed = arguments.seed
    notes = [
        change(config, value)
        for change, value in (
            (with_format, arguments.data_format),
            (set_epochs, arguments.epochs),
            (set_batch_size, arguments.batch_size),
            (set_start, arguments.init),
        )
        if value is not None
    ]
    train(
        config,
        root=arguments.data_root,
        work_dir=arguments.work_dir,
        resume=arguments.resume,
        launcher=arguments.launcher,
        threads=arguments.threads,
        kernels=arguments.kernels,
        notes=notes,
        check=not arguments.no_check,
    )


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
