"""Masks of colours, one a class: read as class indices by a list of colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from falconet.core.errors import listing
from falconet.datasets.formats.masks import IGNORE, opened_mask, pixels_of, refuse_jpeg, voc_palette
from falconet.datasets.images.images import ImageError

BORDER = tuple(int(each) for each in voc_palette()[IGNORE])  # VOC's colour of pixels that do not count
Colour = tuple[int, int, int]


def read_colour_mask(path: Path | str, colours: Sequence[Colour], *, exif: str = 'auto') -> np.ndarray:
    """Read a mask as class indices, uint8 (H, W); VOC's border colour becomes 255.

    Args:
        path: a PNG of colours, or of positions in a palette that has them.
        colours: (red, green, blue) of each class, in the order of the indices.
        exif: as in `datasets.formats.masks.read_mask`.

    Raises:
        ImageError: missing, unreadable, a JPEG, or a pixel has a colour that is not in the list.
    """
    with opened_mask(path) as picture:
        refuse_jpeg(path, picture, what='colours')
        pixels = pixels_of(picture, exif=exif, mode='RGB').astype(np.int64)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    table = {red << 16 | green << 8 | blue: index for index, (red, green, blue) in enumerate(colours)}
    table.setdefault(BORDER[0] << 16 | BORDER[1] << 8 | BORDER[2], IGNORE)
    known = np.array(sorted(table))
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    if (wrong := known[place] != codes).any():
        found = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in np.unique(codes[wrong])]
        raise ImageError(
            path, f'{int(wrong.sum())} pixels of colours that are not in the list: {listing(found)}'
        )
    return np.array([table[code] for code in known.tolist()], dtype=np.uint8)[place]
