"""Training from scratch: float32 until bfloat16 computes the same gradient.

The batch norms of an untrained network amplify rounding. At the first step of the demo's classifier the
bfloat16 gradient has a cosine of 0.3 to 0.5 to the float32 one, whichever tensors are kept wide as long as
one of the forward pass is not; after some hundred steps it is above 0.95 by itself. So both are computed for
one batch in fifty, and once they agree the run goes on in bfloat16 for good.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from torch import Tensor

from falconet.engine.seeding import seed_everything
from falconet.tasks.model import NonFiniteLossError, VisionModel

EVERY = 50  # iterations between two comparisons; one costs as much as two steps
AGREED = 0.95  # cosine


class PrecisionHook(Hook):
    """Begin in float32 and go on in bfloat16.

    Attributes:
        since: iteration from which the run is in bfloat16, None before.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.since: int | None = None

    def before_train(self, runner: Any) -> None:
        runner.optim_wrapper.enabled = self.since is not None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.since is not None or runner.iter % EVERY:
            return
        cosine = agreement(runner, data_batch)
        if cosine < AGREED:
            return
        self.since, runner.optim_wrapper.enabled = runner.iter, True
        runner.logger.info(
            f'precision: bfloat16 from iteration {runner.iter + 1} on, where its gradient has a cosine of '
            f'{cosine:.3f} to the one in float32'
        )

    def state_dict(self) -> dict[str, Any]:
        """Return since when the run is in bfloat16."""
        return {'since': self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the same precision."""
        self.since = state['since']


def agreement(runner: Any, batch: Mapping[str, Any]) -> float:
    """Return the cosine between a batch's gradients in bfloat16 and in float32, the main process's for all.

    The model, its statistics and the state of all random numbers are as before.
    """
    model: VisionModel = runner.bare_model
    kept = [buffer.clone() for buffer in model.buffers()]
    gradients: list[list[Tensor]] = []
    for in_bfloat16 in (False, True):
        seed_everything(runner.seed, runner.iter, runner.rank)
        try:
            gradients.append(_gradient(model, batch, in_bfloat16=in_bfloat16))
        except NonFiniteLossError:
            if not in_bfloat16:
                raise
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), kept, strict=True):
                buffer.copy_(value)
    seed_everything(runner.seed, runner.iter, runner.rank)
    cosine = torch.tensor([_cosine(*gradients) if len(gradients) == 2 else -1.0], device=model.device)
    broadcast(cosine)
    return float(cosine)


def _gradient(model: VisionModel, batch: Mapping[str, Any], *, in_bfloat16: bool) -> list[Tensor]:
    data = model.data_preprocessor(dict(batch), True)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=in_bfloat16):
        losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    parameters = [each for each in model.parameters() if each.requires_grad]
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return [
        torch.zeros_like(one) if each is None else each for one, each in zip(parameters, found, strict=True)
    ]


def _cosine(ones: list[Tensor], others: list[Tensor]) -> float:
    """Of two gradients; 0 where one of them vanishes."""

    def product(left: list[Tensor], right: list[Tensor]) -> float:
        pairs = zip(left, right, strict=True)
        return sum(float(torch.sum(one.double() * other.double())) for one, other in pairs)

    lengths = product(ones, ones) * product(others, others)
    return product(ones, others) / lengths**0.5 if lengths > 0 else 0.0
