"""Reading a picture from disk: any usual format in, RGB uint8 out, or an error that names the file."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.errors import UserError

EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif'),
    *('.ppm', '.pgm', '.pbm', '.jp2'),
)


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


def read_image(path: Path | str, *, honour_exif: bool = False) -> np.ndarray:
    """Read a picture as RGB uint8, (H, W, 3).

    Greyscale is repeated over the channels, palettes and CMYK are converted, 16-bit values are scaled to
    8, and transparent pixels are laid over white.

    Args:
        path: the file.
        honour_exif: turn the picture as its EXIF orientation says. Right for a user's own photographs;
            wrong for annotated data, whose labels were drawn on the raw pixels.

    Raises:
        ImageError: missing, empty, truncated, or not a picture.
    """
    try:
        # Not cv2.imread: it cannot open paths outside the code page on Windows.
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(path, f'cannot be read ({error.strerror})') from error
    return decode_image(data, path=path, honour_exif=honour_exif)


def decode_image(data: np.ndarray, *, path: Path | str, honour_exif: bool = False) -> np.ndarray:
    """Decode the bytes of a picture file; see `read_image`.

    Args:
        data: the file's content, uint8 (N,).
        path: named in errors.
        honour_exif: as in `read_image`.
    """
    import cv2

    if data.size == 0:
        raise ImageError(path, 'empty file')
    head = data[:12].tobytes()
    is_jpeg, is_png = head.startswith(b'\xff\xd8'), head.startswith(b'\x89PNG')
    # OpenCV fills the missing part of a cut-off picture with grey and says nothing.
    if (is_jpeg and b'\xff\xd9' not in data[-4096:].tobytes()) or (
        is_png and b'IEND' not in data[-64:].tobytes()
    ):
        raise ImageError(path, f'truncated {"JPEG" if is_jpeg else "PNG"} ({data.size:,} bytes)')

    if (
        is_jpeg
    ):  # the only one of these formats without transparency, and the common one: decode straight to RGB
        flags = cv2.IMREAD_COLOR_RGB
        if not honour_exif:
            flags |= cv2.IMREAD_IGNORE_ORIENTATION
        image = _decode(data, flags)
    else:
        image = _decode(data, cv2.IMREAD_UNCHANGED)
        if image is not None:
            image = _to_rgb(image)
    if image is None:
        raise ImageError(path, f'not a picture OpenCV can decode (begins with {head[:8]!r})')
    return image


def _decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we name the file ourselves
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    import cv2

    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype != np.uint8:  # floating-point TIFF, nominally 0 to 1
        image = (np.clip(image, 0, 1) * 255).astype(np.uint8)
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
