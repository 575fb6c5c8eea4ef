"""Pictures of results that no single task owns: captions and contact sheets."""

from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from falconet.report.text import LINE_LIMIT, shown

BACKGROUND = (255, 255, 255)
INK = (20, 20, 20)
LARGEST_SIDE = 4096  # to which small pictures are enlarged, in pixels


def at_least_wide(image: Image.Image, width: int) -> Image.Image:
    """Return a picture of `width` pixels or more: enlarged (nearest pixel), or for a long one set in white.

    One pixel wide and 30,000 high, enlarged it would take gigabytes.
    """
    if image.width >= width:
        return image
    factor = -(-width // image.width)
    if image.height * factor <= LARGEST_SIDE:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    canvas = Image.new('RGB', (width, image.height), BACKGROUND)
    canvas.paste(image, ((width - image.width) // 2, 0))
    return canvas


def captioned(
    image: Image.Image, text: str, *, min_width: int = 160, font_size: int | None = None
) -> Image.Image:
    """Return the picture with a line of text on a white strip below it.

    A picture narrower than `min_width` pixels is made as wide so that the text has room. The text is
    `font_size` pixels high, by default 1/24 of the width, and less where it would not fit.
    """
    if font_size is not None and font_size < 1:
        raise ValueError(f'font_size must be at least 1, got {font_size}')
    image = at_least_wide(image, min_width)
    text = shown(text, limit=LINE_LIMIT)
    size = font_size or max(12, image.width // 24)
    strip = round(size * 1.6)
    canvas = Image.new('RGB', (image.width, image.height + strip), BACKGROUND)
    canvas.paste(image, (0, 0))
    font = fitting_font(text, image.width - 8, size)
    ImageDraw.Draw(canvas).text(
        (image.width / 2, image.height + strip / 2), text, fill=INK, font=font, anchor='mm'
    )
    return canvas


@lru_cache(maxsize=64)
def default_font(size: float) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, which takes a millisecond to load."""
    return ImageFont.load_default(size)  # type: ignore[return-value]  # a FreeType font whenever a size is given


def fitting_font(text: str, width: float, size: int, *, smallest: int = 8) -> ImageFont.FreeTypeFont:
    """Return the default font at `size` points, or smaller so that `text` fits into `width` pixels."""
    while True:
        font = default_font(size)
        if size <= smallest or font.getlength(text) <= width:
            return font
        size -= 1


def contact_sheet(
    pictures: Sequence[tuple[Image.Image, str]], *, columns: int | None = None, cell: int = 200
) -> Image.Image:
    """Return a grid of thumbnails, each titled above.

    Args:
        pictures: (picture, title), in reading order; at least one.
        columns: pictures in a row; by default about 4:3 overall.
        cell: side of a thumbnail in pixels.
    """
    columns = columns or max(1, min(len(pictures), round((len(pictures) * 4 / 3) ** 0.5)))
    rows = -(-len(pictures) // columns)
    gap, title_height = 12, 26
    canvas = Image.new(
        'RGB',
        (gap + columns * (cell + gap), gap + rows * (cell + title_height + gap)),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    for position, (picture, title) in enumerate(pictures):
        left = gap + position % columns * (cell + gap)
        top = gap + position // columns * (cell + title_height + gap)
        scale = cell / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        thumbnail = picture.resize(size, Image.Resampling.LANCZOS)
        canvas.paste(thumbnail, (left + (cell - size[0]) // 2, top + title_height + (cell - size[1]) // 2))
        title = shown(title, limit=LINE_LIMIT)
        font = fitting_font(title, cell, 16)
        draw.text((left + cell / 2, top + title_height / 2), title, fill=INK, font=font, anchor='mm')
    return canvas
