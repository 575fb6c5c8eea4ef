"""Boxes of overlapping tiles as those of one picture."""

from collections.abc import Sequence

import numpy as np

from tasks.data.tiles import Place

IOU = 0.5  # from which two boxes of a class are one object
INSIDE = 0.7  # share of a cut box inside a whole one from which it is a part of that
EDGE = 2.0  # pixels from a tile's inner edge at which a box counts as cut


def join_boxes(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], places: Sequence[Place]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels of the picture, best first.

    A box that ends at a seam is a part of its object. It goes where a tile that sees all of the object says
    so; then boxes of one class suppress each other as within a tile.

    Args:
        found: boxes xyxy (K, 4) in pixels of its place, scores (K,) and labels (K,), for each place.
        places: the tiles, and the whole picture if it was looked at, too.
    """
    import torch
    from torchvision.ops import batched_nms

    width, height = max(place[2] for place in places), max(place[3] for place in places)
    boxes, cuts = [], []
    for (inside, _, _), place in zip(found, places, strict=True):
        moved = inside + np.array([place[0], place[1]] * 2, np.float32)
        inner = np.array([place[0] > 0, place[1] > 0, place[2] < width, place[3] < height])
        boxes.append(moved)
        cuts.append(((np.abs(moved - np.array(place)) <= EDGE) & inner).any(axis=1))
    every, cut = np.concatenate(boxes).astype(np.float32), np.concatenate(cuts)
    scores = np.concatenate([each[1] for each in found]).astype(np.float32)
    labels = np.concatenate([each[2] for each in found]).astype(np.int64)
    keep = np.ones(len(every), bool)
    whole = np.flatnonzero(~cut)
    for index in np.flatnonzero(cut):
        others = whole[(labels[whole] == labels[index]) & (scores[whole] >= scores[index] / 2)]
        keep[index] = not (_inside(every[index], every[others]) >= INSIDE).any()
    every, scores, labels = every[keep], scores[keep], labels[keep]
    best = batched_nms(torch.from_numpy(every), torch.from_numpy(scores), torch.from_numpy(labels), IOU)
    order = best.numpy()
    return every[order], scores[order], labels[order]


def _inside(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of a box (4,) that lies inside each of others (K, 4)."""
    corner, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(end - corner, 0, None).prod(axis=1)
    return common / max(float((box[2:] - box[:2]).prod()), 1e-6)
