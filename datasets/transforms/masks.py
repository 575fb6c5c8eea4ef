"""Transforms of segmentation: random scale and crop of image and mask together."""

from collections.abc import Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
from mmengine.registry import TRANSFORMS

from falconet.datasets.transforms.augment import IMAGENET_MEAN
from falconet.datasets.transforms.resize import as_size
from falconet.heads.base import IGNORE


@TRANSFORMS.register_module()
class RandomScaleCrop(albumentations.DualTransform):
    """Scale image and mask by one random factor and cut a random window out of them.

    Where the scaled image is smaller than the window, it lies in the upper left corner, the rest is filled.
    Scaling and cutting are one resampling, linear for the image and nearest for the mask, so the cost
    does not depend on the image's size. (albumentations' RandomScale fails on an image one pixel wide.)

    Args:
        scale: least and largest factor. Recipe of DeepLab: 0.5 to 2.
        size: (height, width) of the window, or its side, in pixels.
        fill: RGB of what is filled in the image.
        fill_mask: label of what is filled in the mask.
    """

    fill: Any  # the base class declares both as numbers
    fill_mask: Any

    def __init__(
        self,
        scale: Sequence[float] = (0.5, 2.0),
        size: int | Sequence[int] = 513,
        fill: Sequence[int] = IMAGENET_MEAN,
        fill_mask: int = IGNORE,
    ) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f'scale must be (least, largest), above 0, got {scale}')
        super().__init__(p=1.0)
        self.scale = tuple(scale)
        self.size = as_size(size)
        self.fill = tuple(fill)
        self.fill_mask = fill_mask

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the factor and the place of the window; return the map from window to image, (2, 3)."""
        factor = self.py_random.uniform(*self.scale)
        rows = []
        for axis in (1, 0):  # x, then y
            scaled = max(1, round(params['shape'][axis] * factor))
            start = self.py_random.randint(0, max(0, scaled - self.size[axis]))
            # Both grids have their first pixel's centre half a pixel from the edge.
            offset = (start + 0.5) / factor - 0.5
            rows.append([1 / factor, 0, offset] if axis == 1 else [0, 1 / factor, offset])
        return {'matrix': np.array(rows)}

    def apply(self, img: np.ndarray, matrix: np.ndarray, **params: Any) -> np.ndarray:
        return self._warp(img, matrix, cv2.INTER_LINEAR, self.fill)

    def apply_to_mask(self, mask: np.ndarray, matrix: np.ndarray, **params: Any) -> np.ndarray:
        return self._warp(mask, matrix, cv2.INTER_NEAREST, (self.fill_mask,))

    def _warp(self, array: np.ndarray, matrix: np.ndarray, method: int, fill: Sequence[int]) -> np.ndarray:
        height, width = self.size
        return cv2.warpAffine(
            array,
            matrix,
            (width, height),
            flags=method | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=tuple(float(each) for each in fill),
        )

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('scale', 'size', 'fill', 'fill_mask')
