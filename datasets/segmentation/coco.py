"""COCO's object outlines as label maps of VOC's 21 classes, to train on COCO before VOC."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.classes import match_classes
from falconet.datasets.files import existing_root
from falconet.datasets.formats.coco import read_objects
from falconet.datasets.formats.masks import MaskCounts
from falconet.datasets.packed_strings import PackedStrings
from falconet.datasets.segmentation.dataset import ORDER_HINT, VOC_CLASSES, SegmentationDataset
from falconet.heads.base import IGNORE

# VOC's names where COCO has another; the rest are spelt alike.
COCO_NAMES = {
    'aeroplane': 'airplane',
    'diningtable': 'dining table',
    'motorbike': 'motorcycle',
    'pottedplant': 'potted plant',
    'sofa': 'couch',
    'tvmonitor': 'tv',
}


@DATASETS.register_module()
class CocoAsVOC(SegmentationDataset):
    """COCO's official layout, its objects of VOC's 20 kinds drawn into masks, everything else background.

        <root>/<split>/<file>.jpg    <root>/annotations/instances_<split>.json

    Pixels of crowds, and pixels where objects of different kinds overlap, are left out (255), because which
    of two outlines lies in front is not annotated.

    Args:
        root: folder of the data set.
        split: 'train2017', 'val2017', ...
        min_area: leave out images whose objects of VOC's kinds cover fewer pixels in all; DeepLab's authors
            pretrain on those above 1000 (arXiv 1706.05587, section 4.1).
        classes: class names of the model; must be VOC's.
        training, augment, strict, seed, exif: as in `datasets.dataset.VisionDataset`.

    Attributes:
        problems: what was dropped.

    Raises:
        UserError: see `datasets.formats.coco.read_objects`; a file is missing, or no image is left.
    """

    def __init__(
        self,
        root: str,
        split: str = 'train2017',
        *,
        min_area: float = 1000.0,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
    ) -> None:
        base = existing_root(root)
        folder, path = base / split, base / 'annotations' / f'instances_{split}.json'
        if not folder.is_dir():
            raise UserError(f'{folder} does not exist; expected the layout of COCO')
        kinds = [COCO_NAMES.get(name, name) for name in VOC_CLASSES[1:]]
        self.problems = Problems(limit=None if strict else 3)
        found = read_objects([path], [folder], categories=kinds, problems=self.problems, outlines=True)
        if strict:
            self.problems.raise_if_any()
        owners, labels, crowd, areas = (found.columns[key] for key in ('owners', 'labels', 'crowd', 'areas'))
        covered = np.bincount(owners[~crowd], weights=areas[~crowd], minlength=len(found.images))
        kept = [int(index) for index in np.flatnonzero(covered >= min_area)]
        kept.sort(key=lambda index: found.images[index].identifier)
        if not kept:
            raise UserError(
                f'none of the {len(found.images)} images of {path} has {min_area:g} pixels of the kinds '
                'of VOC' + (f'; {self.problems}' if self.problems.found else '')
            )
        images = [found.images[index] for index in kept]
        if absent := [image.path for image in images if not Path(image.path).is_file()]:
            names = listing(os.path.relpath(each, folder) for each in absent)
            raise UserError(f'{len(absent)} of {len(kept)} images of {path} are not in {folder}: {names}')
        self._left_out = len(found.images) - len(kept)
        self._sizes = np.array([image.size for image in images])
        objects: list[list[dict[str, Any]]] = [[] for _ in found.images]
        for owner, label, is_crowd, outline in zip(
            owners.tolist(), labels.tolist(), crowd.tolist(), found.outlines, strict=True
        ):
            objects[owner].append({'label': label + 1, 'crowd': is_crowd, 'outline': outline})
        # As text, parsed when asked for: Python objects would be copied into every loading process.
        self._objects = PackedStrings(json.dumps(objects[index]) for index in kept)
        super().__init__(
            [image.path for image in images],
            match_classes(VOC_CLASSES, classes, source=base, hint=ORDER_HINT),
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
        )

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index].tolist()
        return height, width

    def read_mask(self, index: int) -> np.ndarray:
        return draw_mask(json.loads(self._objects[index]), *self.size(index))

    def class_weights(self) -> list[float]:
        pixels, around, occurs = np.zeros((3, len(self.classes)), dtype=np.int64)
        for index in range(len(self)):
            counts = np.bincount(self.read_mask(index).ravel(), minlength=IGNORE + 1)[: len(self.classes)]
            pixels += counts
            around += (counts > 0) * counts.sum()
            occurs += counts > 0
        return MaskCounts(pixels, around, occurs, ()).balanced_weights()

    def __str__(self) -> str:
        return (
            f"{len(self):,} images of COCO with masks of VOC's {len(self.classes)} classes; "
            f'{self._left_out:,} with too little of them left out'
            + (f'; {self.problems}' if self.problems.found else '')
        )


def draw_mask(objects: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """Return the label map of outlines, uint8 (height, width).

    Args:
        objects: dicts of `label` (1 to 20), `crowd`, and `outline`: COCO's polygons or run lengths.
        height, width: of the image, in pixels.
    """
    from pycocotools import mask as outlines

    drawn = np.zeros((height, width), np.uint8)
    for each in objects:
        outline = each['outline']
        if isinstance(outline, list):
            code = outlines.merge(outlines.frPyObjects(outline, height, width))
        elif isinstance(outline['counts'], list):
            code = outlines.frPyObjects(outline, height, width)
        else:
            code = outline
        inside = outlines.decode(code).astype(bool)  # type: ignore[arg-type]  # a dict, whatever its stub says
        label = IGNORE if each['crowd'] else each['label']
        taken = inside & (drawn != 0) & (drawn != label)
        drawn[inside] = label
        drawn[taken] = IGNORE
    return drawn
