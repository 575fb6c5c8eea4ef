"""Accuracy of a classifier: top-1, top-5, per class, and the confusion matrix behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from tasks.data.samples import Batch
from tasks.report.plots import draw_confusion

TABLE_ROWS = 30


@METRICS.register_module()
class ClassificationMetric(BaseMetric):
    """Count right and wrong answers over a whole data set.

    Every process counts the samples it saw, and the counts are added up: each sample counts once.

    Attributes:
        primary: the number that decides which checkpoint is best.
        report: after `evaluate`, everything that goes into metrics.json.
    """

    primary = 'top1'
    default_prefix = ''  # without one mmengine warns

    def __init__(self) -> None:
        super().__init__()
        self.report: dict[str, Any] = {}
        self._confusion: np.ndarray | None = None
        self._top5 = 0

    @property
    def class_names(self) -> list[str]:
        return self.dataset_meta['classes']  # type: ignore[index]  # set by mmengine before any batch

    def process(self, data_batch: Batch, data_samples: Sequence[Any]) -> None:
        """Count one batch: its targets against the model's `ClassificationResult`s."""
        if self._confusion is None:
            self._confusion = np.zeros((len(self.class_names),) * 2, dtype=np.int64)
        for target, result in zip(data_batch['targets'].tolist(), data_samples, strict=True):
            self._confusion[target, result.label] += 1
            # A class counts as among the first five when fewer than five score higher.
            self._top5 += int((result.scores > result.scores[target]).sum() < 5)

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the counts of all processes and start afresh.

        Args:
            size: samples in the data set; not needed, the counts know.

        Returns:
            'top1', 'top5' (left out below 6 classes) and 'mean_class', each 0 to 1.
        """
        count = len(self.class_names)
        confusion = np.zeros((count, count), np.int64) if self._confusion is None else self._confusion
        totals = torch.from_numpy(np.append(confusion.ravel(), self._top5))
        all_reduce(totals)
        self._confusion, self._top5 = None, 0
        *cells, top5 = totals.tolist()
        self.report = summarise(np.array(cells, dtype=np.int64).reshape(count, count), top5, self.class_names)
        return {key: self.report[key] for key in ('top1', 'top5', 'mean_class') if key in self.report}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Unused: `evaluate` works from counts, not from a list of results."""
        raise RuntimeError('ClassificationMetric.evaluate computes the metrics')

    def table(self) -> Any:
        """Return the report as a rich table: the weakest classes first when there are many."""
        from rich.table import Table

        report = self.report
        table = Table(title='accuracy', title_justify='left')
        for name, justify in (('class', 'left'), ('images', 'right'), ('accuracy', 'right')):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        table.add_column('most often taken for')
        rows = list(report['per_class'].items())
        if len(rows) > TABLE_ROWS:
            rows.sort(key=lambda row: row[1]['accuracy'] if row[1]['images'] else 2.0)
        for name, row in rows[:TABLE_ROWS]:
            accuracy = f'{row["accuracy"]:.3f}' if row['images'] else 'no images'
            table.add_row(name, str(row['images']), accuracy, row['confused_with'] or '')
        if len(rows) > TABLE_ROWS:
            table.caption = f'the {TABLE_ROWS} weakest of {len(rows)} classes; all are in metrics.json'
        table.add_section()
        table.add_row('top-1', str(report['images']), f'{report["top1"]:.3f}', '')
        if 'top5' in report:
            table.add_row('top-5', str(report['images']), f'{report["top5"]:.3f}', '')
        table.add_row('mean over classes', '', f'{report["mean_class"]:.3f}', '')
        return table

    def notes(self) -> list[str]:
        """Return what a high mean could hide: classes that have images and are never predicted."""
        never = self.report['never_predicted']
        if not never:
            return []
        shown = ', '.join(never[:10]) + (', ...' if len(never) > 10 else '')
        return [f'never predicted although the data has images of it: {shown}']

    def draw(self, folder: Path) -> list[Path]:
        """Draw the confusion matrix into `folder`; return the files written."""
        path = folder / 'confusion_matrix.png'
        draw_confusion(np.array(self.report['confusion_matrix']), self.class_names, path)
        return [path]


def summarise(confusion: np.ndarray, top5: int, names: Sequence[str]) -> dict[str, Any]:
    """Turn counts into the report.

    Args:
        confusion: int64 (C, C), rows are the true class, columns the predicted one.
        top5: samples whose class is among the five best scores.
        names: class names.

    Returns:
        Plain values only. Means over classes leave out those without images.
    """
    images = confusion.sum(axis=1)
    right = confusion.diagonal()
    total = int(images.sum())
    present = images > 0
    accuracy = np.divide(right, images, out=np.zeros(len(names)), where=present)
    wrong = confusion - np.diag(right)
    report: dict[str, Any] = {
        'images': total,
        'top1': float(right.sum() / total) if total else 0.0,
        'mean_class': float(accuracy[present].mean()) if total else 0.0,
        'never_predicted': [names[int(i)] for i in np.flatnonzero(present & (confusion.sum(axis=0) == 0))],
        'per_class': {
            name: {
                'images': int(images[i]),
                'accuracy': float(accuracy[i]) if present[i] else None,
                'confused_with': names[int(wrong[i].argmax())] if wrong[i].any() else None,
            }
            for i, name in enumerate(names)
        },
        'class_names': list(names),
        'confusion_matrix': confusion.tolist(),
    }
    if len(names) > 5:  # among five of five classes everything is right
        report['top5'] = float(top5 / total) if total else 0.0
    return report
