"""Transforms on tensors do what they do to pictures, where OpenCV does it."""

from typing import Any

import numpy as np
import pytest
import torch

from falconet.core.errors import UserError
from falconet.datasets.transforms.augment import Augment
from falconet.datasets.transforms.tensor_resize import resize_tensors

SIZES = [(64, 96), (61, 83), (32, 48), (300, 200), (33, 90), (1, 1), (1, 40), (150, 1), (2, 3), (375, 500)]
ENTRIES = [
    *(
        {'type': 'Resize', 'height': height, 'width': width, 'interpolation': method}
        for method in ('nearest', 'linear', 'cubic', 'area')
        for height, width in ((32, 48), (75, 50), (97, 61))
    ),
    {'type': 'Resize', 'height': 40, 'width': 40, 'area_for_downscale': 'image'},
    {'type': 'ResizeCenterCrop', 'resize': 64, 'crop': 56},
    {'type': 'ResizeCenterCrop', 'resize': 33, 'crop': 33},
    {'type': 'ResizePad', 'size': (65, 81)},
    {'type': 'ResizePad', 'size': 97, 'enlarge': True, 'fill': (1, 2.6, 250)},
    {'type': 'ResizeTensorFlow', 'height': 50, 'width': 70},
]


def picture(size: tuple[int, int]) -> np.ndarray:
    """Smooth shapes and noise, as a photograph has."""
    y, x = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([128 + 110 * np.sin(x / 17 + channel) * np.cos(y / 23) for channel in range(3)], axis=2)
    noise = np.random.default_rng(0).normal(0, 12, smooth.shape)
    return (smooth + noise).clip(0, 255).round().astype(np.uint8)


def as_batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize('entry', ENTRIES, ids=str)
def test_on_tensors_is_within_a_grey_level_of_opencv(entry: dict[str, Any]) -> None:
    augment = Augment([entry])
    for size in SIZES:
        image = picture(size)
        expected = as_batch(augment(epoch=0, index=0, image=image)['image']).float()
        for images in (as_batch(image), as_batch(image).float()):
            ours = augment.on_tensors(images)
            assert ours.dtype == torch.float32
            difference = (ours - expected).abs()
            # Of linear, OpenCV cuts off what its fixed point cannot hold: up to 0.76 from the exact value.
            assert difference.max() <= (0 if entry.get('interpolation') == 'nearest' else 1), size
            assert difference.mean() < 0.3, size


@pytest.mark.parametrize('new', [7, 192, 224, 320])
def test_nearest_takes_opencvs_pixel_at_every_size(new: int) -> None:
    augment = Augment([{'type': 'Resize', 'height': 1, 'width': new, 'interpolation': 'nearest'}])
    for old in range(1, 1500, 7):
        row = (np.arange(old, dtype=np.int64) * 37 % 251).astype(np.uint8).reshape(1, old, 1).repeat(3, 2)
        expected = augment(epoch=0, index=0, image=row)['image']
        assert augment.on_tensors(as_batch(row)).equal(as_batch(expected).float()), old


@pytest.mark.parametrize('entry', ENTRIES[::3], ids=str)
@pytest.mark.parametrize('size', [(61, 83), (1, 400)])
def test_on_tensors_can_be_exported(entry: dict[str, Any], size: tuple[int, int]) -> None:
    augment = Augment([entry])

    class Whole(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return augment.on_tensors(images)

    first, second = as_batch(picture(size)), as_batch(picture((size[1], size[0]))).mT.contiguous()
    exported = torch.export.export(Whole(), (first,)).module()
    assert exported(second).equal(augment.on_tensors(second))


def test_transforms_follow_each_other_and_none_leaves_the_picture() -> None:
    resize, pad = {'type': 'Resize', 'height': 20, 'width': 30}, {'type': 'ResizePad', 'size': 40}
    images = as_batch(picture((50, 60)))
    ours = Augment([resize, pad]).on_tensors(images)
    assert ours[..., :20, :30].equal(resize_tensors(images, (20, 30), 'linear'))
    assert ours.shape == (1, 3, 40, 40)
    assert Augment([]).on_tensors(images).equal(images.float())


@pytest.mark.parametrize(
    'entry',
    [
        {'type': 'HorizontalFlip', 'p': 0.5},
        {'type': 'Resize', 'height': 8, 'width': 8, 'p': 0.5},
        {'type': 'Resize', 'height': 8, 'width': 8, 'interpolation': 'lanczos'},
    ],
    ids=str,
)
def test_a_transform_without_a_twin_is_named(entry: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f'{entry["type"]} cannot be done to tensors'):
        Augment([entry]).on_tensors(torch.zeros(1, 3, 16, 16))
