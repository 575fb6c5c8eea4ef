"""Classification: one label for a whole image."""

from tasks.classification import dataset, folder, metric, shards, transforms
from tasks.classification.result import ClassificationResult
from tasks.data import policies, resize
from tasks.task import Task

__all__ = [
    'TASK',
    'ClassificationResult',
    'dataset',
    'folder',
    'metric',
    'policies',
    'resize',
    'shards',
    'transforms',
]

TASK = Task(
    name='classification',
    result=ClassificationResult,
    metric={'type': 'ClassificationMetric'},
    batch_augment=transforms.BatchAugment,
)
