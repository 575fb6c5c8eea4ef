"""How much smaller a photograph may be decoded, seen from what its transforms will keep of it.

JPEG stores blocks of 8x8 frequencies, and libjpeg can turn each into 4x4, 2x2 or 1 pixel: an average, where a
resize that does not average would pick pixels. A crop that ends up a tenth of its size needs no more.
"""

import math
from collections.abc import Sequence
from typing import Any

# A crop keeps at least so many times the pixels it is resized to, along each side: what Pillow calls the
# reducing gap. Measured on photographs of 12 megapixels (crops of half the area or more to 224 px): 3.3 grey
# levels from an averaging resize of all pixels; albumentations' own, which picks pixels, is 3.7 from it.
GAP = 1.5
FACTORS = (8, 4, 2)


def reduction(transforms: Sequence[Any], height: int, width: int) -> int:
    """Return by how much a picture's sides may be divided before the transforms: 1, 2, 4 or 8.

    Transforms say how much smaller they make it with a method `shrinks(height, width)`, and crops that come
    before with `least_side`, the share of a side that they keep. Where one is not known it is 1. What makes
    one sample of several (`combines`) need not happen: there must be pixels enough with and without it.

    Args:
        transforms: built ones, in order.
        height, width: of the whole picture as seen, in pixels.
    """
    import albumentations

    share, most = 1.0, math.inf
    for transform in transforms:
        if isinstance(transform, (albumentations.HorizontalFlip, albumentations.VerticalFlip)):
            continue
        if getattr(transform, 'combines', False):
            most = min(most, share * transform.shrinks(height, width))
            continue
        if (least := getattr(transform, 'least_side', None)) is not None:
            share *= least
            continue
        shrinks = min(most, share * _shrinks(transform, height, width))
        return next((factor for factor in FACTORS if factor * GAP <= shrinks), 1)
    return 1


def _shrinks(transform: Any, height: int, width: int) -> float:
    """Return how many pixels along a side become one, at least; 1 where that is not known."""
    import albumentations

    if transform.p < 1:
        return 1.0
    if (method := getattr(transform, 'shrinks', None)) is not None:
        return method(height, width)
    if isinstance(transform, albumentations.RandomResizedCrop):
        rows, columns = _smallest_crop(transform, height, width)
        return min(rows / transform.size[0], columns / transform.size[1])
    if isinstance(transform, albumentations.Resize):
        return min(height / transform.height, width / transform.width)
    return 1.0


def _smallest_crop(transform: Any, height: int, width: int) -> tuple[float, float]:
    """Return the least (height, width) that albumentations' RandomResizedCrop cuts out."""
    narrow, wide = transform.ratio
    area = height * width * transform.scale[0]
    rows, columns = min(height, math.sqrt(area / wide)), min(width, math.sqrt(area * narrow))
    # What it takes when nothing that was drawn lies within the picture.
    if width / height < narrow:
        rows = min(rows, width / narrow)
    elif width / height > wide:
        columns = min(columns, height * wide)
    return rows, columns
