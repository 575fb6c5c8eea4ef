"""Fitting pictures of any size into the network's input without changing their shape."""

from collections.abc import Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
from albumentations.core.type_definitions import Targets
from mmengine.registry import TRANSFORMS

from heads.deeplabv3 import IGNORE

IMAGENET_MEAN = (124, 116, 104)  # mean pixel of ImageNet, RGB in 0..255: zero after normalisation


def as_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of a size given as that or as one side; ValueError unless both are above 0."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f'size must be above 0, got {size}')
    return height, width


@TRANSFORMS.register_module()
class ResizePad(albumentations.DualTransform):
    """Fit an image into a box, keeping its shape, and fill the box to the right and below.

    The evaluation of DeepLab, where 513 holds every VOC image unscaled. A large photograph costs no more than
    a small one; boxes and masks are brought back to its own size by the head.

    Args:
        size: (height, width) of the box, or its side, in pixels.
        fill: RGB of the rest of the box.
        fill_mask: label of the rest of a mask.
        enlarge: also enlarge images that are smaller than the box.
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)
    fill: Any  # the base class declares both as numbers
    fill_mask: Any

    def __init__(
        self,
        size: int | Sequence[int] = 513,
        fill: Sequence[int] = IMAGENET_MEAN,
        fill_mask: int = IGNORE,
        enlarge: bool = False,
    ) -> None:
        super().__init__(p=1.0)
        self.size = as_size(size)
        self.fill = tuple(fill)
        self.fill_mask = fill_mask
        self.enlarge = enlarge

    def content_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that an image of this size has inside the box, in pixels."""
        scale = min(self.size[0] / height, self.size[1] / width)
        scale = scale if self.enlarge else min(1.0, scale)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        shrinks = self.content_size(*img.shape[:2])[0] < img.shape[0]
        return self._fit(img, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR, self.fill)

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return self._fit(mask, cv2.INTER_NEAREST, (self.fill_mask,))

    def apply_to_bboxes(self, bboxes: np.ndarray, **params: Any) -> np.ndarray:
        height, width = self.content_size(*params['shape'][:2])
        moved = bboxes.copy()
        moved[:, :4] *= [width / self.size[1], height / self.size[0]] * 2
        return moved

    def _fit(self, array: np.ndarray, method: int, fill: Sequence[int]) -> np.ndarray:
        height, width = self.content_size(*array.shape[:2])
        if (height, width) != array.shape[:2]:
            array = cv2.resize(array, (width, height), interpolation=method)
        return cv2.copyMakeBorder(
            array,
            0,
            self.size[0] - height,
            0,
            self.size[1] - width,
            cv2.BORDER_CONSTANT,
            value=tuple(float(each) for each in fill),
        )

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('size', 'fill', 'fill_mask', 'enlarge')
