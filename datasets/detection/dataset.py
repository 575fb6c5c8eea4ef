"""Detection data sets: COCO's JSON files and VOC's XML files, of the official sets or a user's own."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError
from falconet.datasets.annotations import Annotations, Problems
from falconet.datasets.classes import counted, match_classes
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.files import existing_root
from falconet.datasets.formats.coco import read_coco
from falconet.datasets.formats.voc import read_split, read_voc


class DetectionDataset(VisionDataset):
    """Images with boxes, whatever format they were written in.

    A training sample's target holds `boxes_unit`, float32 (M, 4) xyxy in fractions of the augmented image;
    `labels`, int64 (M,); and `crowd`, bool (M,). An evaluation sample has none: the metric scores in the
    original image.

    Args:
        annotations: the objects.
        problems: what was dropped on reading them.
        training, augment, strict, seed, exif: as in `VisionDataset`; `strict` also refuses any problem.

    Attributes:
        annotations: the objects, of the images that are there.
        problems: what was dropped or clipped.

    Raises:
        UserError: no image is there, none has an object to learn, or there is a problem and `strict`.
    """

    reducible = True  # boxes travel as fractions of the picture
    combinable = True

    def __init__(
        self,
        annotations: Annotations,
        problems: Problems,
        *,
        training: bool,
        augment: Sequence[Mapping[str, Any]],
        strict: bool,
        seed: int,
        exif: str,
    ) -> None:
        self.problems = problems
        self.annotations = drop_missing(annotations, problems)
        if strict:
            problems.raise_if_any()
        if training and not (~self.annotations.crowd).any():
            raise UserError(
                f'nothing to learn: {len(self.annotations)} images without a single object'
                + (f' of {", ".join(annotations.class_names[:5])}' if annotations.class_names else '')
                + f' ({int(self.annotations.crowd.sum())} crowds). {problems}'
            )
        # Coordinates as fractions, so that nothing need be converted before or after. The two extra columns
        # of a box travel with it.
        boxes = {'bbox_params': {'format': 'albumentations', 'clip': True, 'filter_invalid_bboxes': True}}
        super().__init__(
            self.annotations.paths,
            annotations.class_names,
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
            compose=boxes if training else None,
        )

    @property
    def metainfo(self) -> dict[str, Any]:
        return {'classes': list(self.classes), 'annotations': self.annotations}

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.annotations.sizes[index].tolist()
        return height, width

    def target(self, index: int) -> dict[str, Any]:
        if not self.training:
            return {}
        objects = self.annotations.objects(index)
        height, width = self.annotations.sizes[index]
        boxes = self.annotations.boxes[objects] / np.array([width, height, width, height], np.float32)
        columns = [
            boxes,
            self.annotations.labels[objects, None].astype(np.float32),
            self.annotations.crowd[objects, None].astype(np.float32),
        ]
        return {'bboxes': np.concatenate(columns, axis=1)}  # (M, 6)

    def to_target(self, augmented: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not self.training:
            return {}
        table = np.asarray(augmented['bboxes'], dtype=np.float32).reshape(-1, 6)
        return {
            'boxes_unit': table[:, :4],
            'labels': table[:, 4].astype(np.int64),
            'crowd': table[:, 5] != 0,
        }

    def __str__(self) -> str:
        labels = self.annotations.labels[~self.annotations.crowd]
        counts = np.bincount(labels, minlength=len(self.classes))
        empty = int((np.diff(self.annotations.starts) == 0).sum())
        text = (
            f'{len(self):,} images ({empty:,} without objects), '
            f'{len(labels):,} objects of {len(self.classes)} classes{counted(self.classes, counts)}'
        )
        if crowds := int(self.annotations.crowd.sum()):
            text += f'; {crowds} crowds (neither learnt nor counted)'
        return text + (f'; {self.problems}' if self.problems.found else '')


@DATASETS.register_module()
class CocoDetection(DetectionDataset):
    """Any data set in COCO's format.

    Args:
        root: folder of the data set.
        annotations: JSON file below `root`, or a list of them.
        images: folder of the images below `root`, or a list with one for each annotation file.
        categories: names of the categories to use; None uses all, in the order of their identifiers.
        limit: use only so many images, the first that have an object; to see whether a model can learn them
            by heart. None uses all.
        classes: class names in the model's order; None for training. `categories`, or all, must be these.
        training, augment, strict, seed, exif: as in `DetectionDataset`.

    Raises:
        UserError: see `read_coco` and `DetectionDataset`.
    """

    def __init__(
        self,
        root: str,
        annotations: str | Sequence[str],
        images: str | Sequence[str],
        *,
        categories: Sequence[str] | None = None,
        limit: int | None = None,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
    ) -> None:
        base = existing_root(root)
        files = [annotations] if isinstance(annotations, str) else list(annotations)
        folders = [images] * len(files) if isinstance(images, str) else list(images)
        if len(files) != len(folders) or not files:
            raise UserError(f'one folder of images for each annotation file: got {files} and {folders}')
        problems = Problems(limit=None if strict else 3)
        found = read_coco(
            [base / file for file in files],
            [base / folder for folder in folders],
            categories=categories,
            problems=problems,
        )
        hint = "Name the categories to use in the model's order: categories=[...] in the data set."
        match_classes(found.class_names, classes, source=base / files[0], hint=hint)
        if limit is not None:
            has_object = np.diff(found.starts) > 0
            found = found.select(has_object & (np.cumsum(has_object) <= limit))
        super().__init__(
            found, problems, training=training, augment=augment, strict=strict, seed=seed, exif=exif
        )


@DATASETS.register_module()
class VocDetection(DetectionDataset):
    """A data set in PASCAL VOC's format: `JPEGImages`, `Annotations`, `ImageSets/Main/<split>.txt`.

    Args:
        root: folder that holds those three, for the official set `VOCdevkit/VOC2012`.
        split: name of the list of images ('train', 'val', 'trainval'); '' takes every file in `Annotations`.
        classes: class names in the model's order; None takes the names in all files of `Annotations`, sorted,
            so that every split has the same.
        training, augment, strict, seed, exif: as in `DetectionDataset`.

    Raises:
        UserError: see `read_voc` and `DetectionDataset`; a listed image has no XML file.
    """

    def __init__(
        self,
        root: str,
        split: str = '',
        *,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
    ) -> None:
        base = existing_root(root)
        everything = sorted((base / 'Annotations').glob('*.xml'))
        if not everything:
            raise UserError(f'no XML files in {base / "Annotations"}')
        problems = Problems(limit=None if strict else 3)
        if split:
            stems = read_split(base / 'ImageSets' / 'Main', split)
            present = {file.stem for file in everything}
            missing = [stem for stem in stems if stem not in present]
            problems.add('listed images without an XML file', len(missing), missing)
            chosen = [base / 'Annotations' / f'{stem}.xml' for stem in stems if stem in present]
            if not chosen:
                raise UserError(
                    f'none of the {len(stems)} images of split {split!r} has an XML file in '
                    f'{base / "Annotations"}'
                )
        else:
            chosen = everything
        if classes is None:
            unused = Problems()
            classes = read_voc(everything, base / 'JPEGImages', classes=None, problems=unused).class_names
        found = read_voc(chosen, base / 'JPEGImages', classes=classes, problems=problems)
        super().__init__(
            found, problems, training=training, augment=augment, strict=strict, seed=seed, exif=exif
        )


def drop_missing(annotations: Annotations, problems: Problems) -> Annotations:
    """Leave out images whose file is not there, and note them. Looks at folders, not at single files."""
    inside: dict[str, set[str]] = {}
    keep = np.ones(len(annotations), dtype=bool)
    for index, path in enumerate(annotations.paths):
        folder, name = os.path.split(path)
        if folder not in inside:
            try:
                inside[folder] = {entry.name for entry in os.scandir(folder)}
            except OSError:
                inside[folder] = set()
        keep[index] = name in inside[folder]
    if keep.all():
        return annotations
    missing = np.flatnonzero(~keep)
    if not keep.any():
        raise UserError(
            f'none of the {len(annotations)} images is there; the first is {annotations.paths[0]}. '
            'Is `images` the right folder?'
        )
    problems.add('images dropped, no such file', len(missing), (annotations.paths[int(i)] for i in missing))
    return annotations.select(keep)
