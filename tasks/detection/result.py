"""The answer to one image: boxes with class and score, and a picture of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from falconet.report.boxes import paint_boxes
from falconet.tasks.detection.tiles import join_boxes
from falconet.tasks.results import class_indices, picture_to_draw
from falconet.tasks.tiles import Place

DRAWN_FROM = 0.3
CORNERS = ('x_min', 'y_min', 'x_max', 'y_max')


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

    # Of a picture in tiles, the whole is looked at, too: it shows what is larger than a tile.
    tiles_with_whole: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: Any) -> 'DetectionResult':
        """Return some of the detections as a result: `[0]`, `[:5]`, `[scores > 0.5]`, `['dog']`.

        Args:
            which: a position, a slice, an array of positions or of booleans, or a class name.

        Raises:
            IndexError: there is no such position.
            ValueError: there is no such class.
        """
        if isinstance(which, str):
            return self.of(which)
        if isinstance(which, (int, np.integer)):
            which = [range(len(self))[which]]
        return replace(self, boxes=self.boxes[which], scores=self.scores[which], labels=self.labels[which])

    def of(self, *classes: str | int) -> 'DetectionResult':
        """Return the detections of some classes, by name or index."""
        return self[np.isin(self.labels, class_indices(classes, self.class_names))]

    def above(self, score_threshold: float) -> 'DetectionResult':
        """Return the detections that score at least `score_threshold`."""
        return self[self.scores >= score_threshold]

    @classmethod
    def from_tiles(
        cls, results: Sequence['DetectionResult'], places: Sequence[Place], **kept: Any
    ) -> 'DetectionResult':
        """Return the result of a picture from those of its tiles; see `tasks.detection.tiles`."""
        found = [(each.boxes, each.scores, each.labels) for each in results]
        return cls(*join_boxes(found, places), **kept)

    def to_torchvision(self) -> dict[str, Any]:
        """Return what torchvision's detectors do: tensors `boxes` xyxy (K, 4), `scores` and `labels` (K,)."""
        import torch

        named = {'boxes': self.boxes, 'scores': self.scores, 'labels': self.labels}
        return {key: torch.from_numpy(value.copy()) for key, value in named.items()}

    @classmethod
    def from_torchvision(
        cls, answer: Mapping[str, Any], class_names: Sequence[str], **kept: Any
    ) -> 'DetectionResult':
        """Return the result of such a dict; labels are positions in `class_names`."""
        boxes, scores, labels = (answer[key].detach().cpu().numpy() for key in ('boxes', 'scores', 'labels'))
        return cls._sorted(boxes, scores, labels, class_names, **kept)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`, with the names in `data['class_name']`."""
        import supervision  # pyright: ignore[reportMissingImports]

        names = np.array([self.class_names[label] for label in self.labels], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={'class_name': names},
        )

    @classmethod
    def from_supervision(cls, found: Any, class_names: Sequence[str], **kept: Any) -> 'DetectionResult':
        """Return the result of `supervision.Detections`; without confidences everything scores 1.

        Raises:
            ValueError: they say no classes.
        """
        if found.class_id is None and len(found.xyxy):
            raise ValueError(f'{len(found.xyxy)} detections have no class: set their class_id')
        scores = np.ones(len(found.xyxy)) if found.confidence is None else found.confidence
        return cls._sorted(found.xyxy, scores, found.class_id, class_names, **kept)

    def to_coco(self, image_id: int, *, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return COCO's result format: `image_id`, `category_id`, `bbox` as x, y, width, height, `score`.

        Args:
            image_id: the picture's.
            category_ids: identifier of each class; by default its position, from 1.
        """
        numbers = category_ids or range(1, len(self.class_names) + 1)
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {
                'image_id': image_id,
                'category_id': int(numbers[label]),
                'bbox': [round(float(value), 2) for value in box],
                'score': round(float(score), 6),
            }
            for box, score, label in zip(sides, self.scores, self.labels, strict=True)
        ]

    @classmethod
    def from_coco(
        cls,
        entries: Sequence[Mapping[str, Any]],
        class_names: Sequence[str],
        *,
        category_ids: Sequence[int] | None = None,
        **kept: Any,
    ) -> 'DetectionResult':
        """Return the result of one picture's entries."""
        numbers = list(category_ids or range(1, len(class_names) + 1))
        boxes = np.array([each['bbox'] for each in entries], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = [each.get('score', 1.0) for each in entries]
        labels = [numbers.index(each['category_id']) for each in entries]
        return cls._sorted(boxes, scores, labels, class_names, **kept)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per box: corners in pixels, `score`, `label`, `class_name`."""
        import pandas  # pyright: ignore[reportMissingImports]

        frame = pandas.DataFrame(self.boxes, columns=list(CORNERS))  # type: ignore[arg-type]
        names = [self.class_names[label] for label in self.labels]
        return frame.assign(score=self.scores, label=self.labels, class_name=names)

    @classmethod
    def from_frame(cls, frame: Any, class_names: Sequence[str], **kept: Any) -> 'DetectionResult':
        """Return the result of such a frame."""
        boxes = frame[list(CORNERS)].to_numpy()
        return cls._sorted(boxes, frame['score'], frame['label'], class_names, **kept)

    @classmethod
    def _sorted(
        cls, boxes: Any, scores: Any, labels: Any, class_names: Sequence[str], **kept: Any
    ) -> 'DetectionResult':
        scores = np.asarray(scores, np.float32)
        result = cls(
            np.asarray(boxes, np.float32).reshape(-1, 4),
            scores,
            np.asarray(labels, np.int64),
            tuple(class_names),
            **kept,
        )
        return result[np.argsort(-scores, kind='stable')]

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

    def draw(
        self,
        image: np.ndarray | None = None,
        *,
        score_threshold: float = DRAWN_FROM,
        classes: str | int | Sequence[str | int] | None = None,
        line_width: int | None = None,
        font_size: float | None = None,
    ) -> Image.Image:
        """Return the picture with boxes, classes and scores drawn into it.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result, or that at its path.
            score_threshold: leave out what scores less.
            classes: draw these only, by name or index.
            line_width, font_size: in pixels of the returned picture, by default by its size and that of the
                boxes; font_size 0 leaves the titles out.

        Raises:
            ValueError: the result kept no picture and none was given, or there is no such class.
        """
        shown = (
            self if classes is None else self[np.isin(self.labels, class_indices(classes, self.class_names))]
        )
        return Image.fromarray(
            shown.painted(image, score_threshold=score_threshold, line_width=line_width, font_size=font_size)
        )

    def painted(
        self, image: np.ndarray | None = None, *, score_threshold: float = DRAWN_FROM, **look: Any
    ) -> np.ndarray:
        """Return what `draw` does as an array, RGB uint8: a frame of a video; `look` as `paint_boxes`."""
        shown = self.above(score_threshold)
        titles = [
            f'{self.class_names[label]} {score:.2f}'
            for label, score in zip(shown.labels, shown.scores, strict=True)
        ]
        pixels = picture_to_draw(image, self.image, self.path)
        return paint_boxes(pixels, shown.boxes, titles, shown.labels, **look)
