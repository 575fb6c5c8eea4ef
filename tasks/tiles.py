"""A picture much larger than the network's input, cut into overlapping tiles."""

import math

from falconet.core.errors import UserError

OVERLAP = 0.25  # of a tile's side: an object of up to that size is whole in one of its tiles
SMALLEST = 32  # pixels; a smaller tile shows nothing but blur
MOST = 64  # tiles along a side

Place = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def tile_places(height: int, width: int, tiles: int) -> list[Place]:
    """Return where the tiles lie, row by row: about square, of one size, together covering the picture.

    Args:
        height, width: of the picture in pixels.
        tiles: how many along the longer side; fewer where they would be smaller than 32 pixels, so a small
            picture stays whole. The shorter side gets as many as its length needs.

    Raises:
        UserError: `tiles` is not a whole number from 1 to 64.
    """
    if isinstance(tiles, bool) or not isinstance(tiles, int) or not 1 <= tiles <= MOST:
        raise UserError(
            f'tiles must be a whole number from 1 to {MOST}, of tiles along the longer side, got {tiles!r}'
        )
    longer = max(height, width)
    count = max(1, min(tiles, longer // SMALLEST))
    side = math.ceil(longer / (count - (count - 1) * OVERLAP))
    return [
        (left, top, right, bottom)
        for top, bottom in _stretches(height, side)
        for left, right in _stretches(width, side)
    ]


def _stretches(length: int, side: int) -> list[tuple[int, int]]:
    """Return (start, end) of stretches of `side` pixels that cover `length`, evenly spread."""
    if side >= length:
        return [(0, length)]
    count = max(2, math.ceil((length - OVERLAP * side) / (side * (1 - OVERLAP)) - 1e-3))
    starts = [round(number * (length - side) / (count - 1)) for number in range(count)]
    return [(start, start + side) for start in starts]
