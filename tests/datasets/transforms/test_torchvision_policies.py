"""Published augmentations are torchvision's, seeded by the sample, and refused where boxes cannot follow."""

import numpy as np
import pytest
import torch

from falconet.core.errors import UserError
from falconet.datasets.transforms.augment import Augment, fill_left_open

NAMES = ('RandAugment', 'TrivialAugment', 'AugMix', 'RandomErasing')
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)


def entry(name: str) -> dict:
    return {'type': name, 'p': 1.0}


@pytest.mark.parametrize('name', NAMES)
def test_a_picture_depends_on_its_key_and_disturbs_no_other_random_numbers(name: str) -> None:
    one, other = Augment([entry(name)], seed=1), Augment([entry(name)], seed=1)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = [one(epoch=0, index=index, image=IMAGE)['image'] for index in range(6)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)  # another process
    for index in (5, 2):
        np.testing.assert_array_equal(other(epoch=0, index=index, image=IMAGE)['image'], first[index])
    assert len({each.tobytes() for each in first}) > 3
    assert all(each.dtype == np.uint8 and each.shape == IMAGE.shape for each in first)


def test_random_augment_is_torchvisions() -> None:
    from torchvision.transforms import v2

    augment = Augment([{'type': 'RandAugment', 'num_ops': 3, 'magnitude': 7}], seed=5)
    found = augment(epoch=2, index=9, image=IMAGE)['image']
    (transform,) = augment._compose.transforms
    theirs = v2.RandAugment(3, 7, fill=[124, 116, 104])
    picture = torch.from_numpy(IMAGE).permute(2, 0, 1)
    torch.manual_seed(transform.params['seed'])
    np.testing.assert_array_equal(theirs(picture).permute(1, 2, 0).numpy(), found)


def test_what_is_erased_becomes_zero_in_the_models_normalisation() -> None:
    entries = fill_left_open([entry('RandomErasing')], (128, 127, 126))
    found = Augment(entries)(epoch=0, index=0, image=IMAGE)['image']
    changed = (found != IMAGE).any(axis=2)
    assert 0.02 < changed.mean() < 0.35
    assert {tuple(each) for each in found[changed].tolist()} == {(128, 127, 126)}


@pytest.mark.parametrize('target', [{'mask': IMAGE[..., 0]}, {'bboxes': np.array([[0.1, 0.1, 0.6, 0.5]])}])
@pytest.mark.parametrize('name', NAMES)
def test_boxes_and_masks_are_not_left_behind(name: str, target: dict) -> None:
    boxes = {'bbox_params': {'format': 'albumentations'}} if 'bboxes' in target else {}
    augment = Augment([entry(name)], **boxes)
    if name == 'RandomErasing':
        moved = augment(epoch=0, index=0, image=IMAGE, **target)
        for key, value in target.items():
            np.testing.assert_allclose(moved[key], value)
    else:
        with pytest.raises(UserError, match=f'{name} turns and shifts pixels'):
            augment(epoch=0, index=0, image=IMAGE, **target)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'type': 'RandAugment', 'magnitude': 40}, r'magnitude must lie in 0\.\.30, got 40'),
        ({'type': 'RandAugment', 'num_ops': 0}, 'num_ops must lie in'),
        ({'type': 'AugMix', 'severity': 0}, 'severity must lie in'),
        ({'type': 'RandomErasing', 'scale': (0.5, 2.0)}, 'scale must be'),
        ({'type': 'TrivialAugmnet'}, 'Did you mean TrivialAugment'),
    ],
)
def test_a_wrong_option_is_explained(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augment([options])


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'type': 'RandAugment', 'num_ops': 2.5}, 'num_ops must be a whole number, got 2.5'),
        ({'type': 'RandAugment', 'magnitude': 'x'}, "magnitude must be a whole number, got 'x'"),
        ({'type': 'RandAugment', 'fill': 300}, 'fill must be three numbers'),
        ({'type': 'RandAugment', 'fill': (1, 2)}, 'fill must be three numbers'),
        ({'type': 'TrivialAugment', 'fill': (1, 2, 300)}, r'fill must lie in 0\.\.255'),
        ({'type': 'AugMix', 'alpha': True}, 'alpha must be a number, got True'),
        ({'type': 'RandomErasing', 'fill': 'red'}, "fill must be three numbers.*got 'red'"),
        ({'type': 'RandomErasing', 'scale': 0.5}, r'scale must be \(least, largest\), above 0 and at most 1'),
        ({'type': 'RandomErasing', 'scale': (0.1, 2)}, 'scale must be'),
        (
            {'type': 'RandomErasing', 'ratio': (2, 1)},
            r'ratio must be .*, got \(2, 1\)',
        ),
    ],
)
def test_a_wrong_option_is_named_before_a_picture_is_read(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augment([wrong])
