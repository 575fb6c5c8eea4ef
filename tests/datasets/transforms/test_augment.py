"""Augmentation is built by name and depends on (seed, epoch, index) only."""

import pickle
import random
from typing import Any

import albumentations
import numpy as np
import pytest

from falconet.backbones.weights.layouts import NORMALISATIONS
from falconet.core.errors import UserError
from falconet.datasets.transforms.augment import Augment, fill_left_open
from falconet.tasks.normalise import Normalise

PIPELINE = [
    {'type': 'RandomResizedCrop', 'size': (16, 16)},
    {
        'type': 'OneOf',
        'p': 0.9,
        'transforms': [{'type': 'HorizontalFlip', 'p': 1.0}, {'type': 'VerticalFlip', 'p': 1.0}],
    },
    {'type': 'ColorJitter', 'p': 0.8},
]
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)


def test_the_same_key_gives_the_same_image_whatever_came_before() -> None:
    one, other = Augment(PIPELINE, seed=1), Augment(PIPELINE, seed=1)
    for index in range(5):
        other(epoch=0, index=index, image=IMAGE)
    np.testing.assert_array_equal(
        one(epoch=3, index=7, image=IMAGE)['image'], other(epoch=3, index=7, image=IMAGE)['image']
    )


@pytest.mark.parametrize(
    'entries',
    [
        [{'type': 'RandomResizedCrop', 'size': (24, 30), 'scale': (0.5, 1.0)}, {'type': 'HorizontalFlip'}],
        [{'type': 'HorizontalFlip', 'p': 0.8}, {'type': 'RandomResizedCrop', 'size': (40, 50), 'p': 0.5}],
        [{'type': 'RandomResizedCrop', 'size': (9, 9), 'area_for_downscale': 'image'}],
        [{'type': 'RandomResizedCrop', 'size': (1, 7), 'interpolation': 'cubic', 'scale': (1, 1)}],
        [],
    ],
)
def test_the_usual_transforms_done_quickly_are_albumentations_own(entries: list[dict[str, Any]]) -> None:
    quick, slow = Augment(entries, seed=5), Augment(entries, seed=5)
    assert quick._quick is not None
    slow._quick = None
    rng = np.random.default_rng(0)
    for index in range(200):
        image = rng.integers(0, 255, (*rng.integers(1, 60, 2), 3), dtype=np.uint8)
        one, other = (each(epoch=1, index=index, image=image, label=3) for each in (quick, slow))
        np.testing.assert_array_equal(one['image'], other['image'])
        assert one['image'].flags.c_contiguous
        assert one['label'] == other['label'] == 3


@pytest.mark.parametrize('seed', [0, 7, 2**32 - 1, 2**32, 2**70])
def test_samples_are_seeded_by_the_numbers_of_their_key(seed: int) -> None:
    augment = Augment([{'type': 'RandomResizedCrop', 'size': (16, 16)}], seed=seed)
    words = np.random.SeedSequence([seed, 0, 12, 3]).generate_state(4, np.uint64)
    expected = random.Random(int(words[2]))
    expected.random()
    crop = albumentations.RandomResizedCrop(size=(16, 16))
    crop.py_random = expected
    np.testing.assert_array_equal(
        augment(epoch=0, index=12, copy=3, image=IMAGE)['image'], crop(image=IMAGE)['image']
    )


def test_other_transforms_and_what_lies_beside_a_picture_take_albumentations_road() -> None:
    entries = [{'type': 'HorizontalFlip', 'p': 1.0}]
    mask = np.arange(40 * 50, dtype=np.int32).reshape(40, 50)
    flipped = Augment(entries)(epoch=0, index=0, image=IMAGE, mask=mask)
    np.testing.assert_array_equal(flipped['image'], IMAGE[:, ::-1])
    np.testing.assert_array_equal(flipped['mask'], mask[:, ::-1])
    assert Augment(PIPELINE)._quick is None
    assert Augment(entries, bbox_params={'format': 'pascal_voc'})._quick is None


@pytest.mark.parametrize('change', [{'seed': 2}, {'epoch': 1}, {'index': 1}])
def test_seed_epoch_and_index_each_change_the_image(change: dict) -> None:
    key = {'seed': 0, 'epoch': 0, 'index': 0}

    def augmented(seed: int, epoch: int, index: int) -> np.ndarray:
        return Augment(PIPELINE, seed=seed)(epoch=epoch, index=index, image=IMAGE)['image']

    assert (augmented(**key) != augmented(**{**key, **change})).any()


def test_interpolation_has_a_name() -> None:
    shrunk = Augment([{'type': 'Resize', 'height': 1, 'width': 1, 'interpolation': 'area'}])
    mean = IMAGE.reshape(-1, 3).mean(0)
    np.testing.assert_allclose(shrunk(epoch=0, index=0, image=IMAGE)['image'][0, 0], mean, atol=1)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'type': 'HorizontalFlop'}, 'Did you mean HorizontalFlip'),
        ({'type': 'HorizontalFlip', 'probability': 1}, 'probability'),
        ({'type': 'Resize', 'height': 4, 'width': 4, 'interpolation': 'best'}, "'best' is none of"),
        ({'type': 'Compose'}, 'Compose'),
        ({'type': 'numpy'}, "no transform is called 'numpy'"),
        ('HorizontalFlip', 'must be dict'),
    ],
)
def test_a_wrong_entry_is_explained(entry: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augment([entry])  # type: ignore[list-item]


@pytest.mark.parametrize('normalise', ['imagenet', 'tensorflow'])
def test_what_transforms_add_is_zero_after_the_models_normalisation(normalise: str) -> None:
    """ImageNet's mean is grey to one network and a colour to another; a fill in the config stands."""
    pixel = {'imagenet': (124, 116, 104), 'tensorflow': (128, 128, 128)}[normalise]
    entries = [
        {'type': 'HorizontalFlip', 'p': 0},
        {
            'type': 'OneOf',
            'transforms': [{'type': 'RandomScaleCrop', 'scale': (0.5, 0.5), 'size': 60}],
            'p': 1,
        },
        {'type': 'ResizePad', 'size': (80, 80)},
    ]
    assert Normalise(**NORMALISATIONS[normalise]).mean_pixel == pixel
    image = np.zeros((40, 40, 3), np.uint8)
    filled = Augment(fill_left_open(entries, pixel))(epoch=0, index=0, image=image)['image']
    assert tuple(filled[59, 59]) == tuple(filled[79, 79]) == pixel
    given = [{'type': 'ResizePad', 'size': 80, 'fill': (1, 2, 3)}]
    assert fill_left_open(given, pixel) == given
    if normalise == 'imagenet':
        assert fill_left_open(entries, pixel) == entries


def test_loading_processes_that_are_started_anew_get_the_same_transforms() -> None:
    """As on Windows and macOS, where they are sent; Linux copies the process."""
    one = Augment(PIPELINE, seed=1)
    other = pickle.loads(pickle.dumps(one))
    for side in (None, 8):
        ours, theirs = (each(epoch=0, index=1, image=IMAGE, side=side)['image'] for each in (one, other))
        np.testing.assert_array_equal(ours, theirs)
