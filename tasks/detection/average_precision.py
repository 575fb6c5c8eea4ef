"""VOC's average precision, as its development kit computes it (VOCdevkit 2012, `VOCevaldet.m`)."""

from collections.abc import Mapping

import numpy as np
import torch

from falconet.datasets.annotations import Annotations


def voc_average_precision(
    annotations: Annotations,
    found: Mapping[int, tuple[np.ndarray, ...]],
    *,
    iou_threshold: float = 0.5,
) -> dict[str, float | None]:
    """Return the area under the precision-recall curve of every class, None for one without objects.

    A detection is compared with the object of its class it overlaps most. It is right if they overlap
    enough and the object was not found before, by a better detection; it does not count if the object is
    marked difficult.

    Args:
        annotations: of the data set; `crowd` are the difficult objects.
        found: image number -> boxes xyxy (K, 4), scores (K,), labels (K,).
        iou_threshold: least overlap.
    """
    averages: dict[str, float | None] = {}
    for label, name in enumerate(annotations.class_names):
        scores: list[np.ndarray] = []
        right: list[np.ndarray] = []
        total = 0
        for index, (boxes, image_scores, labels) in found.items():
            objects = annotations.objects(index)
            mine = annotations.labels[objects] == label
            truth, difficult = annotations.boxes[objects][mine], annotations.crowd[objects][mine]
            total += int((~difficult).sum())
            ours = labels == label
            order = np.argsort(-image_scores[ours], kind='stable')
            verdicts = judge(boxes[ours][order], truth, difficult, iou_threshold)
            counted = verdicts >= 0
            scores.append(image_scores[ours][order][counted])
            right.append(verdicts[counted] == 1)
        if total == 0:
            averages[name] = None
            continue
        best = np.argsort(-np.concatenate(scores), kind='stable')
        averages[name] = area_under_curve(np.concatenate(right)[best], total)
    return averages


def judge(boxes: np.ndarray, truth: np.ndarray, difficult: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Return for each box of one image and class, best first: 1 right, 0 wrong, -1 not counted."""
    verdicts = np.zeros(len(boxes), dtype=np.int64)
    if not len(truth) or not len(boxes):
        return verdicts
    from torchvision.ops import box_iou

    overlaps = box_iou(torch.from_numpy(boxes).float(), torch.from_numpy(truth).float()).numpy()
    taken = np.zeros(len(truth), dtype=bool)
    for row, overlap in enumerate(overlaps):
        best = int(overlap.argmax())
        if overlap[best] < iou_threshold:
            continue
        if difficult[best]:
            verdicts[row] = -1
        elif not taken[best]:
            verdicts[row] = 1
            taken[best] = True
    return verdicts


def area_under_curve(right: np.ndarray, total: int) -> float:
    """Area under precision over recall, precision made to fall only.

    Args:
        right: bool (K,), whether each detection is right, best first.
        total: objects there are, above 0.
    """
    hits = np.cumsum(right)
    recall = np.concatenate([[0.0], hits / total])
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope).sum())
