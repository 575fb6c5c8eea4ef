"""Train with the loop in the open: python tools/plain_train.py configs/linear_intel.py

Data, model, losses, optimiser and schedule are those of tools/train.py; one process. Left out: mixing,
EMA, distillation, resume, early stopping, validation, bfloat16, logs and reports.
"""

import argparse
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def build(config, root=None):
    """Return the model, and the loader of what it learns from."""
    from falconet.engine.builders import stage_loader
    from falconet.engine.device import pick_device
    from falconet.engine.seeding import seed_everything
    from falconet.tasks.build import build_dataset, build_model, data_root

    seed, folder = config.get('seed', 0), data_root(config, root)
    seed_everything(seed)
    dataset = build_dataset(config, 'train_dataloader', root=folder, classes=None, seed=seed)
    model = build_model(config, classes=dataset.classes, training=dataset).to(pick_device())
    dataset.fill_with(model.normalise.mean_pixel)
    return model, stage_loader(config, 'train_dataloader', dataset, seed)


def steps(config, model, loader):
    """Train as a config says; yield the losses of every step."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import PARAM_SCHEDULERS

    from falconet.core.plain_values import plain
    from falconet.engine.schedule import schedule_of
    from falconet.engine.seeding import seed_everything

    epochs, step = config.train_cfg.max_epochs, 0
    # mmengine's wrapper knows what a config says of single parameters, of clipping and of accumulation.
    optimiser = build_optim_wrapper(model, {'type': 'OptimWrapper', **plain(config.optim_wrapper)})
    optimiser.initialize_count_status(model, 0, epochs * len(loader))
    entries = schedule_of(plain(config), iters_per_epoch=len(loader))
    schedule = [PARAM_SCHEDULERS.build({'optimizer': optimiser, **entry}) for entry in entries]
    for loader.sampler.epoch in range(epochs):
        model.train()
        for batch in loader:
            seed_everything(config.get('seed', 0), step, 0)  # dropout, by the step's number
            with optimiser.optim_context(model):
                losses = model(**model.data_preprocessor(batch, True), mode='loss')
            total, losses = model.parse_losses(losses)
            optimiser.update_params(total)  # backward, clip, step
            step += 1
            for part in schedule:
                if not part.by_epoch or step % len(loader) == 0:
                    part.step()
            yield losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--data-root', metavar='DIR')
    parser.add_argument('--out', default='plain.pth', help='checkpoint to write (default: plain.pth)')
    arguments = parser.parse_args()
    from falconet import load_config
    from falconet.checkpoints.file import describe, write_checkpoint

    config = load_config(arguments.config)
    model, loader = build(config, arguments.data_root)
    for step, losses in enumerate(steps(config, model, loader)):
        if step % 10 == 0:
            print(step, {name: float(value.detach()) for name, value in losses.items()}, flush=True)
    write_checkpoint(describe(model, config) | {'state_dict': model.state_dict()}, Path(arguments.out))


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
