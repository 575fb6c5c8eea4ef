"""The kinds of error a detector makes, and what each costs: TIDE (Bolya et al., arXiv 2008.08115).

A detection is right if it overlaps an object of its class by half or more that no better one has found. The
others are of one kind each, sections 2.2 and 2.3: the right class at the wrong place, the wrong class at the
right place, both wrong, a second box on an object, or background. An object that nothing came near is missed.
The cost of a kind is how much the average precision at IoU 0.5 would rise if an oracle mended just that kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from falconet.datasets.annotations import Annotations

RIGHT, PLACE, CLASS, DOUBLE, BACKGROUND, BOTH, IGNORED = range(7)
MISSED = 7
KINDS = {
    CLASS: 'class',
    PLACE: 'place',
    BOTH: 'both',
    DOUBLE: 'double',
    BACKGROUND: 'background',
    MISSED: 'missed',
}
FOUND_FROM, NEAR_FROM = 0.5, 0.1  # IoU
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Verdicts:
    """What the detections of one picture are, best first, and what became of its objects.

    Attributes:
        kinds: int8 (K,), RIGHT to IGNORED (it lies on a crowd).
        objects: which object a detection found, misplaced or misnamed; int64 (K,), -1 for none.
        missed: bool (M,): nothing came near this object.
        found: bool (M,).
    """

    kinds: np.ndarray
    objects: np.ndarray
    missed: np.ndarray
    found: np.ndarray


def overlaps(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return IoU (K, M) of boxes xyxy; with a crowd the share of the box inside it, as COCO counts."""
    corner = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    sides = np.clip(np.minimum(boxes[:, None, 2:], truth[None, :, 2:]) - corner, 0, None)
    common = sides[..., 0] * sides[..., 1]
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    other = np.prod(truth[:, 2:] - truth[:, :2], axis=1)[None]
    return common / np.maximum(np.where(crowd[None], own, own + other - common), 1e-9)


def judge(
    boxes: np.ndarray, labels: np.ndarray, truth: np.ndarray, truth_labels: np.ndarray, crowd: np.ndarray
) -> Verdicts:
    """Return what each detection of a picture is.

    Args:
        boxes, labels: detections, best first, xyxy (K, 4) and (K,).
        truth, truth_labels, crowd: objects, (M, 4), (M,) and bool (M,).
    """
    count = len(boxes)
    kinds, objects = np.full(count, BACKGROUND, dtype=np.int8), np.full(count, -1, dtype=np.int64)
    found = np.zeros(len(truth), dtype=bool)
    if count and len(truth):
        iou = overlaps(boxes.astype(np.float64), truth.astype(np.float64), crowd)
        same = (labels[:, None] == truth_labels[None]) & ~crowd[None]
        other = (labels[:, None] != truth_labels[None]) & ~crowd[None]
        own, foreign = np.where(same, iou, 0.0), np.where(other, iou, 0.0)
        for row in np.flatnonzero(own.max(axis=1) >= FOUND_FROM).tolist():
            free = np.where(found, 0.0, own[row])
            if free.max() >= FOUND_FROM:
                objects[row] = free.argmax()
                found[objects[row]] = True
                kinds[row] = RIGHT
        best_own, best_foreign = own.max(axis=1), foreign.max(axis=1)
        wrong = kinds != RIGHT
        on_crowd = (
            np.where((labels[:, None] == truth_labels[None]) & crowd[None], iou, 0).max(axis=1)
        ) >= FOUND_FROM
        misplaced = wrong & (best_own >= NEAR_FROM) & (best_own < FOUND_FROM)
        misnamed = wrong & ~misplaced & (best_foreign >= FOUND_FROM)
        twice = wrong & ~misplaced & ~misnamed & (best_own >= FOUND_FROM)
        both = wrong & ~misplaced & ~misnamed & ~twice & (np.maximum(best_own, best_foreign) > NEAR_FROM)
        for mask, kind in ((misplaced, PLACE), (misnamed, CLASS), (twice, DOUBLE), (both, BOTH)):
            kinds[mask] = kind
        objects[misplaced] = own[misplaced].argmax(axis=1)
        objects[misnamed] = foreign[misnamed].argmax(axis=1)
        kinds[wrong & on_crowd] = IGNORED
        objects[kinds == IGNORED] = -1
    near = np.zeros(len(truth), dtype=bool)
    near[objects[objects >= 0]] = True
    return Verdicts(kinds, objects, ~near & ~found & ~crowd, found)


@dataclass(frozen=True)
class Errors:
    """Errors of a whole data set.

    Attributes:
        counts: kind -> detections of it (objects, for MISSED), among all and among those shown.
        costs: kind -> what average precision at IoU 0.5 would gain without it.
        confused: (true class, what it was taken for) -> objects, at scores that are shown.
        scores, right: of all detections that count, (K,).
        weight: picture -> how wrong it is: the scores of wrong boxes that are shown, and 1 for each object
            not found.
        lost: picture -> class indices of the objects not found.
    """

    counts: dict[int, tuple[int, int]]
    costs: dict[int, float]
    confused: dict[tuple[int, int], int]
    scores: np.ndarray
    right: np.ndarray
    weight: dict[int, float]
    lost: dict[int, np.ndarray]


