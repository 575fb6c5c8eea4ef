"""Average precision: the COCO API's own example, a second implementation, and what a mean could hide."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falconet.datasets.annotations import Annotations, ImageRecord, Problems, build_annotations
from falconet.datasets.formats.coco import read_coco
from falconet.datasets.samples import Batch, SampleInfo
from falconet.tasks.detection import DetectionResult
from falconet.tasks.detection.average_precision import area_under_curve, voc_average_precision
from falconet.tasks.detection.metric import COCO_NAMES, DetectionMetric


def annotations(objects: list[tuple[int, list[float], int, bool]], images: int = 2) -> Annotations:
    """Build from (image, xyxy, label, crowd)."""
    return build_annotations(
        [ImageRecord(10 + 5 * index, f'{index}.jpg', (100, 100)) for index in range(images)],
        owners=np.array([each[0] for each in objects], dtype=np.int64),
        boxes=np.array([each[1] for each in objects], dtype=np.float64).reshape(-1, 4),
        labels=np.array([each[2] for each in objects], dtype=np.int32),
        crowd=np.array([each[3] for each in objects], dtype=bool),
        areas=np.array([(b[2] - b[0]) * (b[3] - b[1]) for _, b, _, _ in objects], dtype=np.float64),
        object_ids=np.arange(len(objects)),
        class_names=['cat', 'dog'],
        category_ids=[17, 18],
        problems=Problems(),
    )


def result(found: list[tuple[list[float], float, int]]) -> DetectionResult:
    return DetectionResult(
        np.array([each[0] for each in found], dtype=np.float32).reshape(-1, 4),
        np.array([each[1] for each in found], dtype=np.float32),
        np.array([each[2] for each in found], dtype=np.int64),
        ('cat', 'dog'),
    )


def run(truth: Annotations, found: dict[int, DetectionResult], **options: Any) -> DetectionMetric:
    metric = DetectionMetric(**options)
    metric.dataset_meta = {'classes': list(truth.class_names), 'annotations': truth}
    for index, each in found.items():
        info = SampleInfo(index, truth.paths[index], (100, 100))
        metric.process(Batch(images=None, targets=None, infos=[info], skipped=[]), [each])  # type: ignore[arg-type]
    metric.evaluate(len(truth))
    return metric


def test_the_coco_apis_example_gives_its_twelve_published_numbers(real_data: Path) -> None:
    folder = real_data / 'known_answers/cocoapi'
    truth = read_coco([folder / 'instances_val2014_100.json'], [folder], categories=None, problems=Problems())
    by_image: dict[int, list[dict]] = {}
    for entry in json.loads((folder / 'instances_val2014_fakebbox100_results.json').read_text()):
        by_image.setdefault(entry['image_id'], []).append(entry)
    found = {}
    for index, identifier in enumerate(truth.image_ids.tolist()):
        entries = by_image.get(identifier, [])
        xywh = np.array([each['bbox'] for each in entries], dtype=np.float32).reshape(-1, 4)
        found[index] = DetectionResult(
            np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
            np.array([each['score'] for each in entries], dtype=np.float32),
            np.array([truth.category_ids.index(each['category_id']) for each in entries], dtype=np.int64),
            truth.class_names,
        )
    report = run(truth, found, voc=True).report
    published = [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564]
    assert [round(report[name], 3) for name in COCO_NAMES] == published
    # Another measure, close to AP50 because both are areas under nearly the same curves.
    assert report['voc_AP50'] == pytest.approx(report['AP50'], abs=0.01)


TRUTH = [
    (0, [10, 10, 50, 50], 0, False),
    (0, [60, 60, 90, 90], 1, False),
    (1, [20, 20, 80, 80], 0, False),
]


def test_perfect_boxes_score_one_and_are_written_with_original_identifiers(tmp_path: Path) -> None:
    truth = annotations(TRUTH)
    found = {
        0: result([([10, 10, 50, 50], 0.9, 0), ([60, 60, 90, 90], 0.8, 1)]),
        1: result([([20, 20, 80, 80], 0.7, 0)]),
    }
    metric = run(truth, found, voc=True)
    assert metric.report['AP'] == pytest.approx(1)
    assert metric.report['voc_AP50'] == 1
    assert metric.report['AP_large'] is None  # there is no large object
    files = metric.draw(tmp_path)
    assert [file.name for file in files] == ['detections.json', 'precision_recall.png']
    written = json.loads(files[0].read_text())
    assert {(each['image_id'], each['category_id']) for each in written} == {(10, 17), (10, 18), (15, 17)}
    assert written[1]['bbox'] == [60, 60, 30, 30]


def test_the_written_file_is_one_pycocotools_takes(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    metric = run(annotations(TRUTH), {0: result([([10, 10, 50, 50], 0.9, 0)]), 1: result([])})
    metric.draw(tmp_path)
    official = COCO()
    official.dataset = {
        'info': {},
        'images': [{'id': 10}, {'id': 15}],
        'annotations': [],
        'categories': [{'id': 17, 'name': 'cat'}, {'id': 18, 'name': 'dog'}],
    }  # type: ignore[assignment]
    official.createIndex()
    assert len(official.loadRes(str(tmp_path / 'detections.json')).anns) == 1


def test_a_class_never_found_is_said() -> None:
    metric = run(annotations(TRUTH), {0: result([([10, 10, 50, 50], 0.9, 0)]), 1: result([])})
    assert metric.report['per_class']['dog'] == {'objects': 1, 'AP': 0.0, 'AP50': 0.0, 'AP75': 0.0}
    assert metric.notes() == ['never found although the data has objects of it: dog']
    assert metric.table() is not None


def test_nothing_found_at_all_scores_zero() -> None:
    metric = run(annotations(TRUTH), {0: result([]), 1: result([])})
    assert metric.report['AP'] == 0
    assert metric.report['never_found'] == ['cat', 'dog']


def test_a_crowd_neither_counts_nor_costs() -> None:
    truth = annotations([*TRUTH, (1, [0, 0, 100, 18], 1, True)])
    found = {
        0: result([([10, 10, 50, 50], 0.9, 0), ([60, 60, 90, 90], 0.8, 1)]),
        1: result([([20, 20, 80, 80], 0.7, 0), ([5, 2, 15, 15], 0.95, 1)]),
    }
    metric = run(truth, found, voc=True)
    assert metric.report['AP'] == pytest.approx(1)
    assert metric.report['per_class']['dog']['objects'] == 1


def test_data_without_objects_has_no_score_and_says_so(tmp_path: Path) -> None:
    metric = run(annotations([]), {0: result([([1, 1, 5, 5], 0.9, 0)]), 1: result([])})
    assert metric.report['AP'] is None
    assert metric.notes() == ['the data has no objects to find: there is no score']
    metric.draw(tmp_path)
    metric.table()


def test_objects_of_an_image_that_could_not_be_read_are_left_out() -> None:
    metric = run(annotations(TRUTH), {1: result([([20, 20, 80, 80], 0.7, 0)])})
    assert metric.report['AP'] == pytest.approx(1)
    assert metric.report['images'] == 1
    assert metric.report['objects'] == 1


def test_an_image_scored_by_two_processes_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = annotations(TRUTH)
    both = {0: result([([10, 10, 50, 50], 0.9, 0)]), 1: result([([20, 20, 80, 80], 0.7, 0)])}
    alone = run(truth, both).report
    parts = [[(k, v.boxes, v.scores, v.labels)] for k, v in both.items()]
    monkeypatch.setattr('falconet.tasks.metric.all_gather_object', lambda seen: [*parts, parts[0]])
    assert run(truth, {}).report == alone


def test_voc_takes_the_area_under_the_envelope() -> None:
    """Right, wrong, right, of two objects: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    assert area_under_curve(np.array([True, False, True]), 2) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert area_under_curve(np.array([], dtype=bool), 3) == 0


