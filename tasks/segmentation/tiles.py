"""Masks of overlapping tiles as that of one picture."""

from collections.abc import Sequence

import numpy as np

from tasks.data.tiles import Place


def join_masks(masks: Sequence[np.ndarray], places: Sequence[Place]) -> np.ndarray:
    """Return the class of every pixel, uint8 (H, W).

    Where tiles overlap, each pixel takes the class of the tile that sees most around it: the one in which it
    lies farthest from an inner edge. That needs no score of every class for every pixel, which of a large
    picture is gigabytes.

    Args:
        masks: class indices (h, w) of each tile.
        places: where the tiles lie.
    """
    width, height = max(place[2] for place in places), max(place[3] for place in places)
    joined = np.zeros((height, width), np.uint8)
    seen = np.full((height, width), -1, np.int32)  # pixels to the nearest inner edge
    for mask, (left, top, right, bottom) in zip(masks, places, strict=True):
        far = height + width
        across = np.minimum(
            np.arange(right - left) if left else np.full(right - left, far),
            np.arange(right - left)[::-1] if right < width else np.full(right - left, far),
        )
        down = np.minimum(
            np.arange(bottom - top) if top else np.full(bottom - top, far),
            np.arange(bottom - top)[::-1] if bottom < height else np.full(bottom - top, far),
        )
        distance = np.minimum(down[:, None], across[None]).astype(np.int32)
        here = seen[top:bottom, left:right]
        better = distance > here
        joined[top:bottom, left:right][better] = mask[better]
        here[better] = distance[better]
    return joined
