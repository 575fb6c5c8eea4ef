"""The usual transforms of a picture that has nothing beside it, without albumentations' checks and wrappers.

Of a picture of 150 px those take longer than the flip. Draws and pixels are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# What a transform does to RGB uint8 (H, W, 3) once it is drawn that it does something.
Step = Callable[[Any, np.ndarray], np.ndarray]


def quick_steps(transforms: Sequence[Any]) -> list[tuple[Any, Step]] | None:
    """Pair built transforms of albumentations with what each does, drawing from its `py_random` alone.

    Returns:
        None where one is not among those known here: a subclass may do anything.
    """
    import albumentations

    known: dict[type, Step] = {
        albumentations.RandomResizedCrop: _crop_and_resize,
        albumentations.HorizontalFlip: _flip_sides,
    }
    if not all(type(transform) in known for transform in transforms):
        return None
    return [(transform, known[type(transform)]) for transform in transforms]


def _crop_and_resize(transform: Any, image: np.ndarray) -> np.ndarray:
    import cv2

    drawn = transform.get_params_dependent_on_data({'shape': image.shape}, {'image': image})
    if transform.area_for_downscale is not None:
        return transform.apply(image, **drawn)
    height, width = transform.size
    left, upper, right, lower = drawn['crop_coords']
    part = image[upper:lower, left:right]
    if part.shape[:2] == (height, width):
        return part
    return cv2.resize(part, (width, height), interpolation=transform.interpolation)


def _flip_sides(transform: Any, image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.flip(image, 1)
