"""Which detections pycocotools took for right, in a few arrays, so that pictures can be drawn many times.

COCO's average precision of a set in which pictures occur several times or not at all, without matching anew.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from falconet.tasks.detection.errors import average_precision

THRESHOLDS = 10  # IoU 0.50 to 0.95
WORK = 4e7  # detections times thresholds times draws that are affordable: seconds
MOST_DRAWS, FEWEST_DRAWS = 200, 40


class ClassMatches(NamedTuple):
    """The detections of a class, best first, and its objects.

    Attributes:
        pictures: number of the picture of each detection, int32 (D,).
        right, counted: at every threshold, bool (T, D); those on crowds do not count.
        objects: in every picture, int32 (N,).
    """

    pictures: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


def matches_of(evaluation: Any, classes: int) -> list[ClassMatches]:
    """Return what a `COCOeval` matched, over objects of all sizes and 100 detections a picture."""
    pictures, areas = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
    matches = []
    for place in range(classes):
        start = place * areas * pictures
        entries: Sequence[Any] = evaluation.evalImgs[start : start + pictures]
        objects = np.zeros(pictures, dtype=np.int32)
        where, scores = [np.zeros(0, np.int32)], [np.zeros(0)]
        right, counted = [np.zeros((THRESHOLDS, 0), bool)], [np.zeros((THRESHOLDS, 0), bool)]
        for picture, entry in enumerate(entries):
            if entry is None:
                continue
            objects[picture] = np.count_nonzero(~np.asarray(entry['gtIgnore'], dtype=bool))
            where.append(np.full(len(entry['dtScores']), picture, np.int32))
            scores.append(np.asarray(entry['dtScores'], dtype=np.float64))
            right.append(np.asarray(entry['dtMatches']) > 0)
            counted.append(~np.asarray(entry['dtIgnore'], dtype=bool))
        order = np.argsort(-np.concatenate(scores), kind='mergesort')  # as pycocotools sorts
        matches.append(
            ClassMatches(
                np.concatenate(where)[order],
                np.concatenate(right, axis=1)[:, order],
                np.concatenate(counted, axis=1)[:, order],
                objects,
            )
        )
    return matches


def draws_for(matches: Sequence[ClassMatches]) -> int:
    """Return how many draws are affordable."""
    size = max(1, sum(each.right.size for each in matches))
    return int(np.clip(WORK / size, FEWEST_DRAWS, MOST_DRAWS))


def precisions(matches: Sequence[ClassMatches], weights: np.ndarray) -> np.ndarray:
    """Return AP and AP50 over all classes, then AP of every class, then AP50 of every class: (2 + 2 C,).

    Args:
        matches: of every class.
        weights: how often each picture counts, (N,).
    """
    table = np.full((len(matches), THRESHOLDS), np.nan)
    for place, each in enumerate(matches):
        total = float(each.objects @ weights)
        if total <= 0:
            continue
        weight = weights[each.pictures].astype(np.float64)
        hits = np.cumsum(weight * (each.right & each.counted), axis=1)
        others = np.cumsum(weight * (~each.right & each.counted), axis=1)
        table[place] = [average_precision(*rows, total) for rows in zip(hits, others, strict=True)]
    per_class = table.mean(axis=1)
    known = np.isfinite(per_class)
    means = [per_class[known].mean(), table[known, 0].mean()] if known.any() else [np.nan, np.nan]
    return np.array([*means, *per_class, *table[:, 0]])
