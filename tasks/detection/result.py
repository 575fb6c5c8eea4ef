"""The answer to one image: boxes with class and score, and a picture of them."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from tasks.report.boxes import draw_boxes

DRAWN_FROM = 0.3


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """What a detector finds in one image.

    Attributes:
        boxes: xyxy in pixels of the original image, float32 (K, 4).
        scores: float32 (K,), best first.
        labels: class indices, int64 (K,).
        class_names: names by index.
        image: the picture, RGB uint8 (H, W, 3); None where it was not kept.
        path: the file it came from; None for an array.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = field(repr=False)
    image: np.ndarray | None = field(default=None, repr=False)
    path: str | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score_threshold: float) -> 'DetectionResult':
        """Return the detections that score at least `score_threshold`."""
        keep = self.scores >= score_threshold
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])

    def title(self) -> str:
        """Return one line for a caption: how many of which class score at least 0.3."""
        labels = self.above(DRAWN_FROM).labels
        names = [f'{(labels == label).sum()} {self.class_names[label]}' for label in np.unique(labels)]
        return ', '.join(names) or 'nothing found'

    def summary(self) -> dict[str, Any]:
        """Return what predictions.json holds of this image: all detections, boxes as xyxy in pixels."""
        return {
            'path': self.path,
            'detections': [
                {
                    'box': [round(float(value), 2) for value in box],
                    'score': round(float(score), 6),
                    'label': int(label),
                    'class_name': self.class_names[label],
                }
                for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
            ],
        }

    def preview(self) -> Image.Image:
        """Return what a contact sheet shows: the picture with its boxes."""
        return self.draw()

    def draw(self, image: np.ndarray | None = None, *, score_threshold: float = DRAWN_FROM) -> Image.Image:
        """Return the picture with boxes, classes and scores drawn into it.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result.
            score_threshold: leave out what scores less.

        Raises:
            ValueError: the result kept no picture and none was given.
        """
        image = self.image if image is None else image
        if image is None:
            raise ValueError('this result kept no picture: pass one, result.draw(image)')
        shown = self.above(score_threshold)
        titles = [
            f'{self.class_names[label]} {score:.2f}'
            for label, score in zip(shown.labels, shown.scores, strict=True)
        ]
        return draw_boxes(Image.fromarray(image), shown.boxes, titles, shown.labels)
