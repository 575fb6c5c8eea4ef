"""Masks of overlapping tiles as that of one picture."""

from collections.abc import Sequence

import numpy as np
import torch

from falconet.heads.score_map import ScoreMap
from falconet.tasks.tiles import Place

STRIP = 32_000_000  # bytes of scores of every class that are computed at a time


def blend_scores(maps: Sequence[ScoreMap], places: Sequence[Place]) -> np.ndarray:
    """Return the class of every pixel, uint8 (H, W): the best by the mean score of the tiles that show it.

    In the mean a tile counts more the farther inside it the pixel lies, so that classes go over into each
    other where tiles overlap and no tile has a say at its own edge. One strip of the picture at a time: all
    scores of a large one are gigabytes.

    Args:
        maps: logits of each tile. A number that is added to all scores of a pixel, as logits leave it open,
            changes nothing.
        places: where the tiles lie.
    """
    width, height = max(place[2] for place in places), max(place[3] for place in places)
    weighted = [_weighted(*each, width=width, height=height) for each in zip(maps, places, strict=True)]
    classes = len(maps[0].cells)
    step = max(1, STRIP // (4 * classes * width))
    mask = np.empty((height, width), np.uint8)
    for start in range(0, height, step):
        end = min(height, start + step)
        scores = torch.zeros(classes, end - start, width)
        for each, (left, top, right, bottom) in zip(weighted, places, strict=True):
            first, last = max(start, top), min(end, bottom)
            if first < last:
                rows = each.rows[first - top : last - top]
                # The weights of a pixel are not divided by their sum: the best class stays the best.
                scores[:, first - start : last - start, left:right] += rows @ each.cells @ each.columns.T
        mask[start:end] = scores.argmax(dim=0).byte().numpy()
    return mask


def join_masks(masks: Sequence[np.ndarray], places: Sequence[Place]) -> np.ndarray:
    """Return the class of every pixel, uint8 (H, W), for heads that say no scores.

    Where tiles overlap, each pixel takes the class of the tile that sees most around it: the one in which it
    lies farthest from an inner edge.

    Args:
        masks: class indices (h, w) of each tile.
        places: where the tiles lie.
    """
    width, height = max(place[2] for place in places), max(place[3] for place in places)
    joined = np.zeros((height, width), np.uint8)
    seen = np.zeros((height, width), np.float32)  # pixels to the nearest inner edge
    for mask, (left, top, right, bottom) in zip(masks, places, strict=True):
        down, across = _depths(top, bottom, height), _depths(left, right, width)
        depth = np.minimum(down[:, None], across[None])
        here = seen[top:bottom, left:right]
        better = depth > here
        joined[top:bottom, left:right][better] = mask[better]
        here[better] = depth[better]
    return joined


def _weighted(scores: ScoreMap, place: Place, *, width: int, height: int) -> ScoreMap:
    """Return the scores times what the tile counts at each pixel."""
    left, top, right, bottom = place
    down, across = _depths(top, bottom, height), _depths(left, right, width)
    return ScoreMap(
        scores.cells,
        scores.rows * torch.from_numpy(down)[:, None],
        scores.columns * torch.from_numpy(across)[:, None],
    )


def _depths(start: int, end: int, length: int) -> np.ndarray:
    """Return how far from the nearest inner edge a tile's pixels lie along a line of the picture.

    Args:
        start, end: of the tile.
        length: of the picture, whose own edges are no inner ones.

    Returns:
        Pixels, float32 (end - start,), half a one at the edge itself.
    """
    steps = np.arange(end - start, dtype=np.float32) + 0.5
    before = steps if start else np.full_like(steps, length)
    after = steps[::-1] if end < length else np.full_like(steps, length)
    return np.minimum(before, after)
