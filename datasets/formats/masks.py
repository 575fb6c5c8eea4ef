"""Label maps on disk: read as indices, checked before anything trains on them, written with VOC's palette.

A mask is a picture whose pixel values are class indices; 255 marks pixels that count for nothing. Colours,
0/255 silhouettes and masks that are off by one are how this goes wrong
(tensorflow/models#3739, open-mmlab/mmsegmentation#1609), so every mask is looked at before a run starts.
"""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.images.images import ImageError, check_regular, stored_in, turn

IGNORE = 255  # `heads.base.IGNORE`, without waiting for torch: the demo data are drawn by many processes
SHOWN = 8  # problems listed in one message
MANY = 2000  # masks that take seconds to read: show progress
SIXTEEN_BIT = ('I', 'I;16', 'I;16B', 'I;16L')


def read_mask(path: Path | str, *, exif: str = 'auto') -> np.ndarray:
    """Read a mask as class indices, uint8 (H, W): a palette's positions, or a greyscale picture's values.

    Args:
        path: the file.
        exif: 'ignore' leaves the stored pixels; else the mask is turned as its own EXIF orientation says.

    Raises:
        ImageError: missing, truncated, no picture, or one of colours, whose values are no indices.
    """
    with opened_mask(path) as picture:
        if picture.mode not in ('P', 'L', '1', *SIXTEEN_BIT):
            raise ImageError(path, f'a mask of colours ({picture.mode}), {_colours(picture.convert("RGB"))}')
        refuse_jpeg(path, picture, what='indices')
        values = pixels_of(picture, exif=exif)
    if values.dtype != np.uint8 and values.max(initial=0) > IGNORE:
        raise ImageError(path, f'a 16-bit mask with values up to {values.max()}; class indices end at 254')
    return values.astype(np.uint8)


@contextmanager
def opened_mask(path: Path | str) -> Iterator[Any]:
    """Open a mask as a PIL image; what goes wrong with it in the block is an ImageError that names it."""
    from PIL import Image

    try:
        if os.path.exists(path):
            check_regular(path)
        # As bytes: of a file Pillow 13 maps an uncompressed TIFF that lies sideways as if it stood.
        with Image.open(io.BytesIO(Path(path).read_bytes())) as picture:
            yield picture
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(path, 'no such file') from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise ImageError(path, f'not a readable mask ({error})') from error


def pixels_of(picture: Any, *, exif: str, mode: str | None = None) -> np.ndarray:
    """Return a mask's pixels (H, W, ...) as viewers show them, or with exif='ignore' as they are stored.

    Args:
        picture: of Pillow, opened.
        exif: as in `read_mask`.
        mode: of Pillow, to convert to.
    """
    orientation, turns = 1, picture.format != 'TIFF'  # which Pillow turns by itself
    with suppress(Exception):  # a broken note beside a good mask
        orientation, _ = stored_in(picture)
    values = np.array(picture if mode is None else picture.convert(mode))
    if orientation == 1 or turns == (exif == 'ignore'):
        return values
    return turn(values, orientation if turns else {6: 8, 8: 6}.get(orientation, orientation))


def refuse_jpeg(path: Path | str, picture: Any, *, what: str) -> None:
    """Raise ImageError for a mask whose `what`, indices or colours, compression has changed."""
    if picture.format == 'JPEG':
        raise ImageError(path, f'a JPEG mask: its compression changes the {what}. Write PNG')


def write_mask(path: Path | str, mask: np.ndarray, **options: Any) -> None:
    """Write class indices, uint8 (H, W), as VOC does: a PNG of positions in VOC's palette.

    `options` are those of Pillow for a PNG.
    """
    from PIL import Image

    picture = Image.fromarray(mask)
    picture.putpalette(voc_palette().tobytes())
    picture.save(path, **options)