def test_voc_counts_the_second_box_on_an_object_as_wrong() -> None:
    truth = annotations(TRUTH)
    twice = result([([10, 10, 50, 50], 0.9, 0), ([10, 10, 49, 50], 0.8, 0)])
    found = {0: twice, 1: result([([20, 20, 80, 80], 0.7, 0)])}
    average = voc_average_precision(truth, {k: (v.boxes, v.scores, v.labels) for k, v in found.items()})
    assert average == {'cat': pytest.approx(0.5 + 0.5 * 2 / 3), 'dog': 0.0}


def test_result_draws_counts_and_filters() -> None:
    image = np.full((60, 80, 3), 128, np.uint8)
    found = DetectionResult(
        np.array([[5, 5, 30, 40], [1, 1, 3, 3], [50, 10, 79, 59]], np.float32),
        np.array([0.9, 0.5, 0.2], np.float32),
        np.array([0, 1, 0]),
        ('cat', 'dog'),
        image=image,
    )
    assert found.title() == '1 cat, 1 dog'
    assert len(found.above(0.6)) == 1
    assert found.above(0.95).title() == 'nothing found'
    drawn = found.draw()
    assert drawn.size == (480, 360)
    assert np.asarray(found.above(0.95).draw()).std() == 0
    assert np.asarray(drawn).std() > 0
    assert found.summary()['detections'][0] == {
        'box': [5.0, 5.0, 30.0, 40.0],
        'score': 0.9,
        'label': 0,
        'class_name': 'cat',
    }
    with pytest.raises(ValueError, match='kept no picture'):
        DetectionResult(found.boxes, found.scores, found.labels, ('cat', 'dog')).draw()
