"""Detection: boxes with a class and a score."""

from tasks.data import resize
from tasks.detection import dataset, folder, metric, mosaic, transforms
from tasks.detection.result import DetectionResult
from tasks.task import Task

__all__ = ['TASK', 'DetectionResult', 'dataset', 'folder', 'metric', 'mosaic', 'resize', 'transforms']

TASK = Task(name='detection', result=DetectionResult, metric={'type': 'DetectionMetric'}, maps_back=True)
