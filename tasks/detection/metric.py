"""COCO's twelve numbers through pycocotools, average precision per class, and VOC's measure as an option."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import METRICS

from falconet.core.errors import listing
from falconet.datasets.annotations import Annotations
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.formats.coco import as_coco
from falconet.datasets.samples import Batch
from falconet.report.page.findings import Findings
from falconet.report.plots import draw_precision_recall
from falconet.report.text import shown
from falconet.tasks.detection.average_precision import voc_average_precision
from falconet.tasks.detection.errors import find_errors
from falconet.tasks.detection.matches import ClassMatches, matches_of
from falconet.tasks.detection.page import SHOWN_FROM, Cases, findings, worst_pictures
from falconet.tasks.metric import TaskMetric, rounded

# The order of `COCOeval.stats` for boxes. AP is the mean over IoU 0.50 to 0.95, AR recall over the same;
# _1, _10, _100 are detections allowed per image; small, medium, large areas below 32**2, 96**2 pixels, and
# above.
COCO_NAMES = (
    *('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large'),
    *('AR_1', 'AR_10', 'AR_100', 'AR_small', 'AR_medium', 'AR_large'),
)


@METRICS.register_module()
class DetectionMetric(TaskMetric):
    """Score boxes over a whole data set, by COCO's twelve numbers.

    Images that could not be read are left out, their objects too.

    Args:
        voc: also compute VOC's average precision at IoU 0.5 (all points of the curve, as from 2010 on,
            objects marked difficult left out), as `voc_AP50`.

    Attributes:
        results: after `evaluate`, all detections in COCO's result format, with original identifiers.
    """

    primary = 'AP'
    files = ('detections.json', 'precision_recall.png')

    def __init__(self, *, voc: bool = False) -> None:
        super().__init__()
        self.voc = voc
        self.scores = (*COCO_NAMES, 'voc_AP50') if voc else COCO_NAMES
        self.results: list[dict[str, Any]] = []
        self._precision = np.zeros((0, 0, 0))
        self._found: dict[int, tuple[np.ndarray, ...]] = {}
        self._matches: list[ClassMatches] = []
        self.add_state('seen', list, adds_up='list')

    @property
    def annotations(self) -> Annotations:
        return self.dataset_meta['annotations']  # type: ignore[index]  # set by mmengine before any batch

    def process(self, data_batch: Batch, data_samples: Sequence[Any]) -> None:
        """Keep one batch of the model's `DetectionResult`s."""
        for info, result in zip(data_batch['infos'], data_samples, strict=True):
            self.state['seen'].append((info.index, result.boxes, result.scores, result.labels))

    def summarise(self, total: Mapping[str, Any]) -> dict[str, Any]:
        found = {index: tuple(arrays) for index, *arrays in total['seen']}
        found = self._found = {index: found[index] for index in sorted(found)}
        self.results = as_coco_results(self.annotations, found)
        report, self._precision, self._matches = score(self.annotations, list(found), self.results)
        if self.voc:
            per_class = voc_average_precision(self.annotations, found)
            report['voc_AP50_per_class'] = per_class
            present = [value for value in per_class.values() if value is not None]
            report['voc_AP50'] = float(np.mean(present)) if present else 0.0
        return report

    def table(self) -> Any:
        """Return the report as a rich table: the weakest classes first when there are many."""
        report = self.report
        table = self.class_table(
            'average precision',
            ('objects', *COCO_NAMES[:3]),
            lambda row: (str(row['objects']), *(rounded(row[key]) for key in COCO_NAMES[:3])),
            weakest='AP',
        )
        table.add_row('all', str(report['objects']), *(rounded(report[key]) for key in COCO_NAMES[:3]))
        for group in ('small', 'medium', 'large'):
            table.add_row(group, '', rounded(report[f'AP_{group}']))
        if self.voc:
            table.add_row("VOC's measure", '', '', rounded(report['voc_AP50']))
        table.add_section()
        for name in COCO_NAMES[6:]:
            table.add_row(name.replace('AR_', 'average recall, '), '', rounded(report[name]))
        return table

    def notes(self) -> list[str]:
        """Return what the mean could hide."""
        notes = []
        if never := self.report['never_found']:
            notes.append(f'never found although the data has objects of it: {listing(map(shown, never), 10)}')
        if not self.report['objects']:
            notes.append('the data has no objects to find: there is no score')
        return notes

    def findings(self, dataset: VisionDataset | None = None, model: Any = None) -> Findings:
        return findings(self.report, self.annotations, self._found, self._matches, self._precision, dataset)

    def worst(self, dataset: VisionDataset, limit: int) -> list[tuple[str, list[tuple[str, Any]]]]:
        errors = find_errors(self.annotations, self._found, shown_from=SHOWN_FROM)
        cases = Cases(self.annotations, self._found, dataset)
        seen = [cases.seen(index) for index in worst_pictures(errors, limit)]
        return [(caption, views) for caption, _, views in seen]

    def draw(self, folder: Path) -> list[Path]:
        """Write the detections and the precision-recall curves into `folder`; return the files."""
        folder.mkdir(parents=True, exist_ok=True)
        found = folder / self.files[0]
        found.write_text(json.dumps(self.results), encoding='utf-8')
        if not self._precision.size:
            return [found]
        curves = {
            'IoU 0.5': _mean_curve(self._precision[0]),
            'IoU 0.75': _mean_curve(self._precision[5]),
            'IoU 0.5 to 0.95': _mean_curve(self._precision.mean(axis=0)),
        }
        per_class = {
            name: self._precision[0, :, index]
            for index, name in enumerate(self.annotations.class_names)
            if self._precision[0, 0, index] >= 0
        }
        picture = folder / self.files[1]
        draw_precision_recall(np.linspace(0, 1, self._precision.shape[1]), curves, per_class, picture)
        return [found, picture]


