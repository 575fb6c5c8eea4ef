"""What a person sees of a run: a progress bar on a terminal, plain lines everywhere else.

The log file gets everything. The console leaves out what mmengine says about itself (its environment,
hooks, parameter groups), which would bury the two lines that matter.
"""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, logger_hook
from mmengine.registry import HOOKS

MMENGINE = Path(mmengine.__file__).parent
# Where the lines of losses and scores come from.
PERIODIC_FILES = (Path(logger_hook.__file__), Path(__file__))


@HOOKS.register_module()
class ProgressHook(Hook):
    """A rich progress bar with losses, accuracy, learning rate and the time left, on a terminal."""

    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None

    def before_train_epoch(self, runner: Any) -> None:
        loop = runner.train_loop
        epoch_start = loop.epoch * len(loop.dataloader)
        self._open(
            f'epoch {loop.epoch + 1}/{loop.max_epochs}',
            total=len(loop.dataloader),
            completed=loop.iter - epoch_start,
        )

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._progress is None:
            return
        rate = runner.optim_wrapper.get_lr()['lr'][0]
        parts = [f'{key} {float(value):.3f}' for key, value in _short(outputs).items()]
        self._progress.update(self._task, advance=1, note=' '.join([*parts, f'lr {rate:.1e}']))

    def after_train_epoch(self, runner: Any) -> None:
        self.close()

    def before_val_epoch(self, runner: Any) -> None:
        self._open('evaluating', total=len(runner.val_loop.dataloader))

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._progress is not None:
            self._progress.update(self._task, advance=1)

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        self.close()

    def _open(self, description: str, *, total: int, completed: int = 0) -> None:
        self.close()
        if not on_terminal():
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn('{task.fields[note]}'),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task(description, total=total, completed=completed, note='')

    def close(self) -> None:
        """Take the bar off the terminal, which gets its cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@HOOKS.register_module()
class LineHook(logger_hook.LoggerHook):
    """mmengine's lines of losses and scores, without the experiment's name after every epoch."""

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        batches = len(runner.train_dataloader)
        is_short_rest = batch_idx + 1 == batches and (not self.ignore_last or batches <= self.interval)
        if self.every_n_inner_iters(batch_idx, self.interval) or is_short_rest:
            tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')
            runner.logger.info(line)
            runner.visualizer.add_scalars(tag, step=runner.iter + 1, file_path=self.json_log_path)


def _short(outputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The total loss and what is no loss: the parts of the loss are in the log."""
    outputs = outputs or {}
    return {key: value for key, value in outputs.items() if key == 'loss' or 'loss' not in key}


def on_terminal() -> bool:
    """Whether a person is watching this process."""
    return sys.stdout.isatty() and is_main_process()


class ConsoleHandler(logging.StreamHandler):
    """Writes to whatever `sys.stdout` is now, so that lines appear above a live progress bar."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(logging.Formatter('%(message)s'))
        self.addFilter(_belongs_on_console)
        self.setLevel(logging.INFO if is_main_process() else logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def _belongs_on_console(record: logging.LogRecord) -> bool:
    source = Path(record.pathname)
    if source in PERIODIC_FILES:
        return not on_terminal()
    return record.levelno >= logging.ERROR or not source.is_relative_to(MMENGINE)
