"""Reading a picture: any usual format in, RGB uint8 out as a viewer shows it, or an error with its name.

Cameras store pictures as their sensor saw them and note in the EXIF data how to turn them; viewers and
labelling tools obey that note. So does everything here. Annotations that state a size which only the stored
pixels have were drawn on those.
"""

import io
import itertools
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.errors import UserError

EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif'),
    *('.ppm', '.pgm', '.pbm', '.jp2'),
)
EXIF_MODES = ('auto', 'apply', 'ignore')
ORIENTATION = 0x0112  # EXIF's tag: 1 to 8
# Pixels of the largest picture that is read, three bytes each and as much for every copy. Pillow's limit.
MAX_PIXELS = 178_956_970


class Photograph(NamedTuple):
    """A picture as read: RGB uint8 (H, W, 3), and whether that is turned against the stored pixels."""

    image: np.ndarray
    turned: bool = False


class ImageError(UserError):
    """A file that should hold a picture does not.

    Attributes:
        path: the file.
        reason: what is wrong with it, without the path.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f'{path}: {reason}')
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple:  # crosses from a loader's worker to the main process
        return (type(self), (self.path, self.reason))


def check_size(path: Path | str, image: np.ndarray, size: Sequence[int]) -> None:
    """Raise ImageError unless a picture (H, W, 3) has the (height, width) that its annotations say."""
    height, width = (int(each) for each in size)
    if image.shape[:2] != (height, width):
        raise ImageError(
            path,
            f'is {image.shape[1]}x{image.shape[0]} pixels, {width}x{height} by its annotations: '
            'they belong to another version of the picture',
        )


def is_image_name(path: Path | str) -> bool:
    """Whether the file's ending is one of a picture."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def read_image(path: Path | str, *, exif: str = 'auto', size: Sequence[int] | None = None) -> np.ndarray:
    """Read a picture as RGB uint8, (H, W, 3); see `read_photograph`."""
    return read_photograph(path, exif=exif, size=size).image


def read_photograph(path: Path | str, *, exif: str = 'auto', size: Sequence[int] | None = None) -> Photograph:
    """Read a picture, and say whether it was turned.

    Greyscale is repeated over the channels, palettes and CMYK are converted, other depths than 8 bit are
    scaled, and transparent pixels are laid over white.

    Args:
        path: the file.
        exif: 'apply' turns the picture as its EXIF orientation says, 'ignore' leaves the stored pixels.
            'auto' turns it, unless `size` is that of the stored pixels and not of the turned ones.
        size: (height, width) that annotations state.

    Raises:
        ImageError: missing, no file, empty, truncated, too large, not a picture, or not of that size.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ImageError(path, 'is no regular file')
        # Not cv2.imread: it cannot open paths outside the code page on Windows.
        data = np.fromfile(path, dtype=np.uint8)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ImageError(path, f'cannot be read ({getattr(error, "strerror", None) or error})') from error
    return decode_photograph(data, path=path, exif=exif, size=size)


def decode_photograph(
    data: np.ndarray, *, path: Path | str, exif: str = 'auto', size: Sequence[int] | None = None
) -> Photograph:
    """Decode the bytes of a picture file; see `read_photograph`.

    Args:
        data: the file's content, uint8 (N,).
        path: named in errors.
        exif, size: as in `read_photograph`.
    """
    if data.size == 0:
        raise ImageError(path, 'empty file')
    head = data[:12].tobytes()
    is_jpeg, is_png = head.startswith(b'\xff\xd8'), head.startswith(b'\x89PNG')
    end = jpeg_end(data) if is_jpeg else 0
    # OpenCV fills the missing part of a cut-off picture with grey and says nothing.
    if end is None or (is_png and b'IEND' not in data[-4096:].tobytes()):
        raise ImageError(path, f'truncated {"JPEG" if is_jpeg else "PNG"} ({data.size:,} bytes)')
    orientation = check_header(data, path=path)
    image = _decode(data, is_jpeg=is_jpeg, is_tiff=head.startswith((b'II*\0', b'MM\0*')), path=path)
    if image is None:
        raise ImageError(path, f'not a picture OpenCV can decode (begins with {head[:8]!r})')
    if is_jpeg and lacks_its_end(image, data[:end]):
        raise ImageError(path, f'damaged JPEG: its data end before the picture does ({data.size:,} bytes)')
    turned = orientation != 1 and exif != 'ignore'
    if turned and exif == 'auto' and size is not None:
        seen = image.shape[:2] if orientation < 5 else image.shape[1::-1]
        turned = seen == tuple(size) or image.shape[:2] != tuple(size)
    if turned:
        image = turn(image, orientation)
    if size is not None:
        check_size(path, image, size)
    return Photograph(image, turned)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels (H, W, ...) as EXIF's orientation, 1 to 8, shows them; 5 to 8 swap the sides."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def check_header(data: np.ndarray, *, path: Path | str) -> int:
    """Return the EXIF orientation in a picture's header, 1 where there is none; refuse what is too large."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data.tobytes())) as picture:
            width, height = picture.size
            found = picture.getexif().get(ORIENTATION, 1)
    except Image.DecompressionBombError as error:
        raise ImageError(path, f'is too large: {error}') from error
    except Exception:  # no format of Pillow's, or a broken note beside a good picture: OpenCV decides
        return 1
    if width * height > MAX_PIXELS:
        raise ImageError(
            path, f'is {width}x{height} pixels, more than {MAX_PIXELS / 1e6:.0f} million: make it smaller'
        )
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


