"""One look at a picture file: how it is stored, whether it can be read, and a print to know copies of it by.

The print is a perceptual hash (pHash of the library imagehash: the signs of a picture's lowest frequencies)
beside the picture made small. For that JPEG files are decoded at a half, a quarter or an eighth of their
sides, which is what their format is made for and takes a fraction of the time.
"""

import hashlib
import io
import os
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from falconet.datasets.images.images import (
    ImageError,
    check_header,
    decode_photograph,
    read_bytes,
    stored_in,
    turn,
)
from falconet.datasets.images.jpeg import jpeg_end

SIDE = 64  # pixels of a reduced picture's shorter side at least
SMALL = 16  # cells of the print's side
REMEMBERED = 8192  # glances kept, so that a split and a check look at a picture once
DEPTHS = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N', 'F')


class Head(NamedTuple):
    """What the header of a picture says.

    Attributes:
        size: (height, width) as stored.
        orientation: EXIF's, 1 to 8.
        kind: 'grey', 'CMYK', 'transparent', '16 bit', or '' for plain colours of 8 bits.
    """

    size: tuple[int, int]
    orientation: int
    kind: str

    @property
    def seen(self) -> tuple[int, int]:
        """(height, width) as a viewer shows it."""
        return self.size if self.orientation < 5 else self.size[::-1]  # type: ignore[return-value]


class Glance(NamedTuple):
    """What is kept of a picture.

    Attributes:
        path: the file.
        head: its header; None where only OpenCV knows the format.
        length: of the file, in bytes.
        digest: of its bytes; empty where it was not asked for.
        code: perceptual hash, 64 bits; None where it was not asked for.
        small: the picture as it is seen, uint8 (16, 16, 3); None like `code`.
    """

    path: str
    head: Head | None
    length: int
    digest: bytes
    code: int | None = None
    small: np.ndarray | None = None


def read_head(data: bytes, path: str) -> Head | None:
    """Return what a picture's header says, from its bytes or the first of them; None where Pillow cannot.

    Raises:
        ImageError: it is too large to be read.
    """
    from PIL import Image

    orientation = check_header(np.frombuffer(data, np.uint8), path=path)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            mode, transparent = picture.mode, 'transparency' in picture.info
            size = stored_in(picture)[1]
    except Exception:  # no format of Pillow's: the loader says what is wrong with it
        return None
    deep = mode in DEPTHS or (data[:4] == b'\x89PNG' and data[24:25] == b'\x10')
    kind = (
        '16 bit' if deep
        else 'transparent' if transparent or mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La')
        else 'CMYK' if mode == 'CMYK'
        else 'grey' if mode in ('L', '1')
        else ''
    )  # fmt: skip
    return Head(size, orientation, kind)


def glance(path: str, data: np.ndarray | None = None) -> Glance:
    """Read a picture; return what is kept of it.

    Args:
        path: the file, or what a picture is called that is none.
        data: its bytes, uint8 (N,), where they lie elsewhere; None reads the file.

    Raises:
        ImageError: as `datasets.images.images.read_photograph`.
    """
    if data is not None:
        return _look(path, data)
    status = _status(path)
    return _glance(path, status.st_size, status.st_mtime_ns)


def glance_at_head(path: str) -> Glance:
    """Return a picture's header only: what costs a fraction of a millisecond.

    Raises:
        ImageError: it is not there, empty, or its end is missing.
    """
    length = _status(path).st_size
    if length == 0:
        raise ImageError(path, 'empty file')
    try:
        with open(path, 'rb') as file:
            data = file.read(65536)
            file.seek(-min(64, length), os.SEEK_END)
            end = file.read()
    except OSError as error:
        raise ImageError(path, f'cannot be read ({error.strerror})') from error
    if data.startswith(b'\x89PNG') and b'IEND' not in end:
        raise ImageError(path, 'truncated PNG')
    return Glance(path, read_head(data, path), length, b'')


def file_digest(path: str) -> bytes:
    """Return a digest of a file's bytes."""
    return hashlib.sha256(read_bytes(path).tobytes()).digest()


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        raise ImageError(path, f'cannot be read ({getattr(error, "strerror", None) or error})') from error


@lru_cache(maxsize=REMEMBERED)
def _glance(path: str, size: int, modified: int) -> Glance:
    """As `glance`; size and time of change are for the cache, which then knows a file that has changed."""
    return _look(path, read_bytes(path))


def _look(path: str, data: np.ndarray) -> Glance:
    import cv2
    from imagehash import phash
    from PIL import Image

    head = read_head(data.tobytes(), path) if data.size else None
    image = None if head is None else _reduced(data, head, path)
    if image is None:
        image = decode_photograph(data, path=path).image
    reduced = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    bits = phash(Image.fromarray(reduced)).hash.ravel()
    code = int.from_bytes(np.packbits(bits).tobytes(), 'big')
    small = cv2.resize(reduced, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return Glance(path, head, data.size, hashlib.sha256(data.tobytes()).digest(), code, small)


def _reduced(data: np.ndarray, head: Head, path: str) -> np.ndarray | None:
    """Return a JPEG at a fraction of its sides, turned, RGB uint8; None where it must be decoded in full."""
    import cv2

    fraction = next((each for each in (8, 4, 2) if min(head.size) >= each * SIDE), 1)
    if fraction == 1 or data[:2].tobytes() != b'\xff\xd8':
        return None
    if jpeg_end(data) is None:
        raise ImageError(path, f'truncated JPEG ({data.size:,} bytes)')
    flag = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    image = cv2.imdecode(data, flag[fraction] | cv2.IMREAD_IGNORE_ORIENTATION)
    # Its last row in one colour is a sign of data that ended early: then all of it is looked at.
    if image is None or (image[-1] == image[-1, -1]).all():
        return None
    return turn(np.ascontiguousarray(image[..., ::-1]), head.orientation)
