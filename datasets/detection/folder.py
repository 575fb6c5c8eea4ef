"""A folder of pictures with boxes in any usual format, recognised as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError, closest
from falconet.datasets.annotations import Annotations, Problems, build_annotations
from falconet.datasets.classes import match_classes
from falconet.datasets.detection.dataset import DetectionDataset, drop_missing
from falconet.datasets.files import existing_root
from falconet.datasets.formats.coco import CocoObjects
from falconet.datasets.layouts import coco_layout, labelme_layout, tables, voc_layout, yolo_layout
from falconet.datasets.layouts.base import about_left_out, chosen_split, find_layout, left_out
from falconet.datasets.layouts.file_tree import Tree
from falconet.datasets.layouts.split import check_apart, choose_part, names_below

FORMATS = {
    'coco': coco_layout.recognise,
    'voc': voc_layout.recognise,
    'yolo': yolo_layout.recognise,
    'csv': tables.recognise_boxes,
    'labelme': labelme_layout.recognise,
}
EXPECTED = 'boxes in a format known here (COCO JSON, VOC XML, YOLO, CSV, LabelMe JSON)'


@DATASETS.register_module()
class DetectionFolder(DetectionDataset):
    """Your own pictures with boxes, as your tool has exported them.

    Args:
        root: the folder.
        format: 'coco', 'voc', 'yolo', 'csv' or 'labelme'; 'auto' finds out.
        split: 'train', 'val' or 'test' of the data; None takes 'train' to learn from and 'val' to score, or
            'test' where there is no 'val'.
        holdout: share set aside for scoring where the data have no split, of every class alike.
        held_out: pictures set aside before, by name below `root`; a checkpoint brings its own.
        categories: classes to use, in the model's order; None uses all.
        classes: class names in the model's order; must be those of the data, or `categories`.
        training, augment, strict, seed, exif: as in `DetectionDataset`.
        forgiving: note in `forgiven` what otherwise is an error, and go on without it, as the doctor does.

    Attributes:
        splits: names of the splits of the data, '' for data without.
        format: in which the data are, as `--data-format` takes it.
        held_out: the pictures set aside, None where the data have a split.
        unnamed: pictures that no annotation names, of the part that is learnt.
        forgiven: what a forgiving data set has noted; None for others.

    Raises:
        UserError: nothing known is there, or several things are; see also `DetectionDataset`.
    """

    def __init__(
        self,
        root: str,
        format: str = 'auto',  # noqa: A002 (as the command line calls it)
        *,
        split: str | None = None,
        holdout: float = 0.2,
        held_out: Sequence[str] | None = None,
        categories: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
        forgiving: bool = False,
    ) -> None:
        base = existing_root(root)
        known = None if categories is not None else classes
        tree = Tree(base, forgiving=forgiving)
        layout = find_layout(tree, FORMATS, name=format, expected=EXPECTED, classes=known, exif=exif)
        problems = Problems(limit=None if strict else 3)
        self.splits, self.format = tuple(layout.splits), layout.name
        self.unnamed, self.forgiven = left_out(layout, training=training), tree.forgiven
        split = chosen_split(layout, training=training, name=split)
        found = drop_missing(_annotations(layout.read(layout.splits[split], problems), problems), problems)
        if training and layout.has_split and split == 'train':
            other = layout.splits[chosen_split(layout, training=False)]
            scored = _annotations(layout.read(other, Problems()), Problems()).paths
            check_apart(tree, list(found.paths), list(scored), source=layout.seen)
        if categories is not None:
            found = _only(found, categories, source=layout.seen)
        match_classes(
            found.class_names, classes, source=base, hint='The same classes are needed in the same order.'
        )
        names = names_below(base, list(found.paths))
        part = choose_part(
            layout,
            names,
            _strata(found),
            paths=list(found.paths),
            training=training,
            share=holdout,
            held_out=held_out,
        )
        self.held_out = part.held_out
        self._origin = f'{layout.seen}; {part.text}{about_left_out(self.unnamed, layout.parents())}'
        super().__init__(
            found.select(np.array(part.keep)),
            problems,
            training=training,
            augment=augment,
            strict=strict,
            seed=seed,
            exif=exif,
        )

    def __str__(self) -> str:
        return f'{super().__str__()}; {self._origin}'


def _annotations(found: CocoObjects | Annotations, problems: Problems) -> Annotations:
    if isinstance(found, Annotations):
        return found
    if not found.images:
        raise UserError(f'not a single picture could be used. {problems}')
    return build_annotations(
        found.images,
        **found.columns,
        class_names=found.class_names,
        category_ids=found.category_ids,
        problems=problems,
    )


def _only(annotations: Annotations, categories: Sequence[str], *, source: str) -> Annotations:
    """Return the objects of some classes, numbered in that order; pictures without any stay."""
    names = list(annotations.class_names)
    if missing := [name for name in categories if name not in names]:
        raise UserError(f'{source}: no class {missing[0]!r}. {closest(missing[0], names)}')
    place = np.full(len(names), -1, dtype=np.int32)
    chosen = [names.index(name) for name in categories]
    place[chosen] = np.arange(len(chosen))
    labels = place[annotations.labels]
    inside = labels >= 0
    owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))[inside]
    counts = np.bincount(owners, minlength=len(annotations))
    columns = ('boxes', 'crowd', 'areas', 'object_ids', 'original_boxes')
    return replace(
        annotations,
        **{name: getattr(annotations, name)[inside] for name in columns},
        labels=labels[inside],
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        class_names=tuple(categories),
        category_ids=tuple(annotations.category_ids[index] for index in chosen),
    )


def _strata(annotations: Annotations) -> list[int]:
    """Return the rarest class of every picture, -1 for those without objects."""
    counts = np.bincount(annotations.labels, minlength=len(annotations.class_names))
    found = []
    for index in range(len(annotations)):
        labels = annotations.labels[annotations.objects(index)].tolist()
        found.append(min(labels, key=lambda label: (counts[label], label)) if labels else -1)
    return found
