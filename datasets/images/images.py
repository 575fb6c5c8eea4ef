"""Reading a picture: any usual format in, RGB uint8 out as a viewer shows it, or an error with its name.

Cameras store pictures as their sensor saw them and note in the EXIF data how to turn them; viewers and
labelling tools obey that note. So does everything here. Annotations that state a size which only the stored
pixels have were drawn on those.
"""

import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.images.jpeg import Outline, jpeg_outline, lacks_its_end

EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif'),
    *('.ppm', '.pgm', '.pbm', '.jp2'),
)
EXIF_MODES = ('auto', 'apply', 'ignore')
ORIENTATION = 0x0112  # EXIF's tag: 1 to 8
# Pixels of the largest picture that is read, three bytes each and as much for every copy. Pillow's limit.
MAX_PIXELS = 178_956_970


# (height, width) of a picture as seen, in pixels -> by how much its sides may be divided: 1, 2, 4 or 8.
Reduce = Callable[[int, int], int]


Picture = str | Path | np.ndarray


class Photograph(NamedTuple):
    """A picture as read.

    Attributes:
        image: RGB uint8 (H, W, 3).
        turned: whether that is turned against the stored pixels.
        reduced_from: (height, width) of the whole picture, where `image` was decoded at a smaller size.
    """

    image: np.ndarray
    turned: bool = False
    reduced_from: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the whole picture, in pixels."""
        return self.reduced_from or (self.image.shape[0], self.image.shape[1])


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


def check_size(path: Path | str, found: Sequence[int], size: Sequence[int]) -> None:
    """Raise ImageError unless a picture's (height, width) is the one that its annotations say."""
    height, width = (int(each) for each in size)
    if tuple(found) != (height, width):
        raise ImageError(
            path,
            f'is {found[1]}x{found[0]} pixels, {width}x{height} by its annotations: '
            'they belong to another version of the picture',
        )


def is_image_name(path: Path | str) -> bool:
    """Whether the file's ending is one of a picture."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def read_image(path: Path | str, *, exif: str = 'auto', size: Sequence[int] | None = None) -> np.ndarray:
    """Read a picture as RGB uint8, (H, W, 3); see `read_photograph`."""
    return read_photograph(path, exif=exif, size=size).image


def to_image(picture: Picture) -> np.ndarray:
    """Read a user's own picture, turned as its EXIF says, or check an array."""
    if isinstance(picture, (str, Path)):
        return read_image(picture)
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f'a picture must be a path or an RGB uint8 array, got {type(picture).__name__} (of a PIL image: '
            "np.asarray(image.convert('RGB')))"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise UserError(
            f'a picture must be RGB uint8 (height, width, 3), got {picture.dtype} {picture.shape}'
        )
    return picture


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
    data = read_bytes(path)
    return decode_photograph(data, path=path, exif=exif, size=size)


