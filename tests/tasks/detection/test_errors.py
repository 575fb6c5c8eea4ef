"""Each kind of error is told from the others, and costs what mending it would bring."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from falconet.datasets.annotations import Annotations
from falconet.datasets.packed_strings import PackedStrings
from falconet.tasks.detection.errors import (
    BACKGROUND,
    BOTH,
    CLASS,
    DOUBLE,
    IGNORED,
    KINDS,
    MISSED,
    PLACE,
    RIGHT,
    find_errors,
    judge,
    mean_average_precision,
    overlaps,
)
from falconet.tasks.detection.matches import precisions
from falconet.tasks.detection.metric import DetectionMetric
from falconet.tasks.detection.result import DetectionResult

OBJECT = (10.0, 10.0, 30.0, 30.0)


def annotations(objects: list[list[tuple[Any, ...]]], names: tuple[str, ...] = ('cat', 'dog')) -> Annotations:
    """Return a set of 100 x 100 pictures from (box, label[, crowd]) of each."""
    flat = [each for picture in objects for each in picture]
    boxes = np.array([each[0] for each in flat], dtype=np.float64).reshape(-1, 4)
    count = len(objects)
    return Annotations(
        paths=PackedStrings(f'{index}.jpg' for index in range(count)),
        image_ids=np.arange(count) + 1,
        sizes=np.full((count, 2), 100, np.int32),
        starts=np.cumsum([0, *map(len, objects)]),
        boxes=boxes.astype(np.float32),
        labels=np.array([each[1] for each in flat], dtype=np.int32),
        crowd=np.array([len(each) > 2 and each[2] for each in flat], dtype=bool),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        object_ids=np.arange(len(flat)) + 1,
        original_boxes=boxes,
        class_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
    )


def found(*detections: tuple[tuple[float, ...], int, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, labels, scores = zip(*detections, strict=True) if detections else ((), (), ())
    return (
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.array(labels, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ('box', 'label', 'kind'),
    [
        ((10, 10, 30, 30), 0, RIGHT),
        ((10, 10, 30, 22), 0, RIGHT),  # IoU 0.6
        ((10, 10, 30, 30), 1, CLASS),
        ((20, 10, 40, 30), 0, PLACE),  # IoU 1/3
        ((20, 10, 40, 30), 1, BOTH),
        ((60, 60, 80, 80), 0, BACKGROUND),
        ((29, 10, 49, 30), 1, BACKGROUND),  # IoU 0.026
    ],
)
def test_a_single_box_is_of_one_kind(box: tuple[float, ...], label: int, kind: int) -> None:
    truth = np.array([OBJECT], dtype=np.float32)
    verdicts = judge(
        np.array([box], dtype=np.float32), np.array([label]), truth, np.array([0]), np.array([False])
    )
    assert verdicts.kinds.tolist() == [kind]
    assert verdicts.found.tolist() == [kind == RIGHT]
    assert verdicts.missed.tolist() == [kind in (BOTH, BACKGROUND)]


def test_the_second_box_on_an_object_is_a_double_and_one_on_a_crowd_does_not_count() -> None:
    truth = np.array([OBJECT, (50, 50, 90, 90)], dtype=np.float32)
    boxes = np.array([OBJECT, (11, 10, 30, 30), (55, 55, 65, 65)], dtype=np.float32)
    verdicts = judge(boxes, np.zeros(3, int), truth, np.zeros(2, int), np.array([False, True]))
    assert verdicts.kinds.tolist() == [RIGHT, DOUBLE, IGNORED]
    assert not verdicts.missed.any()


def test_overlaps_are_torchvisions() -> None:
    import torch
    from torchvision.ops import box_iou

    generator = np.random.default_rng(0)
    boxes = np.sort(generator.random((9, 2, 2)) * 50, axis=1).reshape(9, 4)
    expected = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes[:4])).numpy()
    np.testing.assert_allclose(overlaps(boxes, boxes[:4], np.zeros(4, bool)), expected)


@pytest.mark.parametrize(
    ('wrong', 'kind'),
    [
        (((10, 10, 30, 30), 1, 0.9), CLASS),
        (((20, 10, 40, 30), 0, 0.9), PLACE),
        (None, MISSED),
    ],
)
def test_mending_the_only_error_brings_what_it_costs(wrong: Any, kind: int) -> None:
    truth = annotations([[(OBJECT, 0)], [(OBJECT, 0)], [(OBJECT, 1)]])
    answers = {0: found((OBJECT, 0, 0.8)), 1: found(*([wrong] if wrong else [])), 2: found((OBJECT, 1, 0.8))}
    errors = find_errors(truth, answers, shown_from=0.3)
    assert errors.counts[kind] == (1, 1)
    assert {other for other in KINDS if errors.counts[other] != (0, 0)} == {kind}
    before = mean_average_precision(
        np.array([0, 1] if wrong is None else [wrong[1], 0, 1]),
        np.array([True, True] if wrong is None else [False, True, True]),
        np.array([2, 1]),
    )
    assert errors.costs[kind] == pytest.approx(1 - before)


def test_a_false_box_costs_by_its_score() -> None:
    truth = annotations([[(OBJECT, 0)]])
    for score, cost in ((0.9, 0.5), (0.1, 0.0)):  # above or below the right one
        answers = {0: found((OBJECT, 0, 0.5), ((60, 60, 80, 80), 0, score))}
        costs = find_errors(truth, answers, shown_from=0.3).costs
        assert costs[BACKGROUND] == pytest.approx(cost)
        assert costs[CLASS] == costs[MISSED] == 0


def test_confusions_name_the_true_class_and_the_one_it_was_taken_for() -> None:
    truth = annotations([[(OBJECT, 0)], [(OBJECT, 0)]])
    answers = {0: found((OBJECT, 1, 0.9)), 1: found((OBJECT, 1, 0.2))}
    errors = find_errors(truth, answers, shown_from=0.3)
    assert errors.confused == {(0, 1): 1}
    assert errors.counts[CLASS] == (2, 1)


def random_metric(seed: int, names: tuple[str, ...] = ('cat', 'dog'), pictures: int = 12) -> DetectionMetric:
    """Return a metric that has seen boxes near random objects."""
    generator = np.random.default_rng(seed)
    objects = []
    for _ in range(pictures):
        corners = generator.random((3, 2)) * 60
        boxes = np.concatenate([corners, corners + 10 + generator.random((3, 2)) * 30], axis=1)
        objects.append(
            [(box, int(generator.integers(len(names))), generator.random() < 0.1) for box in boxes]
        )
    truth = annotations(objects, names)
    metric = DetectionMetric()
    metric.dataset_meta = {'classes': list(names), 'annotations': truth}
    for index in range(pictures):
        boxes = truth.boxes[truth.objects(index)]
        boxes = np.concatenate([boxes, boxes]) + generator.normal(0, 3, (6, 4)).astype(np.float32)
        labels = np.concatenate([truth.labels[truth.objects(index)], generator.integers(len(names), size=3)])
        scores = np.sort(generator.random(6).astype(np.float32))[::-1]
        result = DetectionResult(boxes, scores, labels.astype(np.int64), names)
        metric.process({'infos': [SimpleNamespace(index=index)]}, [result])  # type: ignore[typeddict-item]
    metric.evaluate(pictures)
    return metric


@pytest.mark.parametrize('seed', range(4))
def test_every_picture_counted_once_gives_pycocotools_scores(seed: int) -> None:
    metric = random_metric(seed)
    found = precisions(metric._matches, np.ones(12, dtype=np.int64))
    assert found[:2] == pytest.approx([metric.report['AP'], metric.report['AP50']])
    per_class = metric.report['per_class'].values()
    assert found[2:4] == pytest.approx([each['AP'] for each in per_class])
    assert found[4:] == pytest.approx([each['AP50'] for each in per_class])


def test_scores_lie_inside_their_intervals_and_hostile_names_are_escaped() -> None:
    found = random_metric(0, ('<script>', 'a & b')).findings()
    for each in (*found.scores[:2], *found.classes):
        assert each.low < each.value < each.high  # type: ignore[operator]
    text = ''.join(section.body for section in found.sections)
    assert '&lt;script&gt;' in text
    assert '<script>' not in text


@pytest.mark.parametrize(
    ('objects', 'said'),
    [([[], []], 'no objects to find'), ([[(OBJECT, 0)], [(OBJECT, 1)]], 'not one object was found')],
)
def test_odd_data_still_have_a_report_that_says_so(objects: list, said: str) -> None:
    metric = DetectionMetric()
    metric.dataset_meta = {'classes': ['cat', 'dog'], 'annotations': annotations(objects)}
    empty = DetectionResult(*found(), class_names=('cat', 'dog'))
    for index in range(2):
        metric.process({'infos': [SimpleNamespace(index=index)]}, [empty])  # type: ignore[typeddict-item]
    metric.evaluate(2)
    findings = metric.findings()
    assert any(said in note for note in findings.notes)
    assert findings.sections
