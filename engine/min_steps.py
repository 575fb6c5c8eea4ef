"""Whether a run is long enough for its data, said before it starts.

What a network learns from a small set depends on the number of optimiser steps far more than on the number of
epochs. A config of fine-tuning states in `min_steps` with how many its recipe was seen to work.
"""

import math

from mmengine.config import Config


def too_short(config: Config, *, iters_per_epoch: int) -> str | None:
    """Return a warning where a run takes fewer optimiser steps than its config's `min_steps`, else None.

    Args:
        config: of the run.
        iters_per_epoch: batches that a process sees in an epoch.
    """
    least, epochs = int(config.get('min_steps', 0)), int(config.train_cfg.max_epochs)
    every = int(config.optim_wrapper.get('accumulative_counts', 1))
    steps = math.ceil(epochs * iters_per_epoch / every)
    if steps >= least:
        return None
    enough = math.ceil(least * every / iters_per_epoch)
    return (
        f'this run is short for its data: {epochs} epochs of {iters_per_epoch} batches are {steps} optimiser '
        f'steps, and this recipe needs about {least} (min_steps). --epochs {enough} would do'
    )
