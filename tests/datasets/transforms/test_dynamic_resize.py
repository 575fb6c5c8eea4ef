"""One export resizes pictures of every size as the transforms do."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falconet.core.errors import UserError
from falconet.datasets.transforms.augment import Augment

SIZES = [
    *((64, 96), (61, 83), (32, 48), (300, 200), (33, 90), (1, 1), (1, 40), (150, 1), (2, 3), (375, 500)),
    *((40, 40), (200, 17), (17, 200), (97, 65), (65, 81), (640, 480), (1300, 70)),
]
ENTRIES = [
    *(
        {'type': 'Resize', 'height': 75, 'width': 50, 'interpolation': method}
        for method in ('nearest', 'linear', 'cubic', 'area')
    ),
    {'type': 'Resize', 'height': 40, 'width': 40, 'area_for_downscale': 'image'},
    {
        **{'type': 'Resize', 'height': 45, 'width': 40, 'area_for_downscale': 'image'},
        'interpolation': 'cubic',
    },
    {'type': 'ResizeCenterCrop', 'resize': 64, 'crop': 56},
    {'type': 'ResizeCenterCrop', 'resize': 33, 'crop': 33},
    {'type': 'ResizePad', 'size': (65, 81)},
    {'type': 'ResizePad', 'size': 97, 'enlarge': True, 'fill': (1, 2.6, 250)},
    {'type': 'ResizeTensorFlow', 'height': 50, 'width': 70},
]


class AnySize(nn.Module):
    """What the export sees."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__()
        self.augment = Augment([entry])

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        pixels, content = self.augment.on_any_size(picture)
        return (pixels, *(content or ()))


def picture(size: tuple[int, int]) -> np.ndarray:
    """Smooth shapes and noise, as a photograph has."""
    y, x = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([128 + 110 * np.sin(x / 17 + channel) * np.cos(y / 23) for channel in range(3)], axis=2)
    noise = np.random.default_rng(0).normal(0, 12, smooth.shape)
    return (smooth + noise).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize('entry', ENTRIES, ids=str)
def test_one_export_resizes_every_size_as_the_transforms_do(entry: dict[str, Any]) -> None:
    module = AnySize(entry)
    shapes = {'picture': {axis: torch.export.Dim(name, min=1) for axis, name in enumerate('hw')}}
    with torch.no_grad():
        traced = torch.export.export(
            module, (torch.from_numpy(picture((71, 67))),), dynamic_shapes=shapes
        ).module()
    for size in SIZES:
        image = torch.from_numpy(picture(size))
        with torch.no_grad():
            pixels, *content = traced(image)
        expected = module.augment.on_tensors(image.permute(2, 0, 1)[None])
        assert pixels.dtype == torch.float32
        assert pixels.shape == expected.shape
        # Sums in another order: now and then the other side of a rounding.
        difference = (pixels - expected).abs()
        assert difference.max() <= 1, size
        assert (difference > 0).float().mean() < 1e-4, size
        assert ([int(each) for each in content] or None) == (
            list(known) if (known := module.augment.content_size(*size)) else None
        )


def test_of_several_transforms_the_first_decides_the_size() -> None:
    augment = Augment([ENTRIES[-3], {'type': 'Resize', 'height': 20, 'width': 30}])
    image = torch.from_numpy(picture((90, 50)))
    expected = augment.on_tensors(image.permute(2, 0, 1)[None])
    assert (augment.on_any_size(image).pixels - expected).abs().max() <= 1


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ([], r'no transforms that bring pictures of any size to one.*--size HxW'),
        ([{'type': 'HorizontalFlip', 'p': 0.0}], 'HorizontalFlip cannot be done to tensors'),
    ],
)
def test_what_cannot_take_any_size_is_said(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augment(entries).on_any_size(torch.from_numpy(picture((9, 9))))
