"""Samplers and loaders: every sample exactly once, in an order that depends on (seed, epoch) only.

Loading processes obey the main one alone: a signal to the whole process group does not end them before it has
saved, and they do not outlive it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Sampler

from falconet.core.errors import UserError
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.samples import Batch, Sample, SampleKey, Skipped, collate


class EpochSampler(Sampler[SampleKey]):
    """Yields this process's share of the data set as (sample, epoch).

    Training shuffles anew every epoch and repeats a few samples so that all processes get equally many;
    evaluation keeps the order and repeats nothing. Samples are dealt out in turn, so the processes'
    batches together are the batch that one process would see.

    Args:
        size: samples in the data set.
        training: shuffle and fill up.
        seed: seed of the run.
        repeated: how often a sample is in a pass, augmented anew each time; a pass stays as long, so it sees
            the share 1 / `repeated` of the samples. Copies follow each other, so that a batch, of all
            processes together, holds all of a sample's (repeated augmentation, arXiv 1901.09335, as timm
            draws it).

    Attributes:
        epoch: which pass over the data comes next.
        start: how many of this process's samples of that pass are already used up; set when a run resumes
            in the middle of an epoch, at no cost.
        side_of: (epoch, how many of this process's samples of that pass come before) -> `SampleKey.side`.
    """

    def __init__(self, size: int, *, training: bool, seed: int, repeated: int = 1) -> None:
        self.size = size
        self.repeated = repeated if training else 1
        self.training = training
        self.seed = seed
        self.epoch = 0
        self.start = 0
        self.side_of: Callable[[int, int], int | None] = lambda epoch, before: None
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Samples of a whole pass in this process, whatever `start` is."""
        if self.training:
            return -(-self.size // self.world_size)
        return len(range(self.rank, self.size, self.world_size))

    def __iter__(self) -> Iterator[SampleKey]:
        if self.training:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator)
            order = order.repeat(2 if self.size > self.world_size else self.world_size)
            order = order.repeat_interleave(self.repeated)[: len(self) * self.world_size]
        else:
            order = torch.arange(self.size)
        places = range(self.rank, len(order), self.world_size)[self.start :]
        for place, index in zip(places, order[places.start :: self.world_size].tolist(), strict=True):
            side = self.side_of(self.epoch, place // self.world_size)
            yield SampleKey(index, self.epoch, place % self.repeated, side)


class WorkerLostError(UserError):
    """A loading process was ended from outside, as a system does that runs out of memory."""


class Loader(DataLoader[Batch]):
    """torch's loader, which raises a user's error where the batch would have come.

    Raises:
        WorkerLostError: while iterating; what was handed out before is whole.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator is enough
        try:
            with _born_deaf():
                batches = super().__iter__()
            for batch in batches:
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except (RuntimeError, OSError, EOFError) as error:  # a worker's end shows as any of them
            for worker in getattr(self._iterator, '_workers', ()):
                worker.join(0.2)  # its sockets close before it counts as ended
                if worker.exitcode:
                    raise WorkerLostError(_why_lost(worker.exitcode, self.num_workers)) from error
            raise


@contextmanager
def _born_deaf() -> Iterator[None]:
    """Start processes that do not hear SIGINT and SIGTERM, and leave SIGCHLD as it was.

    torch's own SIGCHLD handler raises wherever the main process happens to be when a worker dies: in the
    middle of an update or of writing a checkpoint. Without it torch notices within 5 s, while waiting for
    data.
    """
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    in_main = threading.current_thread() is threading.main_thread()
    earlier = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main and earlier is not None:
            signal.signal(signal.SIGCHLD, earlier)


def _why_lost(exit_code: int, workers: int) -> str:
    how = (
        f'exit code {exit_code}' if exit_code > 0 else f'signal {-exit_code}, {signal.strsignal(-exit_code)}'
    )
    reasons = {
        -9: ', which a system does when memory runs out',
        -7: ', which happens when /dev/shm is full: docker run --shm-size=2g makes it larger',
    }
    return (
        f'a loading process was ended from outside ({how}{reasons.get(exit_code, "")}). If memory is short, '
        f'give the dataloader fewer num_workers (now {workers}) or a smaller batch_size.'
    )


def collate_or_error(samples: Sequence[Sample | Skipped | UserError]) -> Batch | UserError:
    """Return a batch, or the user's error that came in its place."""
    try:
        return next((each for each in samples if isinstance(each, UserError)), None) or collate(samples)  # type: ignore[arg-type]
    except UserError as error:
        return error


def build_loader(
    dataset: VisionDataset,
    *,
    batch_size: int,
    num_workers: int,
    training: bool,
    seed: int,
    repeated: int = 1,
) -> Loader:
    """Build a loader over `EpochSampler`.

    Args:
        dataset: what to load.
        batch_size: samples per batch and process.
        num_workers: loading processes; 0 loads in the main one.
        training: shuffle; leave out the last batch when it is not full.
        seed: seed of the run.
        repeated: as in `EpochSampler`.
    """
    sampler = EpochSampler(len(dataset), training=training, seed=seed, repeated=repeated)
    return Loader(
        dataset,  # type: ignore[arg-type]  # a map-style data set keyed by SampleKey
        batch_size=batch_size,
        sampler=sampler,  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=collate_or_error,
        # A set smaller than a batch still trains.
        drop_last=training and len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker if num_workers else None,
    )


def close_loader(loader: DataLoader) -> None:
    """End a loader's worker processes now; left to the interpreter's exit they print a traceback."""
    # Not by dropping the last reference: a traceback on its way up holds others.
    if hasattr(loader._iterator, '_shutdown_workers'):
        loader._iterator._shutdown_workers()  # type: ignore[union-attr]
    loader._iterator = None


def _start_worker(worker: int) -> None:
    import cv2

    # The main process decides what Ctrl-C means; a worker only stops when it is told to.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigtimedwait'):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_main_process, daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _obey_the_main_process() -> None:
    """End this worker when the main process ends or says so; SIGTERM from anybody else is not heard.

    `timeout`, job schedulers and systemd send SIGTERM to all processes at once. The main one wants to finish
    its step and to save then, for which it needs its workers.
    """
    main, forked_from = multiprocessing.parent_process(), os.getppid()
    assert main is not None, 'workers are started by multiprocessing'
    while main.is_alive() and os.getppid() == forked_from:
        told = signal.sigtimedwait({signal.SIGTERM}, 1)
        if told is not None and told.si_pid == main.pid:
            break
    os._exit(0)
