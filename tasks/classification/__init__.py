"""Classification: one label for a whole image."""

from falconet.datasets.classification import dataset, folder, shards
from falconet.datasets.transforms import resize
from falconet.datasets.transforms import torchvision_policies as policies
from falconet.tasks.classification import metric, transforms
from falconet.tasks.classification.result import ClassificationResult
from falconet.tasks.task import Task

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
