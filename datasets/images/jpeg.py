"""What a JPEG says of itself without being decoded: its size, where it ends, whether all of it is there.

Source of the markers: ITU-T T.81, annex B.
"""

import itertools
import re
from typing import NamedTuple

import numpy as np


class Outline(NamedTuple):
    """What the markers of a JPEG say.

    Attributes:
        end: where it ends; None where it does not.
        size: stored (height, width); None where no marker says one.
        has_notes: there is EXIF or XMP, in which an orientation may stand.
    """

    end: int | None
    size: tuple[int, int] | None = None
    has_notes: bool = False


# A marker that ends a stretch of coded data: neither a stuffed byte nor a restart.
END_OF_SCAN = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
# Markers in front of a frame's size.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_end(data: np.ndarray) -> int | None:
    """Return where a JPEG ends; None where it does not."""
    return jpeg_outline(data).end


def jpeg_outline(data: np.ndarray) -> Outline:
    """Walk through the markers of a JPEG. Files may go on behind its end (zeros, a phone video).

    A progressive one sends every number's upper bits first, the others in later scans: one with an end marker
    in which numbers were begun and not finished has lost scans.
    """
    content = data.tobytes()
    place, progressive = 2, False
    size, has_notes = None, False
    missing: dict[tuple[int, int], int] = {}  # (component, number of an 8x8 block) -> bits not sent yet
    while 0 <= place < len(content) - 1:
        marker = content[place + 1]
        if content[place] != 0xFF or marker == 0xFF:  # fill
            place = content.find(b'\xff', place + 1)
        elif marker == 0xD9:
            return Outline(None if any(missing.values()) else place + 2, size, has_notes)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
        else:
            header = content[place + 4 : place + 2 + int.from_bytes(content[place + 2 : place + 4], 'big')]
            place += 4 + len(header)
            progressive |= marker == 0xC2
            has_notes |= marker == 0xE1
            if size is None and marker in FRAMES and len(header) > 4:
                size = (int.from_bytes(header[1:3], 'big'), int.from_bytes(header[3:5], 'big'))
            if progressive and marker == 0xDA and len(header) > 3:
                first, last, bits = header[-3:]
                sent = itertools.product(header[1:-3:2], range(first, min(last, 63) + 1))
                missing.update(dict.fromkeys(sent, bits & 15))
            if marker == 0xDA:
                found = END_OF_SCAN.search(content, place)
                place = -1 if found is None else found.start()
    return Outline(None)


def lacks_its_end(image: np.ndarray, data: np.ndarray, *, block: int = 8) -> bool:
    """Whether a decoded JPEG ends in blocks of one colour that its data do not describe.

    A decoder that runs out of data repeats the last block's colour to the end. Blocks really drawn in one
    colour take at least two bits each, of a pattern that repeats; data of a picture look like noise.

    Args:
        image: decoded, (H, W, 3).
        data: the file up to its end marker, uint8 (N,).
        block: pixels that a side of the file's 8x8 blocks has in `image`.
    """
    corner = image[-1, -1]
    if image[-1, 0].tobytes() != corner.tobytes():  # nearly always, and quickly said
        return False
    if (image[-block:] != corner).any():
        return False
    plain = (image == corner).all(axis=(1, 2))[::-1]
    rows = len(plain) if plain.all() else int(plain.argmin())
    count = min(256, (rows // block) * (image.shape[1] // block) // 4)
    return count >= 64 and len(np.unique(data[-2 - count : -2])) > 48
