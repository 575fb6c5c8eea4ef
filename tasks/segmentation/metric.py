"""Mean intersection over union, from one confusion matrix of pixels over the whole data set.

Counted at the original images' resolution, as VOC's development kit does; pixels labelled 255 are left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from heads.base import IGNORE
from tasks.data.samples import Batch
from tasks.errors import listing
from tasks.report.plots import draw_confusion


@METRICS.register_module()
class SegmentationMetric(BaseMetric):
    """Count labelled pixels by true and predicted class over a whole data set.

    Every process counts the images it saw, and the counts are added up: each image counts once.

    Attributes:
        primary: the number that decides which checkpoint is best.
        report: after `evaluate`, everything that goes into metrics.json.
    """

    primary = 'miou'
    default_prefix = ''  # without one mmengine warns

    def __init__(self) -> None:
        super().__init__()
        self.report: dict[str, Any] = {}
        self._confusion: np.ndarray | None = None
        self._images = 0

    @property
    def class_names(self) -> list[str]:
        return self.dataset_meta['classes']  # type: ignore[index]  # set by mmengine before any batch

    def process(self, data_batch: Batch, data_samples: Sequence[Any]) -> None:
        """Count one batch: label maps of the original images against the model's `SegmentationResult`s."""
        if self._confusion is None:
            self._confusion = np.zeros((len(self.class_names),) * 2, dtype=np.int64)
        for target, result in zip(data_batch['targets'], data_samples, strict=True):
            self._confusion += count_pixels(target.cpu().numpy(), result.mask, len(self.class_names))
            self._images += 1

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the counts of all processes and start afresh.

        Args:
            size: samples in the data set; not needed, the counts know.

        Returns:
            'miou', 'pixel_accuracy' and 'mean_accuracy', each 0 to 1.
        """
        count = len(self.class_names)
        confusion = np.zeros((count, count), np.int64) if self._confusion is None else self._confusion
        totals = torch.from_numpy(np.append(confusion.ravel(), self._images))
        all_reduce(totals)
        self._confusion, self._images = None, 0
        *cells, images = totals.tolist()
        self.report = summarise(
            np.array(cells, dtype=np.int64).reshape(count, count), images, self.class_names
        )
        return {key: self.report[key] for key in ('miou', 'pixel_accuracy', 'mean_accuracy')}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Unused: `evaluate` works from counts, not from a list of results."""
        raise RuntimeError('SegmentationMetric.evaluate computes the metrics')

    def table(self) -> Any:
        """Return the report as a rich table, one row per class."""
        from rich.table import Table

        report = self.report
        table = Table(title='intersection over union', title_justify='left')
        table.add_column('class')
        for name in ('share of pixels', 'IoU', 'recall', 'precision'):
            table.add_column(name, justify='right')
        table.add_column('most often taken for')
        total = max(1, report['pixels'])
        for name, row in report['per_class'].items():
            scores = (_rounded(row[key]) for key in ('iou', 'recall', 'precision'))
            table.add_row(name, f'{row["pixels"] / total:.2%}', *scores, row['confused_with'] or '')
        table.add_section()
        table.add_row(f'mean IoU over {report["classes_present"]} classes', '', f'{report["miou"]:.3f}')
        table.add_row('mean accuracy', '', '', f'{report["mean_accuracy"]:.3f}')
        table.add_row('pixel accuracy', '', '', f'{report["pixel_accuracy"]:.3f}')
        return table

    def notes(self) -> list[str]:
        """Return what a high mean could hide: classes never predicted, and classes without a pixel."""
        notes = []
        if never := self.report['never_predicted']:
            notes.append(f'never predicted although the data has pixels of it: {listing(never, 10)}')
        if absent := self.report['absent']:
            notes.append(f'without a pixel in this data, and left out of the means: {listing(absent, 10)}')
        return notes

    def draw(self, folder: Path) -> list[Path]:
        """Draw the confusion matrix into `folder`; return the files written."""
        path = folder / 'confusion_matrix.png'
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
        Plain values only. Means over classes leave out those without a labelled pixel.
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


def _rounded(score: float | None) -> str:
    return '-' if score is None else f'{score:.3f}'
