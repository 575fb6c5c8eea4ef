"""Detection: boxes with a class and a score."""

from falconet.datasets.detection import dataset, folder
from falconet.tasks.detection import metric
from falconet.tasks.detection.result import DetectionResult
from falconet.tasks.task import Task

__all__ = ['TASK', 'DetectionResult', 'dataset', 'folder', 'metric']

TASK = Task(name='detection', result=DetectionResult, metric={'type': 'DetectionMetric'}, maps_back=True)
