"""Segmentation: a label for every pixel."""

from tasks.data import resize
from tasks.segmentation import coco, dataset, folder, metric, transforms
from tasks.segmentation.multi_scale import multi_scale_scores
from tasks.segmentation.result import SegmentationResult
from tasks.task import Task

__all__ = ['TASK', 'SegmentationResult', 'coco', 'dataset', 'folder', 'metric', 'resize', 'transforms']

TASK = Task(
    name='segmentation',
    result=SegmentationResult,
    metric={'type': 'SegmentationMetric'},
    multi_scale=multi_scale_scores,
    maps_back=True,
)