def as_coco_results(
    annotations: Annotations, found: Mapping[int, Sequence[np.ndarray]]
) -> list[dict[str, Any]]:
    """Return detections in COCO's result format: boxes as [x, y, width, height], original identifiers.

    Args:
        annotations: of the data set.
        found: image number -> boxes xyxy (K, 4), scores (K,), labels (K,).
    """
    results = []
    for index, (boxes, scores, labels) in found.items():
        image_id = int(annotations.image_ids[index])
        for box, value, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
            results.append(
                {
                    'image_id': image_id,
                    'category_id': annotations.category_ids[label],
                    'bbox': [
                        round(number, 3) for number in (box[0], box[1], box[2] - box[0], box[3] - box[1])
                    ],
                    'score': value,
                }
            )
    return results


def score(
    annotations: Annotations, images: Sequence[int], results: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], np.ndarray, list[ClassMatches]]:
    """Run pycocotools.

    Args:
        annotations: of the data set.
        images: numbers of the images that were looked at.
        results: from `as_coco_results`.

    Returns:
        The report, plain values only, None where there is no object to find; precision over IoU thresholds,
        recall and classes, (10, 101, C), -1 where a class has no object, empty when nothing can be scored;
        and which detections of each class were right.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = as_coco(annotations, images)
    for number, each in enumerate(truth['annotations'], start=1):
        each['id'] = number  # COCOeval takes 0 for "not matched", and files may share numbers
    stats: Sequence[float] = [-1.0] * len(COCO_NAMES)
    precision = np.zeros((0, 0, 0))
    matches: list[ClassMatches] = []
    if images:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints, ours is the table
            coco = COCO()
            coco.dataset = {'info': {}, **truth}  # type: ignore[typeddict-item]
            coco.createIndex()
            found: Any = COCO()
            if results:  # `loadRes` refuses an empty list
                found = coco.loadRes([dict(each) for each in results])  # type: ignore[arg-type]
            evaluation = COCOeval(coco, found, iouType='bbox')
            evaluation.params.imgIds = [image['id'] for image in truth['images']]
            evaluation.params.catIds = list(annotations.category_ids)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats = evaluation.stats.tolist()
        precision = evaluation.eval['precision'][:, :, :, 0, 2]  # all areas, 100 detections an image
        matches = matches_of(evaluation, len(annotations.class_names))

    numbers = {
        name: None if value < 0 else float(value) for name, value in zip(COCO_NAMES, stats, strict=True)
    }
    inside = np.zeros(len(annotations), dtype=bool)
    inside[list(images)] = True
    counted = np.repeat(inside, np.diff(annotations.starts)) & ~annotations.crowd
    counts = np.bincount(annotations.labels[counted], minlength=len(annotations.class_names))
    per_class = {}
    for index, name in enumerate(annotations.class_names):
        curves = precision[:, :, index] if precision.size else np.full((10, 1), -1.0)
        known = counts[index] > 0 and curves.max() >= 0
        per_class[name] = {
            'objects': int(counts[index]),
            'AP': float(curves.mean()) if known else None,
            'AP50': float(curves[0].mean()) if known else None,
            'AP75': float(curves[5].mean()) if known else None,
        }
    report = {
        'images': len(images),
        'objects': int(counts.sum()),
        'detections': len(results),
        **numbers,
        'per_class': per_class,
        'never_found': [
            name
            for index, name in enumerate(annotations.class_names)
            if counts[index] and not per_class[name]['AP50']
        ],
        'class_names': list(annotations.class_names),
    }
    return report, precision, matches


def _mean_curve(precision: np.ndarray) -> np.ndarray:
    """Mean over the classes that have objects, (R, C) -> (R,)."""
    present = precision[:, precision[0] >= 0]
    return present.mean(axis=1) if present.size else np.zeros(len(precision))
