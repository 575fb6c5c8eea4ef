"""Loaders deal out every sample exactly once, the same whatever the number of processes and workers."""

import pickle
from itertools import chain
from pathlib import Path

import pytest
import torch

from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.loader import EpochSampler, build_loader, close_loader
from falconet.datasets.samples import Sample, SampleInfo, Skipped, collate


def dealt(size: int, world: int, *, training: bool, epoch: int = 0, start: int = 0) -> list[list[int]]:
    """What each of `world` processes gets."""
    shares = []
    for rank in range(world):
        sampler = EpochSampler(size, training=training, seed=5)
        sampler.rank, sampler.world_size = rank, world
        sampler.epoch, sampler.start = epoch, start
        shares.append([key.sample for key in sampler])
        assert start or len(shares[-1]) == len(sampler)
    return shares


@pytest.mark.parametrize('world', [1, 2, 3, 7])
@pytest.mark.parametrize('size', [1, 5, 12])
def test_evaluation_sees_every_sample_exactly_once(size: int, world: int) -> None:
    assert sorted(chain(*dealt(size, world, training=False))) == list(range(size))


@pytest.mark.parametrize('world', [1, 2, 3, 7])
@pytest.mark.parametrize('size', [1, 5, 12])
def test_training_sees_every_sample_and_gives_all_processes_equally_many(size: int, world: int) -> None:
    shares = dealt(size, world, training=True)
    assert len({len(share) for share in shares}) == 1
    assert set(chain(*shares)) == set(range(size))


def test_two_processes_batches_together_are_one_processs_batch() -> None:
    (single,) = dealt(12, 1, training=True)
    first, second = dealt(12, 2, training=True)
    for step in range(3):
        together = first[2 * step : 2 * step + 2] + second[2 * step : 2 * step + 2]
        assert sorted(together) == sorted(single[4 * step : 4 * step + 4])


def test_epochs_are_shuffled_differently_and_repeatably() -> None:
    assert dealt(50, 1, training=True, epoch=0) != dealt(50, 1, training=True, epoch=1)
    assert dealt(50, 1, training=True, epoch=1) == dealt(50, 1, training=True, epoch=1)


def test_starting_inside_an_epoch_leaves_out_what_was_used() -> None:
    (whole,) = dealt(20, 1, training=True, epoch=3)
    (rest,) = dealt(20, 1, training=True, epoch=3, start=8)
    assert rest == whole[8:]


def test_batches_do_not_depend_on_the_number_of_workers(folders: Path) -> None:
    augment = [{'type': 'RandomResizedCrop', 'size': (16, 16)}, {'type': 'ColorJitter'}]
    data = ImageFolder(str(folders), 'train', augment=augment, training=True, seed=3)
    runs = []
    for workers in (0, 2):
        loader = build_loader(data, batch_size=5, num_workers=workers, training=True, seed=3)
        epochs = []
        for epoch in (0, 1):
            loader.sampler.epoch = epoch
            epochs += [(batch['images'].clone(), batch['targets'].clone()) for batch in loader]
        close_loader(loader)
        runs.append(epochs)
    assert len(runs[0]) == len(runs[1]) == 8  # 24 samples: 4 whole batches of 5 an epoch
    for (images, targets), (same_images, same_targets) in zip(*runs, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(targets, same_targets)
    assert not torch.equal(runs[0][0][0], runs[0][4][0])


def test_a_set_smaller_than_a_batch_still_trains(folders: Path) -> None:
    data = ImageFolder(str(folders), 'train', training=True)
    loader = build_loader(data, batch_size=100, num_workers=0, training=True, seed=0)
    assert [len(batch['images']) for batch in loader] == [24]


def sample(index: int) -> Sample:
    image = torch.full((4, 6, 3), index, dtype=torch.uint8).numpy()
    return Sample(image, index, SampleInfo(index, f'{index}.png', (4, 6)))


def test_a_batch_is_channels_last_and_lists_what_was_skipped() -> None:
    batch = collate([sample(0), Skipped('bad.png', 'empty file'), sample(2)])
    assert batch['images'].shape == (2, 3, 4, 6)
    assert batch['images'].is_contiguous(memory_format=torch.channels_last)
    assert batch['images'][1].unique().tolist() == [2]
    assert batch['targets'].tolist() == [0, 2]
    assert [each.path for each in batch['skipped']] == ['bad.png']


def test_a_batch_of_nothing_but_skipped_files_is_empty() -> None:
    batch = collate([Skipped('bad.png', 'empty file')])
    assert len(batch['images']) == len(batch['targets']) == len(batch['infos']) == 0


@pytest.mark.parametrize('world', [1, 2])
def test_repeated_samples_differ_and_follow_each_other(folders: Path, world: int) -> None:
    keys = []
    for rank in range(world):
        sampler = EpochSampler(24, training=True, seed=5, repeated=3)
        sampler.rank, sampler.world_size = rank, world
        keys.append(list(sampler))
        assert len(keys[-1]) == len(sampler) == 24 // world
        sampler.start = 5
        assert list(sampler) == keys[-1][5:]
    together = [key for step in zip(*keys, strict=True) for key in step]
    assert [key.copy for key in together] == [0, 1, 2] * 8
    assert len({key.sample for key in together}) == 8
    assert all(len({key.sample for key in together[i : i + 3]}) == 1 for i in range(0, 24, 3))
    data = ImageFolder(str(folders), 'train', augment=[{'type': 'RandomResizedCrop', 'size': (16, 16)}])
    images = [data[key].image.tobytes() for key in together[:3]]  # type: ignore[union-attr]
    assert len(set(images)) == 3


@pytest.mark.parametrize('training', [True, False])
def test_what_loading_processes_are_sent_can_be_sent(folders: Path, training: bool) -> None:
    """Windows and macOS start them anew."""
    loader = build_loader(ImageFolder(folders), batch_size=2, training=training, seed=0, num_workers=1)
    parts = (loader.dataset, loader.collate_fn, loader.worker_init_fn)
    dataset, collated, _ = pickle.loads(pickle.dumps(parts))
    assert len(collated([dataset[0], dataset[1]])) == len(next(iter(loader)))
    close_loader(loader)
