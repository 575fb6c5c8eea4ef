"""COCO's object outlines as label maps of VOC's 21 classes, to train on COCO before VOC."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from heads.base import IGNORE
from tasks.data.folders import existing_root
from tasks.data.formats.coco_file import read_coco_file
from tasks.data.formats.masks import MaskCounts
from tasks.data.images import check_size
from tasks.data.packed import PackedStrings
from tasks.errors import UserError, listing
from tasks.segmentation.dataset import VOC_CLASSES, SegmentationDataset, match_names

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
        training, augment, strict, seed: as in `tasks.data.dataset.VisionDataset`.

    Raises:
        UserError: a file is missing or is no COCO annotation, a category of VOC is not in it, or no image is
            left.
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
    ) -> None:
        base = existing_root(root)
        folder, path = base / split, base / 'annotations' / f'instances_{split}.json'
        if not folder.is_dir():
            raise UserError(f'{folder} does not exist; expected the layout of COCO')
        content = read_coco_file(path, outlines=True)
        objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        areas: dict[int, float] = defaultdict(float)
        self._without_outline = 0
        each: Any = None
        images: list[tuple[int, str, int, int]] = []  # identifier, file, height, width
        try:
            for each in content['images']:
                size = (int(each['height']), int(each['width']))
                images.append((int(each['id']), str(each['file_name']), *size))
            for each in content['categories']:
                each['id'], each['name'] = int(each['id']), str(each['name'])
            label_of = voc_labels(content['categories'], source=path)
            for each in content['annotations']:
                if (label := label_of.get(int(each['category_id']))) is None:
                    continue
                if not (outline := each['segmentation']):
                    self._without_outline += 1
                    continue
                crowd, owner = bool(each.get('iscrowd')), int(each['image_id'])
                objects[owner].append({'label': label, 'crowd': crowd, 'outline': outline})
                if not crowd:
                    area = each.get('area')
                    areas[owner] += float(np.prod(each['bbox'][2:]) if area is None else area)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: each image needs 'id', 'file_name', 'height' and 'width', each category 'id' and "
                "'name', each annotation 'image_id', 'category_id', 'bbox' and 'segmentation' "
                f'({error!r}), got {str(each)[:200]}'
            ) from error
        kept = sorted(image for image in images if areas[image[0]] >= min_area)
        if not kept:
            raise UserError(
                f'none of the {len(images)} images of {path} has {min_area:g} pixels of the kinds of VOC'
            )
        if absent := [file for _, file, *_ in kept if not (folder / file).is_file()]:
            raise UserError(
                f'{len(absent)} of {len(kept)} images of {path} are not in {folder}: {listing(absent)}'
            )
        self._left_out = len(images) - len(kept)
        self._sizes = np.array([(height, width) for *_, height, width in kept])
        # As text, parsed when asked for: Python objects would be copied into every loading process.
        self._objects = PackedStrings(json.dumps(objects[image[0]]) for image in kept)
        names = match_names(VOC_CLASSES, classes, source=base)
        super().__init__(
            [str(folder / file) for _, file, *_ in kept],
            names,
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
        )

    def read(self, index: int) -> np.ndarray:
        image = super().read(index)
        check_size(self.paths[index], image, self._sizes[index])
        return image

    def read_mask(self, index: int) -> np.ndarray:
        height, width = (int(each) for each in self._sizes[index])
        return draw_mask(json.loads(self._objects[index]), height, width)

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
            + (f'; {self._without_outline} objects without an outline' if self._without_outline else '')
        )


def voc_labels(categories: Sequence[Mapping[str, Any]], *, source: Path) -> dict[int, int]:
    """Return the VOC class index of each COCO category id that has one."""
    ids = {category['name']: category['id'] for category in categories}
    wanted = {COCO_NAMES.get(name, name): index for index, name in enumerate(VOC_CLASSES) if index}
    if missing := [name for name in wanted if name not in ids]:
        raise UserError(f'{source} has no category {listing(missing)}; it has {listing(ids, 10)}')
    return {ids[name]: index for name, index in wanted.items()}


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
