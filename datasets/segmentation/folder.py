"""A folder of pictures with masks or outlines in any usual format, recognised as it is."""

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError, listing
from falconet.datasets.annotations import Problems
from falconet.datasets.classes import counted, match_classes
from falconet.datasets.files import existing_root
from falconet.datasets.formats.coco import CocoObjects
from falconet.datasets.formats.mask_check import usable
from falconet.datasets.formats.masks import IGNORE, read_mask
from falconet.datasets.images.images import ImageError
from falconet.datasets.layouts import coco_layout, labelme_layout, mask_layout, yolo_layout
from falconet.datasets.layouts.base import about_left_out, chosen_split, find_layout, left_out
from falconet.datasets.layouts.file_tree import Tree
from falconet.datasets.layouts.mask_layout import MaskPairs
from falconet.datasets.layouts.split import check_apart, choose_part, names_below
from falconet.datasets.segmentation.dataset import ORDER_HINT, VOC_CLASSES, SegmentationDataset
from falconet.datasets.segmentation.mask_sources import (
    ColourMasks,
    DrawnMasks,
    IndexMasks,
    MaskSource,
    counts_of,
)

FORMATS = {
    'masks': mask_layout.recognise,
    'coco': coco_layout.recognise,
    'yolo': yolo_layout.recognise,
    'labelme': labelme_layout.recognise,
}
EXPECTED = 'masks or outlines in a format known here (masks, COCO JSON, YOLO segments, LabelMe JSON)'
BACKGROUND = 'background'


@DATASETS.register_module()
class SegmentationFolder(SegmentationDataset):
    """Your own pictures with masks, or with outlines, which are drawn: what is in none is background.

    Args:
        root: the folder.
        format: 'masks', 'coco', 'yolo' or 'labelme'; 'auto' finds out.
        split: 'train', 'val' or 'test' of the data; None takes 'train' to learn from and 'val' to score, or
            'test' where there is no 'val'.
        holdout: share set aside for scoring where the data have no split, of every class alike.
        held_out: pictures set aside before, by name below `root`; a checkpoint brings its own.
        classes: class names of the model; must be those of the data.
        training, augment, strict, seed, exif: as in `datasets.dataset.VisionDataset`.
        forgiving: note in `forgiven` what otherwise is an error, and go on without it, as the doctor does.

    Attributes:
        splits: names of the splits of the data, '' for data without.
        format: in which the data are, as `--data-format` takes it.
        held_out: the pictures set aside, None where the data have a split.
        unnamed: pictures that no annotation names, of the part that is learnt.
        forgiven: what a forgiving data set has noted; None for others.
        counts: what the masks hold.

    Raises:
        UserError: nothing known is there, several things are, or masks cannot be used.
    """

    def __init__(
        self,
        root: str,
        format: str = 'auto',  # noqa: A002 (as the command line calls it)
        *,
        split: str | None = None,
        holdout: float = 0.2,
        held_out: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
        forgiving: bool = False,
    ) -> None:
        base = existing_root(root)
        options = {'outlines': True, 'exif': exif}
        if classes is not None:
            options['classes'] = [name for name in classes if name.lower() != BACKGROUND]
        tree = Tree(base, forgiving=forgiving)
        layout = find_layout(tree, FORMATS, name=format, expected=EXPECTED, **options)
        self.problems = Problems(limit=None if strict else 3)
        self.splits, self.format = tuple(layout.splits), layout.name
        self.unnamed, self.forgiven = left_out(layout, training=training), tree.forgiven
        split = chosen_split(layout, training=training, name=split)
        found = layout.read(layout.splits[split], self.problems)
        paths = _paths(found, self.problems)
        if training and layout.has_split and split == 'train':
            other = layout.read(layout.splits[chosen_split(layout, training=False)], Problems())
            scored = list(_paths(other, Problems()).values())
            check_apart(tree, list(paths.values()), scored, source=layout.seen)
        if strict:
            self.problems.raise_if_any()
        names = names_below(base, list(paths.values()))
        strata: Sequence[Any] = [None] * len(paths)
        if not layout.has_split:
            strata = _strata(found, paths)
        part = choose_part(
            layout,
            names,
            strata,
            paths=list(paths.values()),
            training=training,
            share=holdout,
            held_out=held_out,
        )
        self.held_out = part.held_out
        self._origin = f'{layout.seen}; {part.text}{about_left_out(self.unnamed, layout.parents())}'
        chosen = list(itertools.compress(paths, part.keep))
        own, chosen, self._masks = _source(found, chosen, tree, exif)
        self.counts = self._masks.counts
        super().__init__(
            [paths[index] for index in chosen],
            match_classes(own, classes, source=base, hint=ORDER_HINT),
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
        )

    def size(self, index: int) -> tuple[int, int]:
        return self._masks.size(index)

    def read_mask(self, index: int) -> np.ndarray:
        return self._masks.read(index)

    def class_weights(self) -> list[float]:
        return self.counts.balanced_weights()

    def __str__(self) -> str:
        counts = self.counts
        text = f'{len(self):,} images with masks of {len(self.classes)} classes'
        text += counted(self.classes, counts.masks, 30)
        if counts.empty:
            names = listing((Path(mask).name for mask in counts.empty), 3)
            text += f'; {len(counts.empty)} masks label nothing ({names})'
        return f'{text}; {self._origin}' + (f'; {self.problems}' if self.problems.found else '')


