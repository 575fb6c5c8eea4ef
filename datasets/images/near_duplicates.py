"""Copies and near copies among pictures, and the groups they form.

Near copies have hashes that differ in few bits, and are believed only where the pictures themselves, made
small, differ little: plain pictures of one kind have similar hashes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from falconet.datasets.images.fingerprint import Glance, glance
from falconet.datasets.images.images import ImageError

# Bits of 64 in which the hashes of near copies differ at most.
NEAR_BITS = 6
# Grey levels by which they differ on average at most, in 16 x 16 cells.
NEAR_LEVELS = 6.0
BLOCK = 1024  # rows of the table of distances that are computed at once
MANY = 2000  # pictures that take seconds to read: show progress


def glances(
    paths: Sequence[str],
    *,
    look: str = 'looking at pictures',
    content: Callable[[int], np.ndarray] | None = None,
) -> Iterator[Glance | ImageError]:
    """Yield of every picture what is kept of it, or why it cannot be read, in order.

    Args:
        paths: of the pictures.
        look: what is done, for the progress of many.
        content: returns the bytes of picture number i, uint8 (N,), where they are no files of their own.
    """
    from rich.console import Console
    from rich.progress import track

    def one(index: int) -> Glance | ImageError:
        try:
            return glance(paths[index], None if content is None else content(index))
        except ImageError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = pool.map(one, range(len(paths)))
        if len(paths) >= MANY:
            found = track(found, look, len(paths), transient=True, console=Console(stderr=True))
        yield from found


def exact_pairs(
    first: Sequence[Glance], second: Sequence[Glance] | None = None
) -> list[tuple[Glance, Glance]]:
    """Return (one, its copy) for every picture with another's very bytes, within one list or between two.

    Pictures whose digest is not known are no copies.
    """
    known: dict[bytes, Glance] = {}
    pairs = []
    for each in first:
        if each.digest and known.setdefault(each.digest, each) is not each and second is None:
            pairs.append((known[each.digest], each))
    for each in second or ():
        if each.digest in known:
            pairs.append((known[each.digest], each))
    return pairs


def near_pairs(
    first: Sequence[Glance], second: Sequence[Glance] | None = None
) -> list[tuple[Glance, Glance]]:
    """Return pairs of nearly the same picture that are no exact copies, within one list or between two."""
    first = [each for each in first if each.code is not None]
    other = first if second is None else [each for each in second if each.code is not None]
    if not first or not other:
        return []
    codes, others = (np.array([each.code for each in part], dtype=np.uint64) for part in (first, other))
    pairs = []
    for start in range(0, len(codes), BLOCK):
        bits = np.bitwise_count(codes[start : start + BLOCK, None] ^ others[None])
        for row, column in np.argwhere(bits <= NEAR_BITS).tolist():
            if second is None and start + row >= column:
                continue
            a, b = first[start + row], other[column]
            if a.digest != b.digest and _alike(a, b):
                pairs.append((a, b))
    return pairs


def _alike(a: Glance, b: Glance) -> bool:
    assert a.small is not None
    assert b.small is not None
    return bool(np.abs(a.small.astype(np.int16) - b.small).mean() <= NEAR_LEVELS)


def groups(paths: Sequence[str]) -> list[int]:
    """Return of every picture the place of the first that it is a copy or near copy of, or its own.

    What is near to a picture is in its group, and what is near to that too. Pictures that cannot be read
    are alone.
    """
    seen = [each for each in glances(paths, look='looking for copies') if isinstance(each, Glance)]
    place = {path: index for index, path in enumerate(paths)}
    parent = list(range(len(paths)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for a, b in (*exact_pairs(seen), *near_pairs(seen)):
        low, high = sorted((root(place[a.path]), root(place[b.path])))
        parent[high] = low
    return [root(index) for index in range(len(paths))]
