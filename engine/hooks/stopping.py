"""Stopping: early, when validation no longer improves; or on request, after saving."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook

from falconet.core.errors import UserError, closest


class EarlyStopping(Hook):
    """Stop when the score has not risen for a while. (mmengine's hook takes an equal score for a rise.)

    Args:
        patience: validations without improvement before training stops.
        min_delta: what counts as an improvement.
        monitor: name of the score; by default the task's primary one.

    Attributes:
        best_score: the best score so far, None before the first validation.
        wait_count: validations since then.
    """

    priority = 'LOWEST'

    def __init__(self, patience: int = 5, min_delta: float = 0.0, monitor: str | None = None) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self.best_score: float | None = None
        self.wait_count = 0

    def before_train(self, runner: Any) -> None:
        if self.monitor is not None and self.monitor not in (
            scores := runner.val_loop.evaluator.metrics[0].scores
        ):
            raise UserError(
                f'early_stopping.monitor: no score {self.monitor!r}. {closest(self.monitor, scores)}'
            )

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        name = self.monitor or runner.val_loop.evaluator.metrics[0].primary
        if not metrics or name not in metrics:  # nothing to score, for example images without a single object
            runner.logger.warning(f'this validation has no {name}: it does not count for early stopping')
            return
        if self.best_score is None or metrics[name] > self.best_score + self.min_delta:
            self.best_score, self.wait_count = float(metrics[name]), 0
            return
        self.wait_count += 1
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            runner.logger.info(
                f'{name} has not risen above {self.best_score:.4f} for {self.patience} validations'
            )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the waiting has come."""
        return {'wait_count': self.wait_count, 'best_score': self.best_score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on waiting."""
        self.wait_count, self.best_score = state['wait_count'], state['best_score']


# One request can arrive twice: `timeout` signals its command and then the command's group.
SAME_REQUEST_SECONDS = 1.0


class StopRequest:
    """Remembers that Ctrl-C or SIGTERM came, so that the loop can save first.

    The same signal once more, after at least a second, is immediate.

    Attributes:
        signal_number: the signal, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals within the block. Only the main thread of a program may do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        earlier = {int(number): signal.getsignal(number) for number in wanted}
        first: dict[int, float] = {}

        def remember(number: int, frame: Any) -> None:
            self.signal_number = self.signal_number or number
            now = time.monotonic()
            if now - first.setdefault(number, now) > SAME_REQUEST_SECONDS:
                signal.signal(number, earlier[number])
                signal.raise_signal(number)

        for number in wanted:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number in wanted:
                signal.signal(number, earlier[number])

    def came(self) -> bool:
        """Whether any process was asked to stop; all processes get the same answer."""
        if get_world_size() > 1:
            flag = torch.tensor(self.signal_number or 0)
            all_reduce(flag, op='max')
            self.signal_number = int(flag) or None
        return self.signal_number is not None
