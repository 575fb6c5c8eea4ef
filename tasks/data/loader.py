"""Samplers and loaders: every sample exactly once, in an order that depends on (seed, epoch) only."""

from collections.abc import Iterator, Sequence

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Sampler

from tasks.data.dataset import VisionDataset
from tasks.data.samples import Batch, Sample, SampleKey, Skipped, collate
from tasks.errors import UserError


class EpochSampler(Sampler[SampleKey]):
    """Yields this process's share of the data set as (sample, epoch).

    Training shuffles anew every epoch and repeats a few samples so that all processes get equally many;
    evaluation keeps the order and repeats nothing. Samples are dealt out in turn, so the processes'
    batches together are the batch that one process would see.

    Args:
        size: samples in the data set.
        training: shuffle and fill up.
        seed: seed of the run.

    Attributes:
        epoch: which pass over the data comes next.
        start: how many of this process's samples of that pass are already used up; set when a run resumes
            in the middle of an epoch, at no cost.
    """

    def __init__(self, size: int, *, training: bool, seed: int) -> None:
        self.size = size
        self.training = training
        self.seed = seed
        self.epoch = 0
        self.start = 0
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
            order = order[: len(self) * self.world_size]
        else:
            order = torch.arange(self.size)
        for index in order[self.rank :: self.world_size][self.start :].tolist():
            yield SampleKey(index, self.epoch)


class Loader(DataLoader[Batch]):
    """torch's loader, which raises a user's error where the batch would have come."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator is enough
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def collate_or_error(samples: Sequence[Sample | Skipped | UserError]) -> Batch | UserError:
    """Return a batch, or the user's error that came in its place."""
    try:
        return next((each for each in samples if isinstance(each, UserError)), None) or collate(samples)  # type: ignore[arg-type]
    except UserError as error:
        return error


def build_loader(
    dataset: VisionDataset, *, batch_size: int, num_workers: int, training: bool, seed: int
) -> Loader:
    """Build a loader over `EpochSampler`.

    Args:
        dataset: what to load.
        batch_size: samples per batch and process.
        num_workers: loading processes; 0 loads in the main one.
        training: shuffle; leave out the last batch when it is not full.
        seed: seed of the run.
    """
    sampler = EpochSampler(len(dataset), training=training, seed=seed)
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
    loader._iterator = None


def _start_worker(worker: int) -> None:
    import signal

    import cv2

    # The main process decides what Ctrl-C means; a worker only stops when it is told to.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
