"""Boxes with titles on a picture.

Painted into an array, not by Pillow, which would copy every pixel of a frame three times to change few.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from falconet.report.drawing import default_font
from falconet.report.text import shown

ENLARGED_TO = 480  # pixels, the longer side of a small picture

# Colours that stay apart from each other and from most pictures; classes beyond the last share them.
COLOURS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255),
    (170, 110, 40), (255, 250, 200), (128, 0, 0), (170, 255, 195), (128, 128, 0), (255, 215, 180),
)  # fmt: skip


def draw_boxes(
    image: Image.Image,
    boxes: np.ndarray,
    titles: Sequence[str],
    labels: np.ndarray,
    *,
    line_width: int | None = None,
    font_size: float | None = None,
) -> Image.Image:
    """Return the picture, RGB, with boxes in their class's colour and a title at each; see `paint_boxes`."""
    pixels = np.asarray(image.convert('RGB'))
    painted = paint_boxes(pixels, boxes, titles, labels, line_width=line_width, font_size=font_size)
    return Image.fromarray(painted)


def paint_boxes(
    pixels: np.ndarray,
    boxes: np.ndarray,
    titles: Sequence[str],
    labels: np.ndarray,
    *,
    line_width: int | None = None,
    font_size: float | None = None,
    in_place: bool = False,
) -> np.ndarray:
    """Return a copy of a picture with boxes in their class's colour and a title at each.

    Small pictures are enlarged to 480 pixels, so that the titles are legible and do not hide everything.

    Args:
        pixels: RGB uint8 (H, W, 3).
        boxes: xyxy in pixels, (K, 4); the first is drawn last, over the others.
        titles: K of them.
        labels: class indices, (K,).
        line_width: of the boxes, in pixels of the returned picture; by default 1/300 of its longer side.
        font_size: of the titles, in the same pixels; by default 1/50 of that side, and less where boxes are
            much smaller than the picture. 0 leaves the titles out.
        in_place: paint into `pixels` and return them, unless they have to be enlarged.

    Raises:
        ValueError: a width below 1 or a size below 0.
    """
    if (line_width is not None and line_width < 1) or (font_size is not None and font_size < 0):
        raise ValueError(f'line_width {line_width} must be at least 1, font_size {font_size} at least 0')
    canvas, scale = _enlarged(pixels, in_place=in_place)
    side = max(canvas.shape[:2])
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 1, None) * scale
    largest = float(np.median(np.sqrt(sides.prod(axis=1)))) if len(boxes) else side
    # Small objects in a large picture: a title as high as its box would hide the neighbours.
    size = font_size if font_size is not None else max(11, min(side / 50, max(largest / 4, side / 160)))
    line = line_width or max(2, round(min(side / 300, max(largest / 20, side / 900))))
    for box, title, label in reversed(list(zip(boxes * scale, titles, labels, strict=True))):
        colour = COLOURS[int(label) % len(COLOURS)]
        left, top = _frame(canvas, box, colour, line)
        if size:
            _paste(canvas, _title(shown(title), size, colour), left, top)
    return canvas


def _enlarged(pixels: np.ndarray, *, in_place: bool) -> tuple[np.ndarray, float]:
    """Return a copy, or the picture itself, a small one's enlarged, and by how much."""
    height, width = pixels.shape[:2]
    scale = ENLARGED_TO / max(height, width)
    if scale <= 1:
        return pixels if in_place else pixels.copy(), 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)), scale


def _frame(canvas: np.ndarray, box: np.ndarray, colour: tuple[int, ...], line: int) -> tuple[int, int]:
    """Paint the edges of a box, inwards, at least one pixel in the picture; return its upper left corner."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = (round(float(each)) for each in box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
    part = canvas[top:bottom, left:right]
    for edge in (part[:line], part[-line:], part[:, :line], part[:, -line:]):
        edge[:] = colour
    return left, top


def _paste(canvas: np.ndarray, title: np.ndarray, left: int, top: int) -> None:
    """Put a title above a box, or inside it where there is no room; never outside the picture."""
    height, width = title.shape[:2]
    x = max(0, min(left, canvas.shape[1] - width))
    y = top - height if top >= height else top
    room = canvas[y : y + height, x : x + width]
    room[:] = title[: room.shape[0], : room.shape[1]]


@lru_cache(maxsize=512)
def _title(text: str, size: float, colour: tuple[int, int, int]) -> np.ndarray:
    """Return a line of text on a ground of its class's colour, RGB uint8 (h, w, 3)."""
    font = default_font(size)
    _, _, width, height = font.getbbox(text)
    patch = Image.new('RGB', (round(width) + 4, round(height) + 4), colour)
    ink = (255, 255, 255) if sum(colour) < 400 else (0, 0, 0)
    ImageDraw.Draw(patch).text((2, 2), text, fill=ink, font=font)
    return np.asarray(patch)
