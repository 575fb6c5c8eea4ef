"""Segmentation: a label for every pixel."""

from falconet.datasets.segmentation import coco, dataset, folder
from falconet.tasks.segmentation import metric
from falconet.tasks.segmentation.multi_scale import multi_scale_scores
from falconet.tasks.segmentation.result import SegmentationResult
from falconet.tasks.task import Task

__all__ = ['TASK', 'SegmentationResult', 'coco', 'dataset', 'folder', 'metric']

TASK = Task(
    name='segmentation',
    result=SegmentationResult,
    metric={'type': 'SegmentationMetric'},
    multi_scale=multi_scale_scores,
    maps_back=True,
)
