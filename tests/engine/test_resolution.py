"""Pictures that grow: what they are is the transforms' result with fewer pixels, when they grow is exact."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.detection.dataset import CocoDetection
from falconet.datasets.loader import close_loader
from falconet.datasets.samples import Sample, SampleKey
from falconet.engine.builders import stage_loader
from falconet.engine.resolution import Stage, resolution_of, stages_of
from falconet.engine.train import train
from falconet.tasks.build import build_dataset, load_config

WriteConfig = Callable[..., Path]

# 24 pictures in batches of 4: 6 iterations an epoch, 12 in all.
GROWING = """
    train_dataloader['dataset']['augment'][0]['size'] = (64, 64)
    resolution = dict(start=32, until=0.4, step=16)
"""
SIDES = [32] * 2 + [48] * 3 + [64] * 7


def test_stages_follow_the_length_of_the_run() -> None:
    entry = {'start': 128}
    assert stages_of(entry, end=224, total=84) == [
        Stage(0, 128), Stage(14, 160), Stage(28, 192), Stage(42, 224)
    ]  # fmt: skip
    assert stages_of(entry, end=224, total=840)[-1] == Stage(420, 224)
    assert stages_of({'start': 128, 'until': 30, 'step': 64}, end=224, total=84) == [
        Stage(0, 128), Stage(15, 192), Stage(30, 224)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['resolution.start=64'], r'resolution\.start=64: the pictures of train_dataloader have .* of 64 px'),
        (['resolution.until=0.1'], r'resolution\.until=0\.1: 2 sizes below 64 px \(32 px, then 16 more'),
        (['resolution.until=12'], r'12 of 12 iterations do not go'),
        (['resolution.start=0'], r'resolution\.start must be .* of at least 32'),
        (['resolution.until=1.5'], r'resolution\.until must be'),
        (['resolution.end=64'], r"unknown key 'resolution\.end'"),
        (['resolution.step=0'], r'resolution\.step must be'),
    ],
)
def test_what_cannot_grow_is_explained(
    write_config: WriteConfig, tmp_path: Path, options: list[str], message: str
) -> None:
    path = write_config(GROWING)
    with pytest.raises(UserError, match=message):
        train(load_config(path, options), work_dir=str(tmp_path / 'run'))


@pytest.mark.parametrize('workers', [0, 2])
def test_a_batchs_size_depends_on_its_place_alone(write_config: WriteConfig, workers: int) -> None:
    config = load_config(write_config(GROWING, workers=workers))
    dataset = build_dataset(config, 'train_dataloader', root=Path(config.data_root), classes=None, seed=0)
    loader = stage_loader(config, 'train_dataloader', dataset, seed=0)
    resolution = resolution_of(config, loader)
    assert str(resolution) == '32 px, 48 px from iteration 3 on, 64 px from iteration 6 on'
    sampler: Any = loader.sampler
    found = []
    for epoch in range(2):
        sampler.epoch, sampler.start = epoch, 0
        found += [tuple(batch['images'].shape) for batch in loader]
    assert found == [(4, 3, side, side) for side in SIDES]
    sampler.epoch, sampler.start = 0, 4  # begun in the middle of an epoch
    assert [batch['images'].shape[2] for batch in loader] == SIDES[1:6]
    close_loader(loader)


def test_processes_change_their_size_at_the_same_iteration(write_config: WriteConfig) -> None:
    config = load_config(write_config(GROWING), ['train_dataloader.batch_size=2'])
    dataset = build_dataset(config, 'train_dataloader', root=Path(config.data_root), classes=None, seed=0)
    loader = stage_loader(config, 'train_dataloader', dataset, seed=0)
    sampler: Any = loader.sampler
    sampler.world_size = 2
    resolution_of(config, loader)
    sides = []
    for rank in range(2):
        sampler.rank = rank
        sides.append([key.side for key in sampler])
    assert sides[0] == sides[1] == [32] * 4 + [48] * 6 + [None] * 2


def test_a_small_picture_is_the_large_one_with_fewer_pixels(write_config: WriteConfig) -> None:
    config = load_config(write_config(GROWING))
    dataset = build_dataset(config, 'train_dataloader', root=Path(config.data_root), classes=None, seed=0)
    for index in range(4):
        large, small = (sample_of(dataset, SampleKey(index, 1, side=side)).image for side in (None, 32))
        assert large.shape == (64, 64, 3)
        # Some systems hand data sets to loading processes as bytes.
        again = pickle.loads(pickle.dumps(dataset))
        assert np.array_equal(sample_of(again, SampleKey(index, 1, side=32)).image, small)
        assert np.array_equal(small, cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA))


def sample_of(dataset: VisionDataset, key: SampleKey) -> Sample:
    sample = dataset[key]
    assert isinstance(sample, Sample)
    return sample


def test_boxes_stay_where_they_are(coco_folder: Path) -> None:
    augment = [{'type': 'RandomIoUCrop'}, {'type': 'Resize', 'height': 64, 'width': 96}]
    dataset = CocoDetection(
        str(coco_folder), 'annotations/train.json', 'train', training=True, augment=augment
    )
    for index in range(6):
        large, small = (sample_of(dataset, SampleKey(index, 0, side=side)) for side in (None, 32))
        assert (large.image.shape, small.image.shape) == ((64, 96, 3), (32, 48, 3))
        for key, value in large.target.items():
            np.testing.assert_allclose(small.target[key], value, atol=1e-6, err_msg=key)


def test_masks_keep_their_labels() -> None:
    from falconet.datasets.transforms.augment import Augment

    augment = Augment([{'type': 'HorizontalFlip', 'p': 0.5}])
    mask = np.random.default_rng(0).choice(np.array([0, 7, 255], np.uint8), (64, 64))
    image = np.repeat(mask[..., None], 3, axis=2)
    for index in range(4):
        large, small = (
            augment(epoch=0, index=index, side=side, image=image, mask=mask) for side in (None, 32)
        )
        assert small['mask'].shape == small['image'].shape[:2] == (32, 32)
        assert np.array_equal(
            small['mask'], cv2.resize(large['mask'], (32, 32), interpolation=cv2.INTER_NEAREST)
        )


class Stop(Hook):
    """Ends a run like a power cut."""

    def __init__(self, iterations: int) -> None:
        self.left = iterations

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError


def test_a_run_that_goes_on_is_the_uninterrupted_one_to_the_bit(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    path = write_config(GROWING + '    save_every_iters = 1\n')
    train(load_config(path), work_dir=str(tmp_path / 'whole'))
    log = (tmp_path / 'whole/train.log').read_text()
    assert 'resolution: 32 px, 48 px from iteration 3 on, 64 px from iteration 6 on' in log
    with pytest.raises(ZeroDivisionError):
        train(load_config(path), work_dir=str(tmp_path / 'parts'), hooks=[Stop(4)])
    config = load_config(path, ['train_dataloader.num_workers=2'])
    train(config, work_dir=str(tmp_path / 'parts'), resume=True)
    whole, parts = (read_checkpoint(tmp_path / name / 'last.pth') for name in ('whole', 'parts'))
    assert whole['iter'] == parts['iter'] == 12
    assert all(torch.equal(value, parts['state_dict'][key]) for key, value in whole['state_dict'].items())
