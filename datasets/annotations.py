"""Boxes of a whole data set in a few arrays, and a report of what was wrong with them.

Worker processes share arrays as they are; a list of a million Python objects would be copied into each of
them, because reading a Python object writes its reference count.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.packed_strings import PackedStrings

FARTHEST = 1_000_000  # pixels from the image's corner that a box may reach


class ImageRecord(NamedTuple):
    """One image as an annotation file describes it.

    `size` is (height, width) in pixels; `identifier` is the number results refer to.
    """

    identifier: int
    path: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Annotations:
    """The objects of a data set, grouped by image.

    Attributes:
        paths: image files, N of them.
        image_ids: original identifiers, int64 (N,).
        sizes: (height, width) of every image as annotated, int32 (N, 2).
        starts: int64 (N + 1,); image i has the objects starts[i] to starts[i + 1].
        boxes: xyxy in pixels, inside the image, float32 (K, 4).
        labels: class indices, int32 (K,).
        crowd: bool (K,): a region of many objects (COCO), or one too hard to be counted (VOC).
        areas: in pixels, float64 (K,): of the outline where the source has one, else of the box.
        object_ids: original identifiers, int64 (K,).
        original_boxes: xyxy as written, before clipping, float64 (K, 4): what scores are computed from.
        class_names: names by index.
        category_ids: original identifier of every class.
    """

    paths: PackedStrings
    image_ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    object_ids: np.ndarray
    original_boxes: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.image_ids)

    def objects(self, image: int) -> slice:
        """Return where the objects of image number `image` are."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def select(self, keep: np.ndarray) -> 'Annotations':
        """Return the images where `keep`, bool (N,), is True, with their objects."""
        counts = np.diff(self.starts)
        inside = np.repeat(keep, counts)
        return replace(
            self,
            paths=PackedStrings(itertools.compress(self.paths, keep)),
            image_ids=self.image_ids[keep],
            sizes=self.sizes[keep],
            starts=np.concatenate([[0], np.cumsum(counts[keep])]),
            boxes=self.boxes[inside],
            labels=self.labels[inside],
            crowd=self.crowd[inside],
            areas=self.areas[inside],
            object_ids=self.object_ids[inside],
            original_boxes=self.original_boxes[inside],
        )


@dataclass
class Problems:
    """What was dropped or changed on reading, by kind, with the first places.

    Attributes:
        found: kind -> (count, first places).
        limit: places kept of each kind; None keeps all.
    """

    limit: int | None = 3
    found: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, kind: str, count: int, places: Iterable[str]) -> None:
        """Note `count` cases of a kind; `places` is only read as far as it is kept."""
        if not count:
            return
        known, kept = self.found.get(kind, (0, []))
        kept += itertools.islice(places, None if self.limit is None else self.limit - len(kept))
        self.found[kind] = (known + count, kept)

    def __str__(self) -> str:
        return '; '.join(
            f'{count} {kind} ({", ".join(places)}{", ..." if count > len(places) else ""})'
            for kind, (count, places) in self.found.items()
        )

    def raise_if_any(self) -> None:
        """Raise UserError listing everything (`strict`)."""
        if self.found:
            lines = [
                f'{count} {kind}:\n    ' + '\n    '.join(places)
                for kind, (count, places) in self.found.items()
            ]
            raise UserError('strict: the annotations have problems\n  ' + '\n  '.join(lines))


def _numbers(box: np.ndarray) -> str:
    return ', '.join(f'{value:g}' for value in box)


def build_annotations(
    images: Sequence[ImageRecord],
    *,
    owners: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    crowd: np.ndarray,
    areas: np.ndarray,
    object_ids: np.ndarray,
    class_names: Sequence[str],
    category_ids: Sequence[int],
    problems: Problems,
) -> Annotations:
    """Group objects by image; clip boxes to their image, and drop those that are none.

    Args:
        images: every image, also those without objects.
        owners: position in `images` of each object's image, int64 (K,).
        boxes: xyxy in pixels as written, float64 (K, 4).
        labels, crowd, areas, object_ids: as in `Annotations`, (K,).
        class_names, category_ids: as in `Annotations`.
        problems: where to note what was dropped or clipped.

    Raises:
        UserError: all boxes are fractions of the image where pixels are meant.
    """
    sizes = np.array([image.size for image in images], dtype=np.int32).reshape(-1, 2)
    width, height = sizes[owners, 1], sizes[owners, 0]
    limits = np.stack([width, height, width, height], axis=1)
    finite = np.all(np.isfinite(boxes), axis=1)
    absurd = finite & np.any(np.abs(boxes) > FARTHEST, axis=1)
    # In the first pixel and no whole numbers: what a tool writes that counts in fractions of the picture.
    tiny = np.all(boxes[:, 2:] <= 1, axis=1) & np.any(boxes != np.floor(boxes), axis=1) & finite
    if len(boxes) and tiny.all():
        raise UserError(
            f'all {len(boxes)} boxes lie in the first pixel of their image, for example '
            f'{images[owners[0]].path} object {object_ids[0]}: xyxy {_numbers(boxes[0])}. Boxes are expected '
            'in pixels: multiply these by width and height'
        )
    with np.errstate(invalid='ignore'):
        clipped = np.clip(boxes, 0, limits)
        has_size = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        inside = np.all(clipped[:, 2:] > clipped[:, :2], axis=1)
        # Half a pixel over the edge is rounding, and annotation tools do it all the time.
        reaches_out = np.any(np.abs(clipped - boxes) > 1, axis=1)
    keep = finite & has_size & inside & ~absurd & ~tiny
    areas = np.array(areas, dtype=np.float64)
    no_area = keep & ~(np.isfinite(areas) & (areas >= 0))
    areas[no_area] = (clipped[no_area, 2:] - clipped[no_area, :2]).prod(axis=1)

    def places(which: np.ndarray) -> Iterator[str]:
        for k in np.flatnonzero(which):
            yield f'{images[owners[k]].path} object {object_ids[k]}: xyxy {_numbers(boxes[k])}'

    for kind, which in (
        ('boxes dropped, not finite', ~finite),
        (f'boxes dropped, farther out than {FARTHEST:,} pixels', absurd),
        ('boxes dropped, in the first pixel (fractions of the image?)', tiny & has_size),
        ('boxes dropped, zero or negative size', finite & ~absurd & ~has_size),
        ('boxes dropped, outside their image', finite & has_size & ~inside & ~absurd & ~tiny),
        ('boxes clipped to their image', keep & reaches_out),
        ('areas replaced by that of the box, no size', no_area),
    ):
        problems.add(kind, int(which.sum()), places(which))

    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(owners[kept], kind='stable')]
    counts = np.bincount(owners[kept], minlength=len(images))
    return Annotations(
        paths=PackedStrings(image.path for image in images),
        image_ids=np.array([image.identifier for image in images], dtype=np.int64),
        sizes=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=clipped[kept].astype(np.float32),
        labels=labels[kept].astype(np.int32),
        crowd=crowd[kept].astype(bool),
        areas=areas[kept].astype(np.float64),
        object_ids=object_ids[kept].astype(np.int64),
        original_boxes=boxes[kept],
        class_names=tuple(class_names),
        category_ids=tuple(int(each) for each in category_ids),
    )
