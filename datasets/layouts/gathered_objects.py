"""Objects of one split gathered picture by picture, for formats that have a line or a file for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from falconet.datasets.annotations import ImageRecord
from falconet.datasets.formats.coco import CocoObjects


class Gathered:
    """Collects pictures and their objects; `objects` gives them as `datasets.formats.coco` does."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self._label = {name: index for index, name in enumerate(self.classes)}
        self._images: list[ImageRecord] = []
        self._rows: list[tuple[int, int]] = []
        self._boxes: list[Sequence[float]] = []
        self._outlines: list[Any] = []

    def picture(self, path: Path, size: tuple[int, int]) -> None:
        """Begin a picture of (height, width) pixels; numbered from 1."""
        self._images.append(ImageRecord(len(self._images) + 1, str(path), size))

    def add(self, name: str, box: Sequence[float], outline: Any = None) -> None:
        """Add an object of the class `name` to the last picture; `box` is xyxy in pixels."""
        self._rows.append((len(self._images) - 1, self._label[name]))
        self._boxes.append(box)
        self._outlines.append(outline)

    def objects(self) -> CocoObjects:
        """Return everything."""
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 2)
        boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4)
        columns = {
            'owners': rows[:, 0],
            'labels': rows[:, 1].astype(np.int32),
            'crowd': np.zeros(len(rows), dtype=bool),
            'object_ids': np.arange(1, len(rows) + 1),
            'areas': (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            'boxes': boxes,
        }
        ids = list(range(1, len(self.classes) + 1))
        return CocoObjects(self._images, ids, self.classes, columns, self._outlines)


def decimal(text: str, *, where: str) -> float:
    """Return a number, or raise ValueError saying where: a comma as decimal point is named as such."""
    try:
        return float(text)
    except ValueError:
        hint = ': a comma as decimal point? Write a point' if ',' in text else ''
        raise ValueError(f'{where} should be a number, got {text!r}{hint}') from None
