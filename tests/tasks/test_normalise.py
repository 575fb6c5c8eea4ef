"""Normalisation gives the same bits for any layout of the pictures, and leaves them as they are."""

import pytest
import torch

from falconet.tasks.normalise import Normalise

NORMALISE = Normalise.from_config('imagenet')


def by_definition(images: torch.Tensor) -> torch.Tensor:
    mean, std = (
        torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (NORMALISE.mean, NORMALISE.std)
    )
    return ((images.double() / 255 - mean) / std).float()


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('shape', [(2, 3, 33, 47), (1, 3, 1, 1), (3, 3, 1, 5), (2, 3, 16, 9)])
def test_rows_of_pixels_are_normalised_to_the_bits_that_planes_are(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    planes = torch.randint(0, 256, shape).to(dtype)
    rows = planes.contiguous(memory_format=torch.channels_last)
    untouched = rows.clone()
    found = NORMALISE(rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.addcmul(NORMALISE.shift, planes.float(), NORMALISE.scale))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(rows, untouched)
    torch.testing.assert_close(found, by_definition(planes), atol=1e-6, rtol=1e-6)


def test_a_batch_of_nothing_stays_one() -> None:
    assert NORMALISE(torch.zeros(0, 3, 0, 0, dtype=torch.uint8)).shape == (0, 3, 0, 0)


def test_a_part_of_a_picture_is_normalised_too() -> None:
    whole = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    part = whole[:, :, 1:5, 2:7]
    assert torch.equal(NORMALISE(part), NORMALISE(whole)[:, :, 1:5, 2:7])


def test_what_is_exported_takes_any_size() -> None:
    program = torch.export.export(
        NORMALISE,
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8),),
        dynamic_shapes={'images': {2: torch.export.Dim('height'), 3: torch.export.Dim('width')}},
    )
    images = torch.randint(0, 256, (1, 3, 5, 9), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(program.module()(images), NORMALISE(images))