def check_regular(path: Path | str) -> None:
    """Raise ImageError for what is no regular file: a pipe would be waited for."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(path, 'is no regular file')
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ImageError(path, f'cannot be read ({getattr(error, "strerror", None) or error})') from error


def read_bytes(path: Path | str) -> np.ndarray:
    """Return the bytes of a regular file, uint8 (N,), read-only; ImageError where there are none to read."""
    check_regular(path)
    try:
        # Not cv2.imread: it cannot open paths outside the code page on Windows. np.fromfile is slower.
        with open(path, 'rb', buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise ImageError(path, f'cannot be read ({error.strerror})') from error
    return np.frombuffer(data, dtype=np.uint8)


def decode_photograph(
    data: np.ndarray,
    *,
    path: Path | str,
    exif: str = 'auto',
    size: Sequence[int] | None = None,
    reduce: Reduce | None = None,
) -> Photograph:
    """Decode the bytes of a picture file; see `read_photograph`.

    Args:
        data: the file's content, uint8 (N,).
        path: named in errors.
        exif, size: as in `read_photograph`.
        reduce: says by how much a JPEG's sides may be divided. Each 8x8 block is then decoded to fewer
            pixels, in less time; what is seen stays, to a fraction of such a pixel.
    """
    if data.size == 0:
        raise ImageError(path, 'empty file')
    head = data[:12].tobytes()
    is_jpeg, is_png = head.startswith(b'\xff\xd8'), head.startswith(b'\x89PNG')
    outline = jpeg_outline(data) if is_jpeg else Outline(0)
    end = outline.end
    # OpenCV fills the missing part of a cut-off picture with grey and says nothing.
    if end is None or (is_png and b'IEND' not in data[-4096:].tobytes()):
        raise ImageError(path, f'truncated {"JPEG" if is_jpeg else "PNG"} ({data.size:,} bytes)')
    orientation, stored = 1, outline.size
    if stored is None or outline.has_notes:
        orientation, stored = _read_header(data, path=path)
    else:
        check_pixels(path, *stored)
    factor = 1
    if is_jpeg and reduce is not None and stored is not None:
        turns = _is_turned(stored, orientation, exif=exif, size=size)
        factor = reduce(*(stored[::-1] if turns and orientation >= 5 else stored))
    is_tiff = head.startswith((b'II*\0', b'MM\0*'))
    image = _decode(data, is_jpeg=is_jpeg, is_tiff=is_tiff, path=path, factor=factor)
    if image is None:
        raise ImageError(path, f'not a picture OpenCV can decode (begins with {head[:8]!r})')
    if is_jpeg and lacks_its_end(image, data[:end], block=8 // factor):
        raise ImageError(path, f'damaged JPEG: its data end before the picture does ({data.size:,} bytes)')
    whole = (image.shape[0], image.shape[1])
    if factor > 1 and stored is not None:
        whole = stored
        # A last pixel may lie beyond the edge for more than its half.
        rows, columns = ((side + factor // 2) // factor for side in stored)
        image = np.ascontiguousarray(image[:rows, :columns])
    turned = _is_turned(whole, orientation, exif=exif, size=size)
    if turned:
        image = turn(image, orientation)
        whole = (whole[1], whole[0]) if orientation >= 5 else whole
    if size is not None:
        check_size(path, whole, size)
    return Photograph(image, turned, whole if factor > 1 else None)


def _is_turned(stored: tuple[int, int], orientation: int, *, exif: str, size: Sequence[int] | None) -> bool:
    """Whether a picture with stored pixels (height, width) is to be turned; see `read_photograph`."""
    turned = orientation != 1 and exif != 'ignore'
    if turned and exif == 'auto' and size is not None:
        seen = stored if orientation < 5 else stored[::-1]
        turned = seen == tuple(size) or stored != tuple(size)
    return turned


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
    return _read_header(data, path=path)[0]


def _read_header(data: np.ndarray, *, path: Path | str) -> tuple[int, tuple[int, int] | None]:
    """Return the orientation, and the stored (height, width); None where only OpenCV may know it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data.tobytes())) as picture:
            orientation, (height, width) = stored_in(picture)
    except Image.DecompressionBombError as error:
        raise ImageError(path, f'is too large: {error}') from error
    except Exception:  # no format of Pillow's, or a broken note beside a good picture: OpenCV decides
        return 1, None
    check_pixels(path, height, width)
    return orientation, (height, width)


def stored_in(picture: Any) -> tuple[int, tuple[int, int]]:
    """Return the orientation, 1 to 8, and the stored (height, width) of a picture opened by Pillow."""
    found = picture.getexif().get(ORIENTATION, 1)
    orientation = found if isinstance(found, int) and 1 <= found <= 8 else 1
    # Of a TIFF, and of no other format, Pillow says the size as shown.
    is_swapped = picture.format == 'TIFF' and orientation >= 5
    size = (picture.height, picture.width)
    return orientation, size[::-1] if is_swapped else size


def check_pixels(path: Path | str, height: int, width: int) -> None:
    """Raise ImageError for a picture that is too large to be read."""
    if width * height > MAX_PIXELS:
        raise ImageError(
            path, f'is {width}x{height} pixels, more than {MAX_PIXELS / 1e6:.0f} million: make it smaller'
        )


def _decode(
    data: np.ndarray, *, is_jpeg: bool, is_tiff: bool, path: Path | str, factor: int
) -> np.ndarray | None:
    """Return the stored pixels as RGB uint8, or None where OpenCV cannot decode them."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we name the file ourselves
    try:
        if is_jpeg:  # the common format, and the only one without transparency: straight to RGB
            if factor == 1:
                return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            smaller = getattr(cv2, f'IMREAD_REDUCED_COLOR_{factor}')
            image = cv2.imdecode(data, smaller | cv2.IMREAD_IGNORE_ORIENTATION)
            return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
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
