"""Pictures that grow during a run: small at first, where a step costs a fraction.

What `augment` makes of a picture is shrunk, whatever the task: the same crop and the same colours with fewer
pixels. The last part of a run sees it as it is, which the size that is scored belongs to (FixRes, arXiv
1906.06423; growing sizes: EfficientNetV2, arXiv 2104.00298). A batch's size depends on its place in the run
alone, so it is the same with any number of loading processes and after `--resume`.
"""

from typing import Any, NamedTuple

from mmengine.config import Config

from falconet.core.errors import UserError
from falconet.core.plain_values import plain
from falconet.datasets.loader import EpochSampler, Loader
from falconet.datasets.samples import Sample, SampleKey


class Stage(NamedTuple):
    """A part of a run.

    Attributes:
        begin: the iteration it begins with, counted from 0.
        side: of the pictures, the shorter one, in pixels.
    """

    begin: int
    side: int


class Resolution:
    """Which size the pictures of a batch have.

    Args:
        stages: in order, from iteration 0 to the pictures' own size.
        batch_size: of a process.
        iters_per_epoch: batches of an epoch.
    """

    def __init__(self, stages: list[Stage], *, batch_size: int, iters_per_epoch: int) -> None:
        self.stages = stages
        self.batch_size, self.iters_per_epoch = batch_size, iters_per_epoch

    def side_of(self, epoch: int, before: int) -> int | None:
        """Return what to shrink a sample to; None where it stays as it is.

        Args:
            epoch: which pass over the data.
            before: how many of the process's samples of that pass come before.
        """
        iteration = epoch * self.iters_per_epoch + before // self.batch_size
        stage = max((each for each in self.stages if each.begin <= iteration), key=lambda each: each.begin)
        return None if stage is self.stages[-1] else stage.side

    def __str__(self) -> str:
        first, *others = self.stages
        return ', '.join(
            [f'{first.side} px', *(f'{each.side} px from iteration {each.begin + 1} on' for each in others)]
        )


def resolution_of(config: Config, loader: Loader) -> Resolution | None:
    """Have a loader's pictures grow as a config's `resolution` says; None where it says nothing.

    Args:
        config: with `train_cfg.max_epochs`.
        loader: of the training; its sampler is told.

    Raises:
        UserError: the pictures are no larger than those to start with, or the run is too short.
    """
    entry = plain(config.get('resolution'))
    if not entry:
        return None
    sampler, batch_size = loader.sampler, loader.batch_size
    assert isinstance(sampler, EpochSampler)
    assert batch_size is not None
    total = int(config.train_cfg.max_epochs) * len(loader)
    stages = stages_of(entry, end=_own_side(loader.dataset), total=total)
    resolution = Resolution(stages, batch_size=batch_size, iters_per_epoch=len(loader))
    sampler.side_of = resolution.side_of
    return resolution


def stages_of(entry: dict[str, Any], *, end: int, total: int) -> list[Stage]:
    """Return the stages of a run.

    Args:
        entry: `start` (side in pixels), `until` (where the pictures reach their own size: iterations, or
            below 1 a share of the run) and `step` (pixels by which they grow at a time).
        end: side of the pictures that `augment` makes.
        total: iterations of the run.
    """
    start, until, step = entry['start'], entry.get('until', 0.5), entry.get('step', 32)
    if start >= end:
        raise UserError(
            f'resolution.start={start}: the pictures of train_dataloader have a shorter side of {end} px as '
            'augment makes them, which they grow to: start with fewer'
        )
    iterations = round(until * total) if isinstance(until, float) else until
    sides = [*range(start, end, step), end]
    if not len(sides) - 1 <= iterations < total:
        raise UserError(
            f'resolution.until={until}: {len(sides) - 1} sizes below {end} px ({start} px, then {step} more '
            f'each time) in {iterations} of {total} iterations do not go. Give a share of the run (0.5), a '
            'larger step, or train longer'
        )
    return [Stage(index * iterations // (len(sides) - 1), side) for index, side in enumerate(sides)]


def _own_side(dataset: Any) -> int:
    """Return the shorter side of the pictures that a training set makes; in a batch all have one size."""
    sample = dataset[SampleKey(0, 0)]
    assert isinstance(sample, Sample), 'in training another picture takes the place of one that is unreadable'
    return min(sample.image.shape[:2])
