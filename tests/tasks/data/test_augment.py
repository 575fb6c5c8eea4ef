"""Augmentation is built by name and depends on (seed, epoch, index) only."""

import pickle

import numpy as np
import pytest

from backbones.weights.layouts import NORMALISATIONS
from tasks.data.augment import Augment, fill_left_open
from tasks.errors import UserError
from tasks.normalise import Normalise

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
