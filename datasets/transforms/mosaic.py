"""Four pictures in one: each sample of a small set is seen beside others, smaller, and in other places.

YOLOv4, arXiv 2004.10934, section 3.4. The pictures are stretched into their quarters, as the network's input
stretches them, so that every box stays whole; a random crop may follow. (albumentations' transform of this
name cuts what does not fit a quarter, and wants the other pictures read beforehand, for every sample.)
"""

from typing import Any

import cv2
import numpy as np
from albumentations import DualTransform
from albumentations.core.type_definitions import Targets
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Mosaic(DualTransform):
    """Put the picture into one quarter of a canvas, and three others of the data set into the rest.

    Args:
        height, width: of the canvas, in pixels.
        centre: where the quarters meet is drawn from this range, in fractions of the canvas, along each side.
        p: probability of doing anything.

    Raises:
        ValueError: `centre` is not a range within 0 to 1.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)
    combines = True  # reads other samples; see `datasets.dataset.Others`

    def __init__(
        self, height: int, width: int, centre: tuple[float, float] = (0.35, 0.65), p: float = 0.5
    ) -> None:
        if min(height, width) < 2:
            raise ValueError(f'height and width must be at least 2, got {height} and {width}')
        if len(centre) != 2 or not 0 < centre[0] <= centre[1] < 1:
            raise ValueError(f'centre must be a range (least, most) inside 0..1, got {centre}')
        super().__init__(p=p)
        self.height, self.width = height, width
        self.centre = (centre[0], centre[1])

    def shrinks(self, height: int, width: int) -> float:
        """Return how many pixels along a side become one in the largest quarter; see `jpeg_draft`."""
        return min(height / self.height, width / self.width) / self.centre[1]

    @property
    def targets_as_params(self) -> list[str]:
        return ['others']

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        rng, others = self.random_generator, data['others']
        share = rng.uniform(self.centre[0], self.centre[1], 2)
        row, column = (
            int(np.clip(round(side * each), 1, side - 1))
            for side, each in zip((self.height, self.width), share, strict=True)
        )
        cells = [
            (top, left, bottom, right)
            for top, bottom in ((0, row), (row, self.height))
            for left, right in ((0, column), (column, self.width))
        ]
        chosen = rng.integers(others.count, size=3)
        return {
            'cells': [cells[place] for place in rng.permutation(4)],
            'further': [others.load(int(number)) for number in chosen],
        }

    def apply(
        self,
        img: np.ndarray,
        cells: list[tuple[int, int, int, int]],
        further: list[dict[str, Any]],
        **params: Any,
    ) -> np.ndarray:
        canvas = np.empty((self.height, self.width, img.shape[2]), img.dtype)
        for picture, (top, left, bottom, right) in zip(
            [img, *(each['image'] for each in further)], cells, strict=True
        ):
            size = (right - left, bottom - top)
            shrinks = size[0] < picture.shape[1] and size[1] < picture.shape[0]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            canvas[top:bottom, left:right] = cv2.resize(picture, size, interpolation=method)
        return canvas

    def apply_to_bboxes(
        self,
        bboxes: np.ndarray,
        cells: list[tuple[int, int, int, int]],
        further: list[dict[str, Any]],
        **params: Any,
    ) -> np.ndarray:
        canvas, moved = np.array([self.width, self.height] * 2), []
        columns = further[0]['bboxes'].shape[1]  # albumentations makes an empty table narrower
        for table, (top, left, bottom, right) in zip(
            [bboxes, *(each['bboxes'] for each in further)], cells, strict=True
        ):
            table = np.array(table, dtype=np.float32).reshape(-1, columns)
            size, corner = np.array([right - left, bottom - top] * 2), np.array([left, top] * 2)
            table[:, :4] = (table[:, :4].clip(0, 1) * size + corner) / canvas
            moved.append(table)
        return np.concatenate(moved)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('height', 'width', 'centre')
