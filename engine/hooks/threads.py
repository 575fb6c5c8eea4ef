"""The threads and kernels of a run: those it began with, and a word when other programs take its cores."""

import time
from typing import Any

import torch
from mmengine.hooks import Hook

from falconet.engine.cpu import seconds_kept_waiting, wait_briefly
from falconet.layers.fast.fused import is_fused, set_fused

SECONDS = 2.0  # between two looks: on large machines one takes a millisecond
LOOKS = 3  # that must all find the run held up
HELD_UP = 0.5  # cores missing


class ThreadsHook(Hook):
    """Keep a resumed run's number of threads and its kernels, and notice when the run is held up.

    Args:
        told: whether the user has chosen the number for this start.
        told_kernels: whether the user has chosen the kernels for this start.
    """

    priority = 'VERY_LOW'

    def __init__(self, *, told: bool = False, told_kernels: bool = False) -> None:
        self.told, self.told_kernels = told, told_kernels
        self._runner: Any = None
        self._watching = False
        self._latest: tuple[float, float | None] = (0.0, None)  # time, seconds kept waiting until then
        self._missing: list[float] = []  # cores, at the latest looks

    def before_run(self, runner: Any) -> None:
        self._runner = runner

    def before_train(self, runner: Any) -> None:
        self._watching = torch.get_num_threads() > 1  # one waits for no other

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        begin, before = self._latest
        if not self._watching or time.perf_counter() - begin < SECONDS:
            return
        now, waited = self._latest = time.perf_counter(), seconds_kept_waiting()
        if before is None or waited is None:
            return
        self._missing = [*self._missing, (waited - before) / (now - begin)][-LOOKS:]
        if len(self._missing) < LOOKS or min(self._missing) < HELD_UP:
            return
        self._watching = False
        wait_briefly()
        missing, threads = sum(self._missing) / LOOKS, torch.get_num_threads()
        runner.logger.warning(
            f'held up: {missing:.1f} of the cores that {threads} threads need are taken, by other programs '
            'or by loading processes. From here on the threads sleep while they wait for each other, which '
            'changes no result. If that work stays, fewer threads are faster for a new run: --threads auto.'
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the number of threads and the kernels, on which the last bits of a result depend."""
        return {'threads': torch.get_num_threads(), 'fused': is_fused()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with as many threads and the same kernels, unless told otherwise, and say what is new."""
        self._keep_kernels(began=state.get('fused', False))
        began, now = state['threads'], torch.get_num_threads()
        if began == now:
            return
        if self.told:
            self._runner.logger.warning(
                f'this run had {began} threads and goes on with {now}: results change in their last bits'
            )
        else:
            torch.set_num_threads(began)
            self._runner.logger.info(f'goes on with {began} threads, as before (here it would have {now})')

    def _keep_kernels(self, *, began: bool) -> None:
        now, log = is_fused(), self._runner.logger
        if began == now:
            return
        if not self.told_kernels:
            set_fused(began)
        if is_fused() == began:
            log.info(
                "goes on with the kernels it began with, torch's; a new run would fuse norms and activations"
            )
        else:
            names = {True: 'fused norms and activations', False: "torch's kernels"}
            need = '' if now or self.told_kernels else " (fusing needs Numba: pip install -e '.[fast]')"
            log.warning(
                f'this run began with {names[began]} and goes on with {names[now]}{need}: results change in '
                'their last bits'
            )
