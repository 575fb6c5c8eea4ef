"""Classification: one label for a whole image."""

from falconet.datasets.classification import dataset, folder, shards
from falconet.tasks.classification import metric, transforms
from falconet.tasks.classification.result import ClassificationResult
from falconet.tasks.task import Task

__all__ = ['TASK', 'ClassificationResult', 'dataset', 'folder', 'metric', 'shards', 'transforms']

TASK = Task(
    name='classification',
    result=ClassificationResult,
    metric={'type': 'ClassificationMetric'},
    batch_augment=transforms.BatchAugment,
)