# A marker that ends a stretch of coded data: neither a stuffed byte nor a restart.
END_OF_SCAN = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')


def jpeg_end(data: np.ndarray) -> int | None:
    """Return where a JPEG ends; None where it does not. Files may go on behind it (zeros, a phone video).

    A progressive one sends every number's upper bits first, the others in later scans: one with an end marker
    in which numbers were begun and not finished has lost scans.
    """
    content = data.tobytes()
    place, progressive = 2, False
    missing: dict[tuple[int, int], int] = {}  # (component, number of an 8x8 block) -> bits not sent yet
    while 0 <= place < len(content) - 1:
        marker = content[place + 1]
        if content[place] != 0xFF or marker == 0xFF:  # fill
            place = content.find(b'\xff', place + 1)
        elif marker == 0xD9:
            return None if any(missing.values()) else place + 2
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
        else:
            header = content[place + 4 : place + 2 + int.from_bytes(content[place + 2 : place + 4], 'big')]
            place += 4 + len(header)
            progressive |= marker == 0xC2
            if marker == 0xDA and progressive and len(header) > 3:
                first, last, bits = header[-3:]
                sent = itertools.product(header[1:-3:2], range(first, min(last, 63) + 1))
                missing.update(dict.fromkeys(sent, bits & 15))
            if marker == 0xDA:
                found = END_OF_SCAN.search(content, place)
                place = -1 if found is None else found.start()
    return None


def lacks_its_end(image: np.ndarray, data: np.ndarray) -> bool:
    """Whether a decoded JPEG ends in blocks of one colour that its data do not describe.

    A decoder that runs out of data repeats the last block's colour to the end. Blocks really drawn in one
    colour take at least two bits each, of a pattern that repeats; data of a picture look like noise.

    Args:
        image: decoded, (H, W, 3).
        data: the file up to its end marker, uint8 (N,).
    """
    corner = image[-1, -1]
    if (image[-8:] != corner).any():
        return False
    plain = (image == corner).all(axis=(1, 2))[::-1]
    rows = len(plain) if plain.all() else int(plain.argmin())
    count = min(256, (rows // 8) * (image.shape[1] // 8) // 4)
    return count >= 64 and len(np.unique(data[-2 - count : -2])) > 48


def _decode(data: np.ndarray, *, is_jpeg: bool, is_tiff: bool, path: Path | str) -> np.ndarray | None:
    """Return the stored pixels as RGB uint8, or None where OpenCV cannot decode them."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we name the file ourselves
    try:
        if is_jpeg:  # the common format, and the only one without transparency: straight to RGB
            return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise ImageError(path, 'does not fit into memory') from error
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        return None
    if is_tiff:  # which OpenCV turns, whatever it is told
        orientation = check_header(data, path=path)
        image = turn(image, {6: 8, 8: 6}.get(orientation, orientation))
    return _to_rgb(image)


def _to_eight_bits(image: np.ndarray) -> np.ndarray:
    """Return values of any type as uint8.

    Sixteen bits are taken as the whole range; fractions as 0 to 1. Other numbers that fit into 0 to 255 stay,
    and what fits into neither is stretched from the least to the largest value, as viewers do.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    least, largest = values.min(), values.max()
    if image.dtype.kind == 'f' and least >= 0 and largest <= 1:
        values = values * 255
    elif least < 0 or largest > 255:
        values = (values - least) * (255 / max(largest - least, 1e-12))
    return np.round(values).astype(np.uint8)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    import cv2

    image = _to_eight_bits(image)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 2:  # grey and alpha
        grey, alpha = image[..., :1], image[..., 1:]
        image = np.concatenate([grey, grey, grey, alpha], axis=2)
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.uint16)
        colour = image[..., :3].astype(np.uint16)
        image = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
