"""When checkpoints are written: last.pth to go on from, best.pth to use."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from falconet.checkpoints.file import write_checkpoint
from falconet.core.plain_values import to_plain
from falconet.engine.resume import batches_of

LAST, BEST = 'last.pth', 'best.pth'


class SaveHook(Hook):
    """Write `last.pth` after every epoch and, if asked, in between; `best.pth` when validation improves.

    mmengine's CheckpointHook pickles its own objects and writes in place; see
    open-mmlab/mmengine#1655 and #1520.

    Args:
        description: what every checkpoint says of the model (classes, preprocessing, config, versions).
        every_iters: also write `last.pth` after so many iterations; 0 leaves it at epochs.

    Attributes:
        best: the best primary score so far, None before the first validation.
    """

    priority = 'VERY_LOW'  # after the schedule and EMA have done their step

    def __init__(self, description: dict[str, Any], every_iters: int = 0) -> None:
        self.description = description
        self.every_iters = every_iters
        self.best: float | None = None
        self.metrics: dict[str, float] = {}

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        loop = runner.train_loop
        loop.validated_iter = loop.iter
        self.metrics = {key: float(value) for key, value in (metrics or {}).items()}
        primary = runner.val_loop.evaluator.metrics[0].primary
        score = self.metrics.get(primary)
        if score is None:  # nothing to score, for example images without a single object
            runner.logger.warning(f'this validation has no {primary}: {BEST} is simply the newest')
            self.write(runner, BEST, training=False)
            return
        if self.best is None or score > self.best:
            self.best = score
            runner.logger.info(f'best {primary} so far: {score:.4f}')
            self.write(runner, BEST, training=False)

    def between_iterations(self, runner: Any) -> None:
        """Called by the training loop after an iteration is wholly done."""
        loop = runner.train_loop
        if self.every_iters and loop.iter % self.every_iters == 0 and loop.at_update:
            self.write(runner, LAST)

    def write(self, runner: Any, name: str, *, training: bool = True) -> None:
        """Write a checkpoint into the work dir, in the main process only.

        Args:
            runner: the running mmengine Runner.
            name: file name.
            training: include what `--resume` needs.
        """
        if not is_main_process():
            return
        content = {
            **self.description,
            'state_dict': runner.model_to_use.state_dict(),
            'metrics': self.metrics,
            'epoch': runner.train_loop.epoch,
            'iter': runner.train_loop.iter,
        }
        if training:
            content['training'] = training_state(runner)
        write_checkpoint(content, Path(runner.work_dir) / name)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores so far."""
        return {'best': self.best, 'metrics': self.metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on comparing with an earlier run's best score."""
        self.best, self.metrics = state['best'], state['metrics']


def training_state(runner: Any) -> dict[str, Any]:
    """Return everything `--resume` needs, as plain values."""
    loop = runner.train_loop
    return {
        'epoch': loop.epoch,
        'iter': loop.iter,
        'validated_iter': loop.validated_iter,
        **batches_of(loop.dataloader),
        'max_epochs': loop.max_epochs,
        'stop_training': loop.stop_training,
        # Every draw comes from (seed, iteration, rank): the seed is the whole random state.
        'seed': runner.seed,
        # Those that are trained, where others (their average) are to be used.
        'weights': None if runner.model_to_use is runner.bare_model else runner.bare_model.state_dict(),
        'optimizer': runner.optim_wrapper.state_dict(),
        'schedulers': [_state_of(scheduler) for scheduler in runner.param_schedulers or []],
        'hooks': {name: hook.state_dict() for name, hook in hooks_with_state(runner).items()},
    }


def restore(runner: Any, content: dict[str, Any]) -> None:
    """Put a run back where `last.pth` left it; `content` has been checked by the runner."""
    state = content['training']
    runner.model_to_use.load_state_dict(content['state_dict'])
    if state['weights'] is not None:
        runner.bare_model.load_state_dict(state['weights'])
    runner.optim_wrapper.load_state_dict(state['optimizer'])
    for scheduler, saved in zip(runner.param_schedulers or [], state['schedulers'], strict=True):
        scheduler.load_state_dict(saved)
    for name, hook in hooks_with_state(runner).items():
        if name in state['hooks']:
            hook.load_state_dict(state['hooks'][name])
    runner.train_loop.restore(state)


def hooks_with_state(runner: Any) -> dict[str, Any]:
    """Return the hooks that have a `state_dict`, the user's own included, by a name for each."""
    named: dict[str, Any] = {}
    for hook in runner.hooks:
        if hasattr(hook, 'state_dict') and hasattr(hook, 'load_state_dict'):
            kind = type(hook).__name__
            twins = sum(type(each) is type(hook) for each in named.values())
            named[f'{kind} {twins + 1}' if twins else kind] = hook
    return named


def _state_of(scheduler: Any) -> dict[str, Any]:
    """A scheduler's plain state. Functions among it (annealing curves) are rebuilt from the config."""
    state = {key: value for key, value in scheduler.state_dict().items() if not callable(value)}
    return to_plain(state, where=type(scheduler).__name__)
