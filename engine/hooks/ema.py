"""Exponential moving average of the weights: a second model, used for validation and deployment."""

from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from falconet.core.errors import UserError


class EMAHook(Hook):
    """Average the weights and norm statistics after every optimiser step.

    slim trains with decay 0.9999 and lets it rise with the step count, as here:
    min(decay, (1 + steps) / (10 + steps)), TensorFlow's `ExponentialMovingAverage(num_updates)`. So a short
    run is averaged over a short past. mmengine's own EMAHook copies tensor by tensor in Python, and
    swaps weights inside checkpoints.

    Args:
        decay: share of the past kept per step, below 1.
    """

    priority = 'NORMAL'

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 < decay < 1:
            raise UserError(f'ema.decay must lie between 0 and 1, got {decay}')
        self.decay = decay
        self.averaged: AveragedModel | None = None

    def before_run(self, runner: Any) -> None:
        if runner.training_loop is not None:
            self.averaged = AveragedModel(runner.bare_model, multi_avg_fn=self._average, use_buffers=True)
            runner.averaged_model = self.averaged.module

    def _average(self, averaged: Any, current: Any, steps: Tensor | int) -> None:
        if not averaged[0].is_floating_point():  # counters
            torch._foreach_copy_(averaged, current)  # type: ignore[attr-defined]
            return
        count = int(steps)
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)  # type: ignore[attr-defined]

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.optim_wrapper.should_update() and self.averaged is not None:
            self.averaged.update_parameters(runner.bare_model)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of averaged steps. The weights are the checkpoint's own."""
        assert self.averaged is not None, 'training has not begun'
        return {'steps': int(self.averaged.n_averaged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up an earlier run's average."""
        assert self.averaged is not None, 'training has not begun'
        self.averaged.n_averaged.fill_(state['steps'])
