"""Masks on disk: what is written is read back, in VOC's colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from falconet.datasets.formats.masks import read_mask, voc_palette, write_mask


def test_what_is_written_is_read_back_and_shows_vocs_colours(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_mask(tmp_path / 'mask.png', values)
    np.testing.assert_array_equal(read_mask(tmp_path / 'mask.png'), values)
    with Image.open(tmp_path / 'mask.png') as picture:
        assert picture.mode == 'P'
        np.testing.assert_array_equal(np.asarray(picture.convert('RGB')), voc_palette()[values])


def test_grey_one_bit_and_sixteen_bit_masks_are_indices(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for number, stored in enumerate((values, values > 0, values.astype(np.uint16))):
        Image.fromarray(stored).save(tmp_path / f'{number}.png')
        np.testing.assert_array_equal(read_mask(tmp_path / f'{number}.png'), stored)


def test_palette_is_the_one_in_vocs_files(real_data: Path) -> None:
    file = next((real_data / 'VOCdevkit/VOC2012/SegmentationClass').glob('*.png'))
    with Image.open(file) as picture:
        theirs = np.array(picture.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(voc_palette()[: len(theirs)], theirs)
