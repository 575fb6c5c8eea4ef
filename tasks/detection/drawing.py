"""Boxes with titles on a picture, and precision-recall curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Colours that stay apart from each other and from most pictures; classes beyond the last share them.
COLOURS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255),
    (170, 110, 40), (255, 250, 200), (128, 0, 0), (170, 255, 195), (128, 128, 0), (255, 215, 180),
)  # fmt: skip


def draw_boxes(
    image: Image.Image, boxes: np.ndarray, titles: Sequence[str], labels: np.ndarray
) -> Image.Image:
    """Return the picture with boxes in their class's colour and a title at each.

    Small pictures are enlarged to 480 pixels, so that the titles are legible and do not hide everything.

    Args:
        image: RGB.
        boxes: xyxy in pixels, (K, 4); the first is drawn last, over the others.
        titles: K of them.
        labels: class indices, (K,).
    """
    scale = max(1.0, 480 / max(image.size))
    canvas = image.convert('RGB')
    if scale > 1:
        size = (round(image.width * scale), round(image.height * scale))
        canvas = canvas.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(max(canvas.size) / 300))
    font = ImageFont.load_default(max(11, round(max(canvas.size) / 50)))
    for box, title, label in reversed(list(zip(boxes * scale, titles, labels, strict=True))):
        colour = COLOURS[int(label) % len(COLOURS)]
        left, top, right, bottom = (float(value) for value in box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        _, _, width, height = draw.textbbox((0, 0), title, font=font)
        # Above the box, or inside it where there is no room; never outside the picture.
        x = min(max(0.0, left), max(0.0, canvas.width - width - 4))
        y = top - height - 4 if top >= height + 4 else top
        draw.rectangle((x, y, x + width + 4, y + height + 4), fill=colour)
        dark = sum(colour) < 400
        draw.text((x + 2, y + 2), title, fill=(255, 255, 255) if dark else (0, 0, 0), font=font)
    return canvas


def draw_precision_recall(
    recall: np.ndarray, curves: Mapping[str, np.ndarray], per_class: Mapping[str, np.ndarray], path: Path
) -> None:
    """Draw precision over recall, mean over classes at several IoUs and each class at IoU 0.5, as a PNG.

    Args:
        recall: (R,), 0 to 1.
        curves: title -> precision (R,).
        per_class: class -> precision (R,) at IoU 0.5; drawn with a legend up to 20 classes.
        path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for title, precision in curves.items():
        left.plot(recall, precision, label=f'{title} (AP {precision.mean():.3f})')
    left.set_title('mean over classes')
    few = len(per_class) <= 20
    for index, (name, precision) in enumerate(per_class.items()):
        colour = [channel / 255 for channel in COLOURS[index % len(COLOURS)]]
        style = '-' if index < len(COLOURS) else '--'
        if few:
            right.plot(recall, precision, style, color=colour, label=f'{name} (AP {precision.mean():.3f})')
        else:
            right.plot(recall, precision, color='0.6', linewidth=0.7)
    right.set_title('each class, IoU 0.5')
    for axes, has_legend in ((left, bool(curves)), (right, few and bool(per_class))):
        axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if has_legend:
            axes.legend(loc='best', fontsize='small')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
