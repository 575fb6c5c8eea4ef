"""Labelled folders of any readable format, changed and written in another (`tools/convert_data.py`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from falconet.datasets.annotations import Annotations
from falconet.datasets.formats.masks import IGNORE
from falconet.datasets.layouts import writers
from falconet.datasets.layouts.remap_classes import Classes, joined, new_classes, new_split, recast
from falconet.datasets.layouts.split import names_below
from falconet.tasks.build import build_dataset

BACKGROUND = 'background'


@dataclass(frozen=True)
class Labelled:
    """Pictures of one split with one thing each: a class, or a mask to read.

    Attributes:
        paths: of the pictures.
        classes: names by index.
        label: index of a picture's class; or its mask, uint8 (H, W).
        strata: what each picture is of, for a split; None of masks, whose values say it.
    """

    paths: list[str]
    classes: tuple[str, ...]
    label: Callable[[int], Any]
    strata: list[int] | None


Part = Annotations | Labelled


def read_folder(source: str, kind: str, data_format: str | None) -> dict[str, Any]:
    """Return the data set of every split of a folder, as the format `kind` needs it."""
    name = {'masks': 'SegmentationFolder', 'folders': 'ClassificationFolder'}.get(kind, 'DetectionFolder')
    entry: dict[str, Any] = {'type': name, 'holdout': 0.0, 'format': data_format or 'auto'}

    def part(split: str | None) -> Any:
        config = Config({'val_dataloader': {'dataset': {**entry, 'split': split}}})
        return build_dataset(config, 'val_dataloader', root=Path(source), classes=None, seed=0)

    first = part(None)
    return {split: part(split) for split in first.splits}


def changed(
    datasets: Mapping[str, Any],
    kind: str,
    *,
    merge: Mapping[str, str],
    keep: Sequence[str] | None,
    shares: Mapping[str, float] | None,
) -> tuple[dict[str, Part], list[str]]:
    """Return data sets as they are to be written, and what that leaves out or moves, in words.

    Args:
        datasets: of every split.
        kind: format to write.
        merge: old name of a class -> its new one.
        keep: classes to keep, in order; None keeps all.
        shares: of train, val and test, to split anew; None keeps the splits.

    Raises:
        UserError: a class that is none.
    """
    first = next(iter(datasets.values()))
    if keep is not None and kind == 'masks' and first.classes[0].lower() == BACKGROUND:
        keep = [first.classes[0], *(name for name in keep if name != first.classes[0])]
    classes = new_classes(first.classes, merge=merge, keep=keep)
    parts = {split: _part(dataset, kind, classes) for split, dataset in datasets.items()}
    lines = []
    gone = [name for name, index in zip(first.classes, classes.index_of, strict=True) if index < 0]
    if gone:
        what = {
            'masks': 'become background, or count for nothing where there is none',
            'folders': 'are left out with their pictures',
        }.get(kind, 'are left out; their pictures stay')
        lines.append(f'left out: objects of {", ".join(gone)} {what}')
    if shares is not None:
        if len(parts) > 1:
            lines.append(f'split anew: the splits of the source ({", ".join(parts)}) are given up')
        parts = _split_anew(parts, shares)
        sizes = ', '.join(f'{split} {len(_paths(part))}' for split, part in parts.items())
        lines.append(f'split: {sizes}')
    return parts, lines


def _part(dataset: Any, kind: str, classes: Classes) -> Part:
    if kind in writers.WITH_BOXES:
        return recast(dataset.annotations, classes)
    paths = list(dataset.paths)
    if kind == 'masks':
        table = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
        # What is left out is background where there is one, and counts for nothing elsewhere.
        left = 0 if classes.names[0].lower() == BACKGROUND else IGNORE
        table[: len(classes.index_of)] = np.where(classes.index_of < 0, left, classes.index_of)

        def mask(index: int) -> np.ndarray:
            return table[dataset.read_mask(index)]

        return Labelled(paths, classes.names, mask, None)
    labels = classes.index_of[dataset.labels]
    there = np.flatnonzero(labels >= 0).tolist()
    kept = labels[there].tolist()
    return Labelled([paths[index] for index in there], classes.names, kept.__getitem__, kept)


def _paths(part: Part) -> list[str]:
    return list(part.paths)


def _strata(part: Part) -> list[int]:
    """Return what every picture is of: its class; of boxes and masks the rarest, -1 where there is none."""
    if isinstance(part, Labelled):
        if part.strata is not None:
            return part.strata
        sets = [set(np.unique(part.label(index)).tolist()) - {IGNORE} for index in range(len(part.paths))]
    else:
        sets = [set(part.labels[part.objects(index)].tolist()) for index in range(len(part))]
    counts = {label: sum(label in each for each in sets) for label in set().union(*sets)}
    return [min(each, key=lambda label: (counts[label], label), default=-1) for each in sets]


def _split_anew(parts: Mapping[str, Part], shares: Mapping[str, float]) -> dict[str, Part]:
    values = list(parts.values())
    paths = [path for part in values for path in _paths(part)]
    root = Path(paths[0]).anchor or '.'
    whole: Part
    if isinstance(values[0], Annotations):
        whole = joined([each for each in values if isinstance(each, Annotations)])
    else:
        labelled = [each for each in values if isinstance(each, Labelled)]
        owners = [(each, index) for each in labelled for index in range(len(each.paths))]
        whole = Labelled(
            paths,
            labelled[0].classes,
            lambda index: owners[index][0].label(owners[index][1]),
            None if labelled[0].strata is None else [one for each in labelled for one in each.strata or ()],
        )
    names = names_below(Path(root), paths)
    chosen = new_split(names, _strata(whole), paths, shares)
    return {split: _chosen(whole, indices) for split, indices in chosen.items()}


def _chosen(part: Part, indices: Sequence[int]) -> Part:
    if isinstance(part, Annotations):
        keep = np.zeros(len(part), dtype=bool)
        keep[list(indices)] = True
        return part.select(keep)
    return Labelled(
        [part.paths[index] for index in indices],
        part.classes,
        lambda index: part.label(indices[index]),
        None if part.strata is None else [part.strata[index] for index in indices],
    )


def said_first(parts: Mapping[str, Part], kind: str) -> list[str]:
    """Return what the format cannot hold, in words."""
    lines: list[str] = []
    for part in parts.values():
        if isinstance(part, Annotations):
            lines += writers.not_held(part, kind)
        else:
            lines += writers.names_not_held(part.classes, kind)
    return [f'cannot be held: {line}' for line in dict.fromkeys(lines)]


def write_folder(parts: Mapping[str, Part], kind: str, out: Path, *, place: writers.Place) -> None:
    """Write every split into an empty folder; `place` puts a picture somewhere."""
    boxes = {split: part for split, part in parts.items() if isinstance(part, Annotations)}
    labelled = {split: part for split, part in parts.items() if isinstance(part, Labelled)}
    if boxes:
        writers.write_boxes(boxes, out, kind, place=place)
        return
    pairs = {
        split: [(path, part.label(index)) for index, path in enumerate(part.paths)]
        for split, part in labelled.items()
    }
    classes = next(iter(labelled.values())).classes
    if kind == 'masks':
        writers.write_masks(pairs, classes, out, place=place)
        return
    named = {split: [(path, classes[label]) for path, label in each] for split, each in pairs.items()}
    writers.write_class_folders(named, out, place=place)