def _paths(found: MaskPairs | CocoObjects, problems: Problems) -> dict[int, str]:
    """Return the pictures that are there, by their number."""
    if isinstance(found, MaskPairs):
        return {index: image for index, (image, _) in enumerate(found.pairs)}
    there = {index: each.path for index, each in enumerate(found.images) if Path(each.path).is_file()}
    absent = [each.path for index, each in enumerate(found.images) if index not in there]
    problems.add('images dropped, no such file', len(absent), absent)
    if not there:
        raise UserError(f'none of the {len(absent)} images is there; the first is {listing(absent, 1)}')
    return there


def _strata(found: MaskPairs | CocoObjects, paths: Mapping[int, str]) -> list[int]:
    """Return the rarest class of every picture, counted in pictures; -1 where there is none."""
    if isinstance(found, CocoObjects):
        owners, labels = found.columns['owners'].tolist(), found.columns['labels'].tolist()
        inside: dict[int, set[int]] = {index: set() for index in paths}
        for owner, label in zip(owners, labels, strict=True):
            inside.get(owner, set()).add(label)
        sets = list(inside.values())
    else:

        def values(mask: str) -> set[int]:
            try:
                return set() if found.colours else set(np.unique(read_mask(mask)).tolist()) - {IGNORE}
            except ImageError:
                return set()  # named when the masks are checked

        with ThreadPoolExecutor() as pool:
            sets = list(pool.map(values, (mask for _, mask in found.pairs)))
    counts: dict[int, int] = {}
    for label in itertools.chain.from_iterable(sets):
        counts[label] = counts.get(label, 0) + 1
    return [min(each, key=lambda label: (counts[label], label), default=-1) for each in sets]


def _source(
    found: MaskPairs | CocoObjects, chosen: Sequence[int], tree: Tree, exif: str
) -> tuple[tuple[str, ...], Sequence[int], MaskSource]:
    """Return the class names, the pictures that can be used, and where their label maps come from."""
    if isinstance(found, CocoObjects):
        _check_pixels(found, tree)
        objects = [name for name in found.class_names if name.lower() != BACKGROUND]
        names = (BACKGROUND, *objects)
        label_of = [names.index(name) if name in names else 0 for name in found.class_names]
        return names, chosen, DrawnMasks(found, chosen, label_of, len(names))
    names, counts = _names(found, tree.root), None
    if tree.forgiven is not None:
        chosen, table = usable(tree, found, chosen, classes=names, exif=exif)
        counts = counts_of(table, len(names), [found.pairs[index][1] for index in chosen])
    images, masks = ([found.pairs[index][side] for index in chosen] for side in (0, 1))
    if found.colours:
        return names, chosen, ColourMasks(images, masks, found.colours, exif, counts=counts)
    return names, chosen, IndexMasks(images, masks, names, exif, counts=counts)


def _check_pixels(found: CocoObjects, tree: Tree) -> None:
    """Raise UserError where all outlines are fractions of the picture; drawn, none would have a pixel."""
    corners = [part for outline in found.outlines if isinstance(outline, list) for part in outline]
    whole = all(isinstance(outline, list) for outline in found.outlines)
    if corners and whole and all(max(map(float, part)) <= 1 for part in corners):
        raise UserError(
            f'{tree.root}: all {len(corners)} outlines lie in the first pixel of their picture, for example '
            f'{listing(map(str, corners[0]), 6)}. Outlines are expected in pixels: multiply these by width '
            'and height'
        )


def _names(found: MaskPairs, base: Path) -> tuple[str, ...]:
    names = found.classes or (VOC_CLASSES if found.official else ())
    if not names:
        raise UserError(
            f'{base}: masks without a list of classes. Write classes.txt beside the folders, a class name a '
            "line in the order of the masks' indices (for coloured masks: name red green blue)"
        )
    return names
