"""A folder of pictures with a class each, in any usual format, recognised as it is."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError
from falconet.datasets.annotations import Problems
from falconet.datasets.classes import counted, match_classes
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.files import existing_root
from falconet.datasets.layouts import class_folders, tables
from falconet.datasets.layouts.base import about_left_out, chosen_split, find_layout, left_out
from falconet.datasets.layouts.file_tree import Tree
from falconet.datasets.layouts.split import check_apart, choose_part, names_below

FORMATS = {'folders': class_folders.recognise, 'csv': tables.recognise_labels}
EXPECTED = 'pictures with a class each (a folder a class, or CSV with the columns image and label)'


@DATASETS.register_module()
class ClassificationFolder(VisionDataset):
    """Your own pictures with a class each.

    Args:
        root: the folder.
        format: 'folders' or 'csv'; 'auto' finds out.
        split: 'train', 'val' or 'test' of the data; None takes 'train' to learn from and 'val' to score, or
            'test' where there is no 'val'.
        holdout: share set aside for scoring where the data have no split, of every class alike.
        held_out: pictures set aside before, by name below `root`; a checkpoint brings its own.
        classes: class names in the model's order; None takes the names found, sorted.
        training, augment, strict, seed, exif: as in `datasets.dataset.VisionDataset`.
        forgiving: note in `forgiven` what otherwise is an error, and go on without it, as the doctor does.

    Attributes:
        splits: names of the splits of the data, '' for data without.
        format: in which the data are, as `--data-format` takes it.
        labels: class index of every picture, int64 (N,).
        held_out: the pictures set aside, None where the data have a split.
        unnamed: pictures that no annotation names, of the part that is learnt.
        forgiven: what a forgiving data set has noted; None for others.

    Raises:
        UserError: nothing known is there, several things are, or the classes differ.
    """

    reducible = True

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
        tree = Tree(base, forgiving=forgiving)
        layout = find_layout(tree, FORMATS, name=format, expected=EXPECTED, classes=classes)
        self.problems = Problems(limit=None if strict else 3)
        self.splits, self.format = tuple(layout.splits), layout.name
        self.unnamed, self.forgiven = left_out(layout, training=training), tree.forgiven
        split = chosen_split(layout, training=training, name=split)
        found = layout.read(layout.splits[split], self.problems)
        if strict:
            self.problems.raise_if_any()
        if training and layout.has_split and split == 'train':
            other = layout.splits[chosen_split(layout, training=False)]
            scored = layout.read(other, Problems()).files
            check_apart(tree, found.files, scored, source=layout.seen)
        names = match_classes(found.classes, classes, source=base, ordered=False)
        part = choose_part(
            layout,
            names_below(base, found.files),
            found.labels,
            paths=found.files,
            training=training,
            share=holdout,
            held_out=held_out,
        )
        self.held_out = part.held_out
        self._origin = f'{layout.seen}; {part.text}{about_left_out(self.unnamed)}'
        index_of = {name: index for index, name in enumerate(names)}
        labels = [index_of[name] for name in itertools.compress(found.labels, part.keep)]
        self.labels = np.array(labels, dtype=np.int64)
        if training and not forgiving and (empty := sorted(set(range(len(names))) - set(labels))):
            raise UserError(f'{layout.seen}: class {names[empty[0]]!r} has no picture to learn from')
        super().__init__(
            list(itertools.compress(found.files, part.keep)),
            names,
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
        )

    def target(self, index: int) -> dict[str, Any]:
        return {'label': int(self.labels[index])}

    def to_target(self, augmented: Mapping[str, Any]) -> int:
        return augmented['label']

    def __str__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.classes))
        text = f'{len(self):,} images in {len(self.classes)} classes{counted(self.classes, counts)}'
        return f'{text}; {self._origin}' + (f'; {self.problems}' if self.problems.found else '')
