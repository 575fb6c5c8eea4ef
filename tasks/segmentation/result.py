"""The answer to one image: a class for every pixel, as an overlay with a legend and as a palette PNG."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from tasks.data.formats.masks import voc_palette, write_mask
from tasks.outputs import note
from tasks.report.drawing import BACKGROUND, INK, at_least_wide, fitting_font
from tasks.report.text import shown

OPACITY = 0.55
LEGEND_LIMIT = 12  # classes in a legend, the largest first


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """What a segmentation network says of one image.

    Attributes:
        mask: class index of every pixel of the image, uint8 (H, W).
        class_names: names by index.
        image: the picture, RGB uint8 (H, W, 3); None where it was not kept.
        path: the file it came from; None for an array.
    """

    mask: np.ndarray
    class_names: tuple[str, ...] = field(repr=False)
    image: np.ndarray | None = field(default=None, repr=False)
    path: str | None = None

    # What `save_extra` writes beside the annotated picture: key in predictions.json -> ending of the name.
    extra_files: ClassVar[dict[str, str]] = {'mask': '_mask.png'}

    def shares(self) -> dict[str, float]:
        """Return the share of pixels of every class that occurs, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind='stable')
        return {self.class_names[i]: float(counts[i] / self.mask.size) for i in order if counts[i]}

    def title(self) -> str:
        """Return one line for a caption: the classes found, apart from the background."""
        found = [name for name in self.shares() if name != 'background']
        return ', '.join(found[:4]) or 'background'

    def summary(self) -> dict[str, Any]:
        """Return what predictions.json holds of this image: `shares` of the pixels by class."""
        return {
            'path': self.path,
            'height': self.mask.shape[0],
            'width': self.mask.shape[1],
            'shares': {name: round(share, 6) for name, share in self.shares().items()},
        }

    def overlay(self, image: np.ndarray | None = None) -> Image.Image:
        """Return the picture with every class laid over it in its VOC colour, the background left bare.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result.

        Raises:
            ValueError: the result kept no picture and none was given, or its size is not the mask's.
        """
        image = self.image if image is None else image
        if image is None:
            raise ValueError('this result kept no picture: pass one, result.draw(image)')
        if image.shape[:2] != self.mask.shape:
            raise ValueError(f'the picture is {image.shape[:2]} (height, width), the mask {self.mask.shape}')
        picture, colours = Image.fromarray(image), Image.fromarray(voc_palette()[self.mask])
        opacity = np.full(256, round(255 * OPACITY), np.uint8)
        if self.class_names[0] == 'background':
            opacity[0] = 0
        return Image.composite(colours, picture, Image.fromarray(opacity[self.mask]))

    def preview(self) -> Image.Image:
        """Return what a contact sheet shows."""
        return self.overlay()

    def draw(self, image: np.ndarray | None = None) -> Image.Image:
        """Return the overlay with a legend below it: colour, class and share of the pixels.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result.

        Raises:
            ValueError: as `overlay`.
        """
        picture = at_least_wide(self.overlay(image), 160)  # so that the legend has room
        entries = list(self.shares().items())[:LEGEND_LIMIT]
        size = max(12, picture.width // 32)
        columns = max(1, min(len(entries), picture.width // (size * 11)))
        rows, row_height, cell = -(-len(entries) // columns), round(size * 1.6), picture.width / columns
        canvas = Image.new('RGB', (picture.width, picture.height + rows * row_height), BACKGROUND)
        canvas.paste(picture, (0, 0))
        pen = ImageDraw.Draw(canvas)
        for position, (name, share) in enumerate(entries):
            left = position % columns * cell + size * 0.4
            middle = picture.height + (position // columns + 0.5) * row_height
            colour = tuple(voc_palette()[self.class_names.index(name)].tolist())
            box = (left, middle - size * 0.4, left + size * 0.8, middle + size * 0.4)
            pen.rectangle(box, fill=colour, outline=INK)
            text = f'{shown(name)} {share:.0%}' if share >= 0.005 else f'{shown(name)} <1%'
            font = fitting_font(text, cell - size * 1.8, size)
            pen.text((left + size * 1.2, middle), text, fill=INK, font=font, anchor='lm')
        return canvas

    def save_mask(self, path: Path | str) -> None:
        """Write the mask as VOC does: a PNG of class indices with VOC's palette."""
        write_mask(path, self.mask)

    def save_extra(self, key: str, path: Path) -> None:
        """Write one of `extra_files`."""
        assert key == 'mask'
        write_mask(path, self.mask, pnginfo=note())
