"""SSD's own augmentations: a random crop that keeps an object in view, and a random zoom out.

SSD, arXiv 1512.02325, section 2.2, "Data augmentation", and section 3.6 (zooming out).
"""

from typing import Any

import cv2
import numpy as np
from albumentations import DualTransform
from albumentations.augmentations.crops.transforms import BaseCrop
from albumentations.core.type_definitions import Targets
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomIoUCrop(BaseCrop):
    """Crop a random part whose overlap with at least one object reaches a random minimum.

    The minimum is drawn from `min_ious`, with "the whole image" and "any part" as two further choices.
    Boxes whose centre is outside the crop are dropped, the others clipped to it.

    Args:
        min_ious: least IoU of the crop with an object.
        min_scale: least side of the crop, in fractions of the image's.
        max_aspect: the crop's sides, in fractions of the image's, differ by no more than this factor.
        trials: crops tried for each drawn minimum.
        p: probability of doing anything.
    """

    def __init__(
        self,
        min_ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_scale: float = 0.3,
        max_aspect: float = 2.0,
        trials: int = 50,
        p: float = 1.0,
    ) -> None:
        if not all(0 <= each <= 1 for each in min_ious):
            raise ValueError(f'min_ious must lie in 0..1, got {min_ious}')
        if not 0 < min_scale <= 1 or max_aspect < 1 or trials < 1:
            raise ValueError(
                'need 0 < min_scale <= 1, max_aspect >= 1 and trials >= 1, '
                f'got {min_scale}, {max_aspect} and {trials}'
            )
        super().__init__(p=p)
        self.min_ious = tuple(min_ious)
        self.min_scale = min_scale
        self.max_aspect = max_aspect
        self.trials = trials

    @property
    def targets_as_params(self) -> list[str]:
        return ['bboxes']

    @property
    def least_side(self) -> float:
        """Share of each side that is kept at least; see `datasets.transforms.jpeg_draft`."""
        return self.min_scale

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params['shape'][:2]
        table = np.asarray(data['bboxes'], dtype=np.float64)
        crop = self._draw(table[:, :4] if table.size else np.zeros((0, 4)))
        left, top, right, bottom = crop
        x, y = round(left * width), round(top * height)
        return {'crop_coords': (x, y, max(x + 1, round(right * width)), max(y + 1, round(bottom * height)))}

    def _draw(self, boxes: np.ndarray) -> np.ndarray:
        """Return a crop, unit xyxy (4,)."""
        whole = np.array([0.0, 0.0, 1.0, 1.0])
        rng = self.random_generator
        choices = (None, 0.0, *self.min_ious)
        for _ in range(10):
            least = choices[rng.integers(len(choices))]
            if least is None:
                return whole
            sides = rng.uniform(self.min_scale, 1.0, (self.trials, 2))
            corners = rng.uniform(0.0, 1.0, (self.trials, 2)) * (1 - sides)
            crops = np.concatenate([corners, corners + sides], axis=1)  # (trials, 4)
            aspect = sides[:, 0] / sides[:, 1]
            good = (aspect <= self.max_aspect) & (aspect >= 1 / self.max_aspect)
            if len(boxes):
                shared = np.minimum(crops[:, None, 2:], boxes[None, :, 2:]) - np.maximum(
                    crops[:, None, :2], boxes[None, :, :2]
                )
                shared = shared.clip(0).prod(axis=2)  # (trials, M)
                areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
                iou = shared / (sides.prod(axis=1)[:, None] + areas[None] - shared)
                # An object must stay, and its centre is what decides that.
                good &= ((iou >= least) & centres_inside(crops[:, None], boxes[None])).any(axis=1)
            if good.any():
                return crops[good.argmax()]
        return whole

    def apply_to_bboxes(
        self, bboxes: np.ndarray, crop_coords: tuple[int, int, int, int], **params: Any
    ) -> np.ndarray:
        height, width = params['shape'][:2]
        crop = np.array(crop_coords) / [width, height, width, height]
        return super().apply_to_bboxes(bboxes[centres_inside(crop, bboxes[:, :4])], crop_coords, **params)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('min_ious', 'min_scale', 'max_aspect', 'trials')


@TRANSFORMS.register_module()
class ZoomOut(DualTransform):
    """Put the image somewhere on a larger canvas of one colour, so that its objects become small.

    Args:
        max_ratio: the canvas's sides are 1 to this many times the image's.
        fill: colour of the canvas, RGB 0 to 255; by default ImageNet's mean.
        p: probability of doing anything.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)
    least_side = 1.0  # nothing is cut off; see `datasets.transforms.jpeg_draft`

    def __init__(
        self, max_ratio: float = 4.0, fill: tuple[float, float, float] = (124, 116, 104), p: float = 0.5
    ) -> None:
        if max_ratio < 1:
            raise ValueError(f'max_ratio must be at least 1, got {max_ratio}')
        super().__init__(p=p)
        self.max_ratio = max_ratio
        self.fill = tuple(fill)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params['shape'][:2]
        ratio = self.random_generator.uniform(1, self.max_ratio)
        rows, columns = round(height * ratio), round(width * ratio)
        top = int(self.random_generator.integers(rows - height + 1))
        left = int(self.random_generator.integers(columns - width + 1))
        return {'canvas': (rows, columns), 'corner': (top, left)}

    def apply(
        self, img: np.ndarray, canvas: tuple[int, int], corner: tuple[int, int], **params: Any
    ) -> np.ndarray:
        (rows, columns), (top, left) = canvas, corner
        bottom, right = rows - top - img.shape[0], columns - left - img.shape[1]
        return cv2.copyMakeBorder(img, top, bottom, left, right, cv2.BORDER_CONSTANT, value=self.fill)

    def apply_to_bboxes(
        self, bboxes: np.ndarray, canvas: tuple[int, int], corner: tuple[int, int], **params: Any
    ) -> np.ndarray:
        height, width = params['shape'][:2]
        moved = bboxes.copy()
        scale = np.array([width / canvas[1], height / canvas[0]] * 2)
        shift = np.array([corner[1] / canvas[1], corner[0] / canvas[0]] * 2)
        moved[:, :4] = bboxes[:, :4] * scale + shift
        return moved

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('max_ratio', 'fill')


def centres_inside(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return whether the centres of boxes lie in crops, both xyxy (..., 4)."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    return np.all((centres > crops[..., :2]) & (centres < crops[..., 2:]), axis=-1)
