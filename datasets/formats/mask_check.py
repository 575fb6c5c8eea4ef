"""Masks that a training would refuse: found one by one, so that all of them can be listed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.formats.colours import read_colour_mask
from falconet.datasets.formats.masks import IGNORE, read_mask
from falconet.datasets.images.images import ImageError
from falconet.datasets.layouts.file_tree import Tree, picture_size
from falconet.datasets.layouts.mask_layout import MaskPairs

SHOWN = 6  # values of a mask in a message


def usable(
    tree: Tree, found: MaskPairs, chosen: Sequence[int], *, classes: Sequence[str], exif: str
) -> tuple[list[int], np.ndarray]:
    """Return the numbers of the pairs whose masks can be used, and how often each value occurs in each.

    The others are noted in the tree.

    Args:
        tree: of the folder, forgiving.
        found: pictures and masks.
        chosen: numbers of pairs.
        classes: names by index.
        exif: how the pictures are seen.

    Returns:
        Numbers, N of them, and int64 (N, 256).
    """

    def examine(index: int) -> tuple[str, str] | np.ndarray:
        image, mask = found.pairs[index]
        try:
            values = (
                read_colour_mask(mask, found.colours, exif=exif)
                if found.colours
                else read_mask(mask, exif=exif)
            )
        except ImageError as error:
            return 'masks_unreadable', str(error)
        sizes = [picture_size(Path(image), exif=each) for each in (exif, 'ignore')]
        if sizes[0] is not None and values.shape not in (sizes if exif == 'auto' else sizes[:1]):
            (height, width), (rows, columns) = sizes[0], values.shape
            return 'masks_other_size', f'{mask}: {columns}x{rows} pixels, its picture {width}x{height}'
        counts = np.bincount(values.ravel(), minlength=IGNORE + 1)
        there = np.flatnonzero(counts)
        strange = there[(there >= len(classes)) & (there < IGNORE)].tolist()
        if strange:
            more = ', ...' if len(strange) > SHOWN else ''
            text = ', '.join(map(str, strange[:SHOWN])) + more
            return 'masks_unexpected', f'{mask}: {text}; there are {len(classes)} classes, counted from 0'
        return counts

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(examine, chosen))
    for kind in ('masks_unreadable', 'masks_other_size', 'masks_unexpected'):
        places = [each[1] for each in results if isinstance(each, tuple) and each[0] == kind]
        if places:
            tree.refuse(kind, places, places[0])
    kept = [(index, each) for index, each in zip(chosen, results, strict=True) if not isinstance(each, tuple)]
    if not kept:
        raise UserError(f'none of the {len(chosen)} masks of {tree.root} can be used: {results[0][1]}')
    return [index for index, _ in kept], np.array([each for _, each in kept]).reshape(-1, IGNORE + 1)
