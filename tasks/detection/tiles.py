"""Boxes of overlapping tiles as those of one picture."""

from collections.abc import Sequence

import numpy as np

from falconet.tasks.tiles import Place

IOU = 0.5  # from which two boxes of a class are one object
INSIDE = 0.7  # share of a cut box inside a whole one from which it is a part of that
EDGE = 0.02  # of a tile's side: a box that ends so near to an inner edge counts as cut


def join_boxes(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], places: Sequence[Place]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels of the picture, best first.

    A box that ends at a seam is a part of its object. It goes where a tile that sees all of the object says
    so. Where none does, parts of which their tiles say the same as far as both look become one box around
    them. Then boxes of one class suppress each other as within a tile.

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
        near = max(2.0, EDGE * max(place[2] - place[0], place[3] - place[1]))
        boxes.append(moved)
        cuts.append(((np.abs(moved - np.array(place)) <= near) & inner).any(axis=1))
    every, cut = np.concatenate(boxes).astype(np.float32), np.concatenate(cuts)
    scores = np.concatenate([each[1] for each in found]).astype(np.float32)
    labels = np.concatenate([each[2] for each in found]).astype(np.int64)
    owners = np.repeat(np.arange(len(places)), [len(each) for each in boxes])
    keep = np.ones(len(every), bool)
    whole = np.flatnonzero(~cut)
    for index in np.flatnonzero(cut):
        others = whole[(labels[whole] == labels[index]) & (scores[whole] >= scores[index] / 2)]
        keep[index] = not (_inside(every[index], every[others]) >= INSIDE).any()
    every = _with_parts_joined(every, scores, labels, np.array(places, np.float32)[owners], cut & keep)
    every, scores, labels = every[keep], scores[keep], labels[keep]
    best = batched_nms(torch.from_numpy(every), torch.from_numpy(scores), torch.from_numpy(labels), IOU)
    order = best.numpy()
    return every[order], scores[order], labels[order]


def _with_parts_joined(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, tiles: np.ndarray, parts: np.ndarray
) -> np.ndarray:
    """Return the boxes, each cut one grown around those that are parts of the same object.

    Each takes in its partners' partners, too, so that all parts end as one box and suppress each other.

    Args:
        boxes: xyxy (K, 4) in pixels of the picture.
        scores, labels: (K,).
        tiles: where the tile of each box lies, (K, 4).
        parts: which boxes are cut, bool (K,).
    """
    places = np.flatnonzero(parts)
    groups = {int(place): {int(place)} for place in places}
    for number, one in enumerate(places):
        others = places[number + 1 :]
        likely = (scores[others] >= scores[one] / 2) & (scores[others] <= scores[one] * 2)
        others = others[(labels[others] == labels[one]) & likely & (tiles[others] != tiles[one]).any(axis=1)]
        if not len(others):
            continue
        # What both tiles look at, and what each says of it.
        low = np.maximum(tiles[one, :2], tiles[others, :2])
        high = np.minimum(tiles[one, 2:], tiles[others, 2:])
        mine, theirs = _clipped(boxes[one][None], low, high), _clipped(boxes[others], low, high)
        for other in others[_overlap(mine, theirs) >= IOU]:
            joined = groups[int(one)] | groups[int(other)]
            groups.update(dict.fromkeys(joined, joined))
    grown = boxes.copy()
    for place, group in groups.items():
        members = boxes[list(group)]
        grown[place] = [*members[:, :2].min(axis=0), *members[:, 2:].max(axis=0)]
    return grown


def _clipped(boxes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return boxes within corners (K, 2); of no area where they lie outside."""
    start = np.clip(boxes[:, :2], low, np.maximum(low, high))
    return np.concatenate(
        [start, np.maximum(np.clip(boxes[:, 2:], low, np.maximum(low, high)), start)], axis=1
    )


def _overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (K, 4), pair by pair."""
    corner, end = np.maximum(ours[:, :2], theirs[:, :2]), np.minimum(ours[:, 2:], theirs[:, 2:])
    common = np.clip(end - corner, 0, None).prod(axis=1)
    areas = (ours[:, 2:] - ours[:, :2]).prod(axis=1) + (theirs[:, 2:] - theirs[:, :2]).prod(axis=1)
    return common / np.maximum(areas - common, 1e-6)


def _inside(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of a box (4,) that lies inside each of others (K, 4)."""
    corner, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(end - corner, 0, None).prod(axis=1)
    return common / max(float((box[2:] - box[:2]).prod()), 1e-6)
