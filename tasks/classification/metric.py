"""Accuracy of a classifier: top-1, top-5, per class, and the confusion matrix behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import METRICS

from falconet.core.errors import listing
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.samples import Batch
from falconet.report.page.findings import Findings
from falconet.report.plots import draw_confusion
from falconet.report.text import shown
from falconet.tasks.classification.page import Cases, as_answers, findings, worst_rows
from falconet.tasks.metric import TaskMetric, rounded


@METRICS.register_module()
class ClassificationMetric(TaskMetric):
    """Count right and wrong answers over a whole data set. Scores: see `summarise`."""

    primary = 'top1'
    files = ('confusion_matrix.png',)
    scores = ('top1', 'top5', 'mean_class')

    def __init__(self) -> None:
        super().__init__()
        self.add_state('confusion', self.empty_confusion, adds_up='sum')
        self.add_state('top5', lambda: np.zeros((), dtype=np.int64), adds_up='sum')
        self.add_state('pictures', list, adds_up='list')  # rows of `Answers`, 48 bytes a picture
        self._answers = as_answers([])

    def process(self, data_batch: Batch, data_samples: Sequence[Any]) -> None:
        """Count one batch: its targets against the model's `ClassificationResult`s."""
        rows = []
        numbers = self.numbers_of(data_batch, len(data_samples))
        for index, target, result in zip(numbers, data_batch['targets'].tolist(), data_samples, strict=True):
            self.state['confusion'][target, result.label] += 1
            # A class counts as among the first five when fewer than five score higher.
            in_five = int((result.scores > result.scores[target]).sum() < 5)
            self.state['top5'] += in_five
            rows.append((index, target, result.label, result.score, result.scores[target], in_five))
        if rows:
            self.state['pictures'].append(np.array(rows, dtype=np.float64))

    def summarise(self, total: Mapping[str, Any]) -> dict[str, Any]:
        self._answers = as_answers(total['pictures'])
        return summarise(total['confusion'], int(total['top5']), self.class_names)

    def table(self) -> Any:
        """Return the report as a rich table: the weakest classes first when there are many."""
        report = self.report
        table = self.class_table(
            'accuracy',
            ('images', 'accuracy'),
            lambda row: (
                str(row['images']),
                rounded(row['accuracy']) if row['images'] else 'no images',
                row['confused_with'] or '',
            ),
            words=['most often taken for'],
            weakest='accuracy',
        )
        for title, name in (('top-1', 'top1'), ('top-5', 'top5')):
            if name in report:
                table.add_row(title, str(report['images']), rounded(report[name]))
        table.add_row('mean over classes', '', rounded(report['mean_class']))
        return table

    def notes(self) -> list[str]:
        """Return what a high mean could hide: classes that have images and are never predicted."""
        never = self.report['never_predicted']
        return (
            [f'never predicted although the data has images of it: {listing(map(shown, never), 10)}']
            if never
            else []
        )

    def findings(self, dataset: VisionDataset | None = None, model: Any = None) -> Findings:
        return findings(self.report, self._answers, dataset, model)

    def worst(self, dataset: VisionDataset, limit: int) -> list[tuple[str, list[tuple[str, Any]]]]:
        cases = Cases(self._answers, self.class_names, dataset, None)
        return [cases.plain(row) for row in worst_rows(self._answers, limit).tolist()]

    def draw(self, folder: Path) -> list[Path]:
        path = folder / self.files[0]
        draw_confusion(np.array(self.report['confusion_matrix']), self.class_names, path)
        return [path]


def summarise(confusion: np.ndarray, top5: int, names: Sequence[str]) -> dict[str, Any]:
    """Turn counts into the report.

    Args:
        confusion: int64 (C, C), rows are the true class, columns the predicted one.
        top5: samples whose class is among the five best scores.
        names: class names.

    Returns:
        Plain values only, scores 0 to 1: 'top1', 'top5' (left out below 6 classes) and 'mean_class', which
        leaves out classes without images.
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