def find_errors(
    annotations: Annotations, found: Mapping[int, Sequence[np.ndarray]], *, shown_from: float
) -> Errors:
    """Sort all detections into kinds.

    Args:
        annotations: of the data set.
        found: picture -> boxes xyxy (K, 4), scores (K,), labels (K,).
        shown_from: score from which a detection is one that a user would see.
    """
    columns: list[np.ndarray] = []
    missed, shown = np.zeros(len(annotations.class_names), dtype=np.int64), np.zeros(8, dtype=np.int64)
    objects_before, true_labels = 0, []
    confused: dict[tuple[int, int], int] = {}
    weight, lost = {}, {}
    for index, (boxes, scores, labels) in found.items():
        order = np.argsort(-scores, kind='stable')
        boxes, scores, labels = boxes[order], scores[order], labels[order]
        objects = annotations.objects(index)
        truth, crowd = annotations.boxes[objects], annotations.crowd[objects]
        truth_labels = annotations.labels[objects]
        verdicts = judge(boxes, labels, truth, truth_labels, crowd)
        np.add.at(missed, truth_labels[verdicts.missed], 1)
        target = np.where(verdicts.objects >= 0, verdicts.objects + objects_before, -1)
        columns.append(np.stack([scores.astype(np.float64), labels, verdicts.kinds, target]))
        objects_before += len(truth)
        true_labels.append(truth_labels)
        seen = scores >= shown_from
        verdicts = judge(boxes[seen], labels[seen], truth, truth_labels, crowd)
        shown[:7] += np.bincount(verdicts.kinds, minlength=7)
        shown[MISSED] += int(verdicts.missed.sum())
        wrong = (verdicts.kinds != RIGHT) & (verdicts.kinds != IGNORED)
        away = ~verdicts.found & ~crowd
        weight[index] = float(scores[seen][wrong].sum() + away.sum())
        lost[index] = truth_labels[away]
        for row in np.flatnonzero(verdicts.kinds == CLASS).tolist():
            pair = int(truth_labels[verdicts.objects[row]]), int(labels[seen][row])
            confused[pair] = confused.get(pair, 0) + 1
    scores, labels, kinds, target = np.concatenate([np.zeros((4, 0)), *columns], axis=1)
    kinds, labels, target = kinds.astype(np.int8), labels.astype(np.int64), target.astype(np.int64)
    classes = np.concatenate([np.zeros(0, np.int64), *true_labels])
    counted = np.repeat(np.isin(np.arange(len(annotations)), list(found)), np.diff(annotations.starts))
    total = np.bincount(annotations.labels[counted & ~annotations.crowd], minlength=len(missed))
    counts = {kind: (int((kinds == kind).sum()), int(shown[kind])) for kind in KINDS}
    counts[MISSED] = (int(missed.sum()), int(shown[MISSED]))
    costs = _costs(scores, labels, kinds, target, classes, total, missed)
    counts_as = kinds != IGNORED
    return Errors(counts, costs, confused, scores[counts_as], kinds[counts_as] == RIGHT, weight, lost)


def _costs(
    scores: np.ndarray, labels: np.ndarray, kinds: np.ndarray, target: np.ndarray, classes: np.ndarray,
    total: np.ndarray, missed: np.ndarray,
) -> dict[int, float]:  # fmt: skip
    order = np.argsort(-scores, kind='stable')
    order = order[kinds[order] != IGNORED]
    labels, kinds, target = labels[order], kinds[order], target[order]
    before = mean_average_precision(labels, kinds == RIGHT, total)
    costs = {}
    for kind in (CLASS, PLACE):
        # The best of those that mean one object finds it, unless another has; the rest go.
        right, named, keep = kinds == RIGHT, labels.copy(), np.ones(len(labels), dtype=bool)
        taken = set(target[right].tolist())
        for row in np.flatnonzero(kinds == kind).tolist():
            if target[row] in taken:
                keep[row] = False
            else:
                taken.add(target[row])
                right[row], named[row] = True, classes[target[row]]
        costs[kind] = mean_average_precision(named[keep], right[keep], total) - before
    for kind in (BOTH, DOUBLE, BACKGROUND):
        keep = kinds != kind
        costs[kind] = mean_average_precision(labels[keep], kinds[keep] == RIGHT, total) - before
    costs[MISSED] = mean_average_precision(labels, kinds == RIGHT, total - missed) - before
    return {kind: max(0.0, costs[kind]) for kind in KINDS}


def mean_average_precision(labels: np.ndarray, right: np.ndarray, total: np.ndarray) -> float:
    """Return the mean over classes of average precision, read at COCO's 101 recalls.

    Args:
        labels, right: of all detections, best first, (K,).
        total: objects of every class, (C,); classes without any are left out.
    """
    values = []
    for label in map(int, np.flatnonzero(total > 0)):
        mine = right[labels == label]
        values.append(average_precision(np.cumsum(mine), np.cumsum(~mine), float(total[label])))
    return float(np.mean(values)) if values else 0.0


def average_precision(hits: np.ndarray, others: np.ndarray, total: float) -> float:
    """Return average precision from running counts of right and wrong detections, (K,), best first."""
    if not len(hits):
        return 0.0
    precision = hits / np.maximum(hits + others, np.finfo(np.float64).eps)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = (hits / total).searchsorted(RECALLS)
    return float(envelope[places[places < len(envelope)]].sum() / len(RECALLS))
