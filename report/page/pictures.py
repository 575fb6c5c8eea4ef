"""Photographs in a page: small JPEG files written into it, truth beside answer."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from falconet.report.page.markup import Html, element, escaped, name

SIDE = 360  # pixels of the longer side
WIDE_SIDE = 480  # of one that is shown large
QUALITY = 78


def small(image: np.ndarray, *, side: int = SIDE) -> Image.Image:
    """Return a picture, RGB uint8 (H, W, 3), that is no larger than `side` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def picture_element(picture: Image.Image, text: str, *, side: int = SIDE) -> Html:
    """Return a picture with its bytes in it, scaled down to `side`, and what it shows in words."""
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.convert('RGB').save(file, 'JPEG', quality=QUALITY, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return element(
        'img', src=f'data:image/jpeg;base64,{data}', alt=text, width=picture.width, height=picture.height,
        loading='lazy', style='height:auto',
    )  # fmt: skip


def case(caption: object, path: str, views: Sequence[tuple[str, Image.Image]], *, wide: bool = False) -> Html:
    """Return one picture seen several ways, side by side.

    Args:
        caption: what was wrong.
        path: of the picture.
        views: (what it shows, picture).
        wide: for pictures with words in them: larger, and one below the other on a phone.
    """
    side = WIDE_SIDE if wide else SIDE
    pair = [
        element('div', element('span', title), picture_element(picture, title, side=side))
        for title, picture in views
    ]
    file = element('div', name(path.replace('\\', '/').rsplit('/', 1)[-1]), class_='file', title=path[-500:])
    return element(
        'figure',
        element('div', *pair, class_='pair'),
        element('figcaption', escaped(caption), file),
        class_='wide' if wide else None,
    )


def gallery(cases: Sequence[Html], *, wide: bool = False) -> Html:
    """Return cases in a grid; `wide` as they are."""
    return element('div', *cases, class_='pictures wide' if wide else 'pictures')
