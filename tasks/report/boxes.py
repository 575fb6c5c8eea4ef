"""Boxes with titles on a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.report.text import shown

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
    """Return the picture with boxes in their class's colour and a title at each.

    Small pictures are enlarged to 480 pixels, so that the titles are legible and do not hide everything.

    Args:
        image: RGB.
        boxes: xyxy in pixels, (K, 4); the first is drawn last, over the others.
        titles: K of them.
        labels: class indices, (K,).
        line_width: of the boxes, in pixels of the returned picture; by default 1/300 of its longer side.
        font_size: of the titles, in the same pixels; by default 1/50 of that side, and less where boxes are
            much smaller than the picture. 0 leaves the titles out.

    Raises:
        ValueError: a width below 1 or a size below 0.
    """
    if (line_width is not None and line_width < 1) or (font_size is not None and font_size < 0):
        raise ValueError(f'line_width {line_width} must be at least 1, font_size {font_size} at least 0')
    scale = max(1.0, 480 / max(image.size))
    canvas = image.convert('RGB')
    if scale > 1:
        size = (round(image.width * scale), round(image.height * scale))
        canvas = canvas.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    largest = (
        float(np.median(np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2], 1, None).prod(axis=1)))) * scale
        if len(boxes)
        else side
    )
    # Small objects in a large picture: a title as high as its box would hide the neighbours.
    size = font_size if font_size is not None else max(11, min(side / 50, max(largest / 4, side / 160)))
    line = line_width or max(2, round(min(side / 300, max(largest / 20, side / 900))))
    font = ImageFont.load_default(size or 11)
    for box, title, label in reversed(list(zip(boxes * scale, titles, labels, strict=True))):
        title = shown(title)
        colour = COLOURS[int(label) % len(COLOURS)]
        left, top, right, bottom = (float(value) for value in box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        if not size:
            continue
        _, _, width, height = draw.textbbox((0, 0), title, font=font)
        # Above the box, or inside it where there is no room; never outside the picture.
        x = min(max(0.0, left), max(0.0, canvas.width - width - 4))
        y = top - height - 4 if top >= height + 4 else top
        draw.rectangle((x, y, x + width + 4, y + height + 4), fill=colour)
        dark = sum(colour) < 400
        draw.text((x + 2, y + 2), title, fill=(255, 255, 255) if dark else (0, 0, 0), font=font)
    return canvas
