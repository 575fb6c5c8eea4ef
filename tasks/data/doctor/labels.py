"""Classes by how often they occur, boxes at the size the network sees, label maps with nothing in them."""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from heads.boxes import corners_of
from tasks.data.annotations import Annotations, Problems
from tasks.data.doctor.finding import Finding, finding

FEW = 10  # pictures or objects of a class to learn from
TINY = 8  # pixels of a box's shorter side at the network's input
UNMATCHED = 0.1  # share of objects without a default box that is worth a word


def classes(names: Sequence[str], train: np.ndarray, val: np.ndarray, *, unit: str) -> list[Finding]:
    """Return classes that are absent or rare.

    Args:
        names: of the classes.
        train, val: how often each occurs, int64 (C,).
        unit: what was counted.
    """
    counted = list(zip(names, train.tolist(), val.tolist(), strict=True))
    return [
        *finding(
            'class_absent_in_training',
            'classes have nothing to learn from',
            (f'{name}: 0 {unit}, {there} in validation' for name, here, there in counted if not here),
            consequence='they are never answered',
            fix='Label some, take the class away, or look for a second spelling of its name',
        ),
        *finding(
            'class_rare_in_training',
            f'classes have fewer than {FEW} {unit} to learn from',
            (f'{name}: {here}' for name, here, _ in counted if 0 < here < FEW),
            consequence='what is learnt of them is by chance',
            fix='Label more of them',
        ),
        *finding(
            'class_absent_in_validation',
            'classes are not scored',
            (f'{name}: 0 {unit}, {here} in training' for name, here, there in counted if here and not there),
            consequence='the mean says nothing about them',
            fix='Move some pictures of theirs into validation',
        ),
    ]


def problems(found: Problems, *, part: str) -> list[Finding]:
    """Return what reading the annotations has dropped or changed."""
    return [
        each
        for kind, (count, places) in found.found.items()
        for each in finding(
            'annotations',
            f'in {part}: {kind}',
            places,
            count=count,
            consequence='what is dropped is neither learnt nor scored, what is clipped is smaller',
            fix='Correct the annotations there',
        )
    ]


def boxes(
    annotations: Annotations,
    *,
    part: str,
    input_size: tuple[int, int],
    defaults: Any,
    threshold: float,
    others: Callable[[], Iterable[tuple[str, Any]]] = tuple,
) -> list[Finding]:
    """Return boxes that are tiny, double, or like no default box.

    Args:
        annotations: of the part.
        part: its name.
        input_size: (height, width) of the network's input.
        defaults: the head's default boxes, float32 (N, 4) unit cxcywh; None where it has none.
        threshold: least IoU of a match.
        others: default boxes of other settings by name, tried where many objects are like none of these.
    """
    owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    sides = annotations.sizes[owners][:, [1, 0, 1, 0]].astype(np.float64)
    unit = annotations.boxes / sides
    shorter = ((unit[:, 2:] - unit[:, :2]) * input_size[::-1]).min(axis=1, initial=np.inf)
    keys = np.concatenate([owners[:, None], annotations.labels[:, None], annotations.boxes], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    double = np.setdiff1d(np.arange(len(keys)), first)

    def places(which: np.ndarray) -> list[str]:
        return [
            f'{annotations.paths[int(owners[k])]}: {annotations.class_names[annotations.labels[k]]} '
            f'{", ".join(f"{value:g}" for value in annotations.boxes[k])}'
            for k in which.tolist()
        ]

    tiny = np.flatnonzero(shorter < TINY)
    found = [
        *finding(
            'boxes_tiny',
            f'boxes of {part} are less than {TINY} pixels wide or high at the input of '
            f'{input_size[1]}x{input_size[0]}',
            places(tiny[:10]),
            count=len(tiny),
            consequence='the network hardly sees them',
            fix='A larger input (Resize in both loaders), or crops of the pictures',
        ),
        *finding(
            'boxes_double',
            f'boxes of {part} are there twice, of one class at one place',
            places(double[:10]),
            count=len(double),
            consequence='one of the two can never be found',
            fix='Take one away',
        ),
    ]
    if defaults is None or not len(unit):
        return found
    unit = unit.astype(np.float32)
    loose = np.flatnonzero(_best_overlaps(unit, defaults) < threshold)
    if len(loose) > UNMATCHED * len(unit):
        share = len(loose) / len(unit)
        shares = {name: (_best_overlaps(unit, each) < threshold).mean() for name, each in others()}
        tried = '; '.join(
            f'{name}: {left:.0%}' for name, left in sorted(shares.items(), key=itemgetter(1)) if left < share
        )
        found += finding(
            'boxes_like_no_default',
            f'boxes of {part} ({share:.0%}) overlap no default box by {threshold:g}',
            places(loose[:10]),
            count=len(loose),
            consequence='each is learnt by one default box that hardly fits, and found late or never',
            fix=f'With these settings that share is less: {tried}'
            if tried
            else 'A larger input, or larger objects',
        )
    return found


def _best_overlaps(unit: np.ndarray, defaults: Any) -> np.ndarray:
    """Return of every box, float32 (K, 4) unit xyxy, the largest IoU with a default box."""
    import torch
    from torchvision.ops import box_iou

    corners = corners_of(defaults)
    parts = [box_iou(part, corners).amax(dim=1) for part in torch.from_numpy(unit).split(2000)]
    return torch.cat(parts).numpy()


def masks(empty: Sequence[str], *, part: str) -> list[Finding]:
    """Return label maps in which nothing is labelled."""
    return finding(
        'masks_empty',
        f'masks of {part} label nothing: every pixel is 255',
        empty,
        consequence='nothing is learnt from these pictures',
        fix='Label them, or take them out',
    )