def _colours(picture: object) -> str:
    array = np.asarray(picture).reshape(-1, 3)
    found = [
        tuple(int(each) for each in row) for row in np.unique(array[:: max(1, len(array) // 10_000)], axis=0)
    ]
    palette = {tuple(row) for row in voc_palette().tolist()}
    text = f'such as {", ".join(map(str, found[:4]))}; pixels must be class indices'
    if set(found) <= palette:
        text += '. These are the colours of VOC: save the mask with its palette (mode P) instead of RGB'
    elif all(len(set(colour)) == 1 for colour in found):
        text += '. It is grey: save one channel (mode L) instead of three'
    return text


@dataclass(frozen=True)
class MaskCounts:
    """What the masks of a data set hold, by class.

    Attributes:
        pixels: labelled pixels of each class, int64 (C,).
        pixels_around: labelled pixels of all masks in which the class occurs, int64 (C,).
        masks: masks in which the class occurs, int64 (C,).
        empty: masks without a single labelled pixel.
    """

    pixels: np.ndarray
    pixels_around: np.ndarray
    masks: np.ndarray
    empty: tuple[str, ...]

    def balanced_weights(self) -> list[float]:
        """Return a loss weight for each class by median-frequency balancing.

        Source: Eigen and Fergus, arXiv 1411.4734, section 6.2: the median frequency over the frequency of
        the class, which is its share of the pixels of the images it occurs in. An absent class weighs 1.
        """
        frequency = self.pixels / np.maximum(self.pixels_around, 1)
        present = frequency > 0
        weights = np.ones(len(frequency))
        weights[present] = np.median(frequency[present]) / frequency[present]
        return [float(f'{weight:.4g}') for weight in weights]


def check_masks(
    images: Sequence[str], masks: Sequence[str], classes: Sequence[str], *, exif: str = 'auto'
) -> MaskCounts:
    """Read every mask, and fail unless a run over all of them is safe.

    Args:
        images: the image files.
        masks: the mask of each.
        classes: class names.
        exif: how the images are seen; see `datasets.images.images.read_photograph`.

    Returns:
        What was found.

    Raises:
        UserError: masks that are missing, unreadable, of another size than their image, or hold values that
            are neither a class nor 255; the first few are listed with what was found.
    """
    from rich.progress import track

    totals = np.zeros(IGNORE + 1, dtype=np.int64)
    around, occurs = np.zeros_like(totals), np.zeros_like(totals)
    problems: list[str] = []
    empty: list[str] = []
    with ThreadPoolExecutor() as pool:
        found = pool.map(partial(_examine, exif=exif), images, masks)
        if len(masks) >= MANY:
            found = track(found, 'checking masks', len(masks), transient=True)
        for path, counts in zip(masks, found, strict=True):
            if isinstance(counts, str):
                problems.append(counts)
                continue
            labelled = counts[:IGNORE].sum()
            totals += counts
            around += (counts > 0) * labelled
            occurs += counts > 0
            if labelled == 0:
                empty.append(path)
            if counts[len(classes) : IGNORE].any():
                problems.append(f'{path}: values {_listing(np.flatnonzero(counts))}')
    if problems:
        shown = '\n  '.join(problems[:SHOWN]) + ('\n  ...' if len(problems) > SHOWN else '')
        raise UserError(
            f'{len(problems)} of {len(masks)} masks cannot be used with {len(classes)} classes (indices 0 to '
            f'{len(classes) - 1}, and {IGNORE} for pixels that do not count):\n  {shown}'
            f'{_likely_cause(totals, classes)}'
        )
    if not totals[:IGNORE].any():
        raise UserError(
            f'none of the {len(masks)} masks labels a single pixel: all are {IGNORE} (does not count)'
        )
    if totals[IGNORE] and not totals[1:IGNORE].any() and len(classes) > 1:
        raise UserError(
            f'the {len(masks)} masks hold 0 and {IGNORE} only, and {IGNORE} marks pixels that do not count: '
            f'nothing is labelled {classes[1]!r}. Silhouettes of 0 and 255? Write the class index, 1, in '
            f'place of {IGNORE}.'
        )
    known = slice(len(classes))
    return MaskCounts(totals[known], around[known], occurs[known], tuple(empty))


def _examine(image: str, mask: str, *, exif: str) -> np.ndarray | str:
    """Return how often each value occurs, int64 (256,), or what is wrong."""
    from PIL import Image

    try:
        values = read_mask(mask, exif=exif)
    except ImageError as error:
        return f'{error} (for {image})' if error.reason == 'no such file' else str(error)
    try:
        check_regular(image)
        with Image.open(image) as picture:
            orientation, stored = stored_in(picture)
            swaps = orientation >= 5
    except Exception:  # Pillow raises all kinds, a broken note beside a good picture among them
        stored, swaps = values.shape, False  # the loader names unreadable images, and knows more formats
    shown = stored[::-1] if swaps else stored
    if values.shape not in {'auto': (shown, stored), 'apply': (shown,), 'ignore': (stored,)}[exif]:
        return (
            f'{mask}: {values.shape[1]} x {values.shape[0]} pixels, its image {image} has '
            f'{shown[1]} x {shown[0]}'
        )
    return np.bincount(values.ravel(), minlength=IGNORE + 1)


def _likely_cause(totals: np.ndarray, classes: Sequence[str]) -> str:
    found = set(np.flatnonzero(totals[:IGNORE]).tolist())
    if not any(value >= len(classes) for value in found):
        return ''
    text = f'\nOver all masks the values are {_listing(np.flatnonzero(totals))}. '
    if 0 not in found and max(found) == len(classes):
        return text + 'They begin at 1: subtract 1, or put the background first into the class list.'
    if max(found) == len(classes):
        return text + 'One more than there are classes: is the background missing from the class list?'
    if len(found) > 64:
        return text + 'So many look like a grey picture, not like class indices.'
    return text + 'Is the class list complete, and in the order of the indices?'


def _listing(values: np.ndarray, limit: int = 12) -> str:
    text = ', '.join(str(int(value)) for value in values[:limit])
    return text + (f', ... {int(values[-1])}' if len(values) > limit else '')


@cache
def voc_palette() -> np.ndarray:
    """Return VOC's 256 colours, uint8 (256, 3): the index's bits, dealt to R, G and B from the top down."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for channel in range(3):
            colours[index, channel] = sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
    return colours
