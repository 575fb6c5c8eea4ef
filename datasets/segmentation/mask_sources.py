"""Where the label maps of a folder come from: files of indices, files of colours, or outlines to draw."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.formats.coco import CocoObjects
from falconet.datasets.formats.colours import Colour, read_colour_mask
from falconet.datasets.formats.masks import IGNORE, MaskCounts, check_masks, read_mask
from falconet.datasets.images.images import ImageError
from falconet.datasets.layouts.file_tree import picture_size
from falconet.datasets.packed_strings import PackedStrings
from falconet.datasets.segmentation.coco import draw_mask

SHOWN = 8  # problems listed in one message


class MaskSource(Protocol):
    """Label maps by number; all were checked when it was made.

    Attributes:
        counts: what they hold.
    """

    counts: MaskCounts

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width)."""
        ...

    def read(self, index: int) -> np.ndarray:
        """Return the label map, uint8 (H, W)."""
        ...


class _MaskFiles:
    """A file of its own for the mask of every picture."""

    _masks: PackedStrings
    _exif: str

    def size(self, index: int) -> tuple[int, int]:
        found = picture_size(Path(self._masks[index]), exif=self._exif)
        if found is None:
            raise ImageError(self._masks[index], 'not a readable mask')
        return found


class IndexMasks(_MaskFiles):
    """Files whose values are class indices; see `datasets.formats.masks`.

    `counts` is what they hold where that is known already; they are not read then.
    """

    def __init__(
        self,
        images: Sequence[str],
        masks: Sequence[str],
        classes: Sequence[str],
        exif: str,
        *,
        counts: MaskCounts | None = None,
    ) -> None:
        self.counts = counts or check_masks(images, masks, classes, exif=exif)
        self._masks, self._exif = PackedStrings(masks), exif

    def read(self, index: int) -> np.ndarray:
        return read_mask(self._masks[index], exif=self._exif)


class ColourMasks(_MaskFiles):
    """Files with a colour a class; `counts` as in `IndexMasks`.

    Raises:
        UserError: files that cannot be read, have another size than their picture, or other colours.
    """

    def __init__(
        self,
        images: Sequence[str],
        masks: Sequence[str],
        colours: Sequence[Colour],
        exif: str,
        *,
        counts: MaskCounts | None = None,
    ) -> None:
        self._masks, self._colours, self._exif = PackedStrings(masks), list(colours), exif
        if counts is not None:
            self.counts = counts
            return

        def examine(image: str, mask: str) -> np.ndarray | str:
            try:
                values = read_colour_mask(mask, colours, exif=exif)
            except ImageError as error:
                return str(error)
            sizes = [picture_size(image, exif=each) for each in (exif, 'ignore')]  # type: ignore[arg-type]
            if sizes[0] is not None and values.shape not in (sizes if exif == 'auto' else sizes[:1]):
                return f'{mask}: {values.shape[::-1]} pixels, its image {image} has {sizes[0][::-1]}'
            return np.bincount(values.ravel(), minlength=IGNORE + 1)

        with ThreadPoolExecutor() as pool:
            found = list(pool.map(examine, images, masks))
        if problems := [each for each in found if isinstance(each, str)]:
            shown = '\n  '.join(problems[:SHOWN]) + ('\n  ...' if len(problems) > SHOWN else '')
            raise UserError(f'{len(problems)} of {len(masks)} masks cannot be used:\n  {shown}')
        self.counts = counts_of(np.array(found), len(colours), masks)

    def read(self, index: int) -> np.ndarray:
        return read_colour_mask(self._masks[index], self._colours, exif=self._exif)


class DrawnMasks:
    """Outlines of objects, drawn when asked for; where objects of different classes overlap, 255.

    Args:
        found: objects with outlines; class i is drawn as `label_of[i]`.
        chosen: numbers of the pictures, in order.
        label_of: index of each class in the label map.
        classes: how many indices there are.
    """

    def __init__(
        self, found: CocoObjects, chosen: Sequence[int], label_of: Sequence[int], classes: int
    ) -> None:
        owners, labels, crowd = (found.columns[key].tolist() for key in ('owners', 'labels', 'crowd'))
        objects: list[list[dict[str, Any]]] = [[] for _ in found.images]
        for owner, label, is_crowd, outline in zip(owners, labels, crowd, found.outlines, strict=True):
            entry = {'label': label_of[label], 'crowd': is_crowd, 'outline': outline}
            objects[owner].append(entry)
        # As text, parsed when asked for: Python objects would be copied into every loading process.
        self._objects = PackedStrings(json.dumps(objects[index]) for index in chosen)
        self._sizes = np.array([found.images[index].size for index in chosen], dtype=np.int64).reshape(-1, 2)
        table = [np.bincount(self.read(i).ravel(), minlength=IGNORE + 1) for i in range(len(chosen))]
        paths = [found.images[index].path for index in chosen]
        self.counts = counts_of(np.array(table).reshape(-1, IGNORE + 1), classes, paths)

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index].tolist()
        return height, width

    def read(self, index: int) -> np.ndarray:
        return draw_mask(json.loads(self._objects[index]), *self.size(index))


def counts_of(table: np.ndarray, classes: int, masks: Sequence[str]) -> MaskCounts:
    """Return what label maps hold, from how often each value occurs in each, int64 (N, 256)."""
    inside = table[:, :classes]
    labelled = inside.sum(axis=1)
    empty = tuple(mask for mask, count in zip(masks, labelled.tolist(), strict=True) if count == 0)
    around = ((inside > 0) * labelled[:, None]).sum(axis=0)
    return MaskCounts(inside.sum(axis=0), around, (inside > 0).sum(axis=0), empty)
