"""Mean intersection over union, from one confusion matrix of pixels over the whole data set.

Counted at the original images' resolution, as VOC's development kit does; pixels labelled 255 are left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import METRICS

from falconet.core.errors import listing
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.samples import Batch
from falconet.heads.base import IGNORE
from falconet.report.page.findings import Findings
from falconet.report.plots import draw_confusion
from falconet.report.text import shown
from falconet.tasks.metric import TaskMetric, rounded
from falconet.tasks.segmentation.evidence import Counts, KeptMask, keep_worst, picture_row, worst_of
from falconet.tasks.segmentation.page import Cases, findings


@METRICS.register_module()
class SegmentationMetric(TaskMetric):
    """Count labelled pixels by true and predicted class over a whole data set. Scores: see `summarise`."""

    primary = 'miou'
    files = ('confusion_matrix.png',)
    scores = ('miou', 'pixel_accuracy', 'mean_accuracy')

    def __init__(self) -> None:
        super().__init__()
        self.add_state('confusion', self.empty_confusion, adds_up='sum')
        self.add_state('images', lambda: np.zeros((), dtype=np.int64), adds_up='sum')
        self.add_state('pictures', list, adds_up='list')  # rows of `Counts`
        self.add_state('worst', list, adds_up='list')  # `KeptMask`s, a bounded number
        self._counts, self._worst = Counts([]), list[KeptMask]()

    def process(self, data_batch: Batch, data_samples: Sequence[Any]) -> None:
        """Count one batch: label maps of the original images against the model's `SegmentationResult`s."""
        numbers = self.numbers_of(data_batch, len(data_samples))
        for index, target, result in zip(numbers, data_batch['targets'], data_samples, strict=True):
            pixels = count_pixels(target.cpu().numpy(), result.mask, len(self.class_names))
            self.state['confusion'] += pixels
            self.state['images'] += 1
            row = picture_row(index, pixels)
            self.state['pictures'].append(row)
            keep_worst(self.state['worst'], row, result.mask)

    def summarise(self, total: Mapping[str, Any]) -> dict[str, Any]:
        self._counts = Counts(total['pictures'])
        self._worst = worst_of(total['worst'])
        return summarise(total['confusion'], int(total['images']), self.class_names)

    def table(self) -> Any:
        """Return the report as a rich table, one row per class."""
        report = self.report
        total = max(1, report['pixels'])
        table = self.class_table(
            'intersection over union',
            ('share of pixels', 'IoU', 'recall', 'precision'),
            lambda row: (
                f'{row["pixels"] / total:.2%}',
                *(rounded(row[key]) for key in ('iou', 'recall', 'precision')),
                row['confused_with'] or '',
            ),
            words=['most often taken for'],
        )
        table.add_row(f'mean IoU over {report["classes_present"]} classes', '', rounded(report['miou']))
        table.add_row('mean accuracy', '', '', rounded(report['mean_accuracy']))
        table.add_row('pixel accuracy', '', '', rounded(report['pixel_accuracy']))
        return table

    def notes(self) -> list[str]:
        """Return what a high mean could hide: classes never predicted, and classes without a pixel."""
        notes = []
        if never := self.report['never_predicted']:
            notes.append(
                f'never predicted although the data has pixels of it: {listing(map(shown, never), 10)}'
            )
        if absent := self.report['absent']:
            notes.append(
                f'without a pixel in this data, and left out of the means: {listing(map(shown, absent), 10)}'
            )
        return notes

    def findings(self, dataset: VisionDataset | None = None, model: Any = None) -> Findings:
        return findings(self.report, self._counts, self._worst, dataset)

    def worst(self, dataset: VisionDataset, limit: int) -> list[tuple[str, list[tuple[str, Any]]]]:
        cases = Cases(self._worst, self.class_names, dataset)
        return [cases.seen(each) for each in cases.worst(limit)]

    def draw(self, folder: Path) -> list[Path]:
        path = folder / self.files[0]
        draw_confusion(np.array(self.report['confusion_matrix']), self.class_names, path, percent=True)
        return [path]


def count_pixels(target: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Return how many pixels of each true class were given each class.

    Args:
        target: true class indices, uint8 (H, W); 255 is left out.
        mask: predicted class indices below `num_classes`, uint8 (H, W).
        num_classes: C.

    Returns:
        int64 (C, C), rows are the true class, columns the predicted one.

    Raises:
        ValueError: the sizes differ, or a label is neither a class nor 255.
    """
    if target.shape != mask.shape:
        raise ValueError(f'the label map is {target.shape} (height, width), the prediction {mask.shape}')
    pairs = target.ravel().astype(np.intp)
    pairs *= num_classes
    pairs += mask.ravel()
    counts = np.bincount(pairs, minlength=(IGNORE + 1) * num_classes).reshape(IGNORE + 1, num_classes)
    if counts[num_classes:IGNORE].any():
        raise ValueError(
            f'the label map has values {np.unique(target).tolist()}, there are {num_classes} classes'
        )
    return counts[:num_classes]


def summarise(confusion: np.ndarray, images: int, names: Sequence[str]) -> dict[str, Any]:
    """Turn counts into the report.

    Args:
        confusion: int64 (C, C), rows are the true class, columns the predicted one.
        images: images counted.
        names: class names.

    Returns:
        Plain values only, scores 0 to 1: 'miou', 'pixel_accuracy' and 'mean_accuracy'. Means over classes
        leave out those without a labelled pixel.
    """
    true, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    present = true > 0
    total = int(true.sum())
    iou = right / np.maximum(true + predicted - right, 1)
    recall, precision = right / np.maximum(true, 1), right / np.maximum(predicted, 1)
    wrong = confusion - np.diag(right)
    return {
        'images': images,
        'pixels': total,
        'miou': float(iou[present].mean()) if total else 0.0,
        'pixel_accuracy': float(right.sum() / total) if total else 0.0,
        'mean_accuracy': float(recall[present].mean()) if total else 0.0,
        'classes_present': int(present.sum()),
        'never_predicted': [names[int(i)] for i in np.flatnonzero(present & (predicted == 0))],
        'absent': [names[int(i)] for i in np.flatnonzero(~present)],
        'per_class': {
            name: {
                'pixels': int(true[i]),
                'iou': float(iou[i]) if present[i] else None,
                'recall': float(recall[i]) if present[i] else None,
                'precision': float(precision[i]) if predicted[i] else None,
                'confused_with': names[int(wrong[i].argmax())] if wrong[i].any() else None,
            }
            for i, name in enumerate(names)
        },
        'class_names': list(names),
        'confusion_matrix': confusion.tolist(),
    }
