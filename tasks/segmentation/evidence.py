"""What is kept of each picture of an evaluation: a few counts of all, the masks of those that are most wrong.

Memory is bounded: a row of a few numbers a picture, and small masks of `WORST` pictures and of `OF_A_CLASS`
for each class, packed.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

WORST = 12
OF_A_CLASS = 3
SIDE = 320  # pixels of the longer side of a mask that is kept


class PictureRow(NamedTuple):
    """One picture.

    Attributes:
        picture: its number in the data set.
        numbers: int32 (k, 4): class, pixels that are right, true, and predicted, of the classes it shows.
        iou: mean over those classes; 1 where no pixel is labelled.
        lost: pixels of each class that were given another.
    """

    picture: int
    numbers: np.ndarray
    iou: float
    lost: dict[int, int]


class KeptMask(NamedTuple):
    """An answer that is kept: the picture's row, and its mask, packed."""

    row: PictureRow
    packed: bytes
    shape: tuple[int, int]

    def mask(self) -> np.ndarray:
        """Return the mask, uint8 (h, w), smaller than the picture's own."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)


def picture_row(index: int, pixels: np.ndarray) -> PictureRow:
    """Return the row of a picture from its confusion matrix (C, C)."""
    right, true, predicted = pixels.diagonal(), pixels.sum(axis=1), pixels.sum(axis=0)
    shown = np.flatnonzero(true + predicted)
    right, true, predicted = right[shown], true[shown], predicted[shown]
    numbers = np.stack((shown, right, true, predicted), axis=1).astype(np.int32)
    iou = float((right / (true + predicted - right)).mean()) if len(shown) else 1.0
    away = zip(shown.tolist(), (true - right).tolist(), strict=True)
    return PictureRow(index, numbers, iou, {label: count for label, count in away if count})


def _places(kept: Sequence[KeptMask], row: PictureRow | None = None) -> tuple[set[int], bool]:
    """Which of `kept` are among the worst or the worst of a class, and whether a new picture would be."""
    rows = [each.row for each in kept] + ([row] if row is not None else [])
    wanted: set[int] = set()
    order = sorted(range(len(rows)), key=lambda place: (rows[place].iou, rows[place].picture))
    wanted.update(place for place in order[:WORST] if rows[place].iou < 1)
    of_class: dict[int, list[tuple[int, int, int]]] = {}
    for place, each in enumerate(rows):
        for label, pixels in each.lost.items():
            of_class.setdefault(label, []).append((-pixels, each.picture, place))
    for found in of_class.values():
        wanted.update(place for _, _, place in sorted(found)[:OF_A_CLASS])
    new = len(kept)
    return wanted - {new}, new in wanted


def keep_worst(kept: list[KeptMask], row: PictureRow, mask: np.ndarray) -> None:
    """Take a mask, uint8 (H, W), into `kept` if it is among the worst; let go of those that no longer are."""
    wanted, is_new = _places(kept, row)
    if not is_new:
        return
    kept[:] = [each for place, each in enumerate(kept) if place in wanted]
    scale = min(1.0, SIDE / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = np.ascontiguousarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
    kept.append(KeptMask(row, zlib.compress(small.tobytes(), 1), (small.shape[0], small.shape[1])))


def worst_of(kept: Sequence[KeptMask]) -> list[KeptMask]:
    """Return those of several processes that are among the worst of all, the worst first."""
    wanted, _ = _places(kept)
    return sorted((kept[place] for place in wanted), key=lambda each: (each.row.iou, each.row.picture))


@dataclass(frozen=True)
class Counts:
    """The rows of all pictures."""

    rows: Sequence[PictureRow]

    def __len__(self) -> int:
        return len(self.rows)

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which picture each line of numbers belongs to, (R,), and the lines, int64 (R, 4)."""
        rows = sorted(self.rows, key=lambda row: row.picture)
        picture = np.repeat(np.arange(len(rows)), [len(row.numbers) for row in rows])
        lines = np.concatenate([np.zeros((0, 4), np.int64), *(row.numbers for row in rows)])
        return picture, lines.astype(np.int64)
