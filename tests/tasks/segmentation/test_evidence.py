"""What is kept of the pictures is bounded, the same however they are shared out, and adds up to the score."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from falconet.tasks.segmentation.evidence import (
    OF_A_CLASS,
    SIDE,
    WORST,
    KeptMask,
    keep_worst,
    picture_row,
    worst_of,
)
from falconet.tasks.segmentation.metric import SegmentationMetric, count_pixels
from falconet.tasks.segmentation.result import SegmentationResult

NAMES = ('background', 'cat <b>', 'dog')


def pictures(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (truth, answer) of random sizes, more or less alike."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        shape = tuple(generator.integers(20, 60, 2))
        truth = generator.integers(0, 3, shape).astype(np.uint8)
        wrong = generator.random(shape) < generator.random()
        found.append((truth, np.where(wrong, generator.integers(0, 3, shape), truth).astype(np.uint8)))
    return found


def metric_of(seen: list[tuple[np.ndarray, np.ndarray]]) -> SegmentationMetric:
    metric = SegmentationMetric()
    metric.dataset_meta = {'classes': list(NAMES)}
    for index, (truth, answer) in enumerate(seen):
        batch: Any = {'targets': [torch.from_numpy(truth)], 'infos': [SimpleNamespace(index=index)]}
        metric.process(batch, [SegmentationResult(answer, NAMES)])
    metric.evaluate(len(seen))
    return metric


def kept_of(seen: list[tuple[np.ndarray, np.ndarray]], places: range) -> list[KeptMask]:
    kept: list[KeptMask] = []
    for place in places:
        truth, answer = seen[place]
        keep_worst(kept, picture_row(place, count_pixels(truth, answer, 3)), answer)
    return kept


def test_masks_are_kept_of_a_bounded_number_of_pictures() -> None:
    seen = pictures(80)
    assert len(kept_of(seen, range(80))) <= WORST + OF_A_CLASS * 3
    worst = [each.row.picture for each in worst_of(kept_of(seen, range(80)))][:WORST]
    rows = [picture_row(place, count_pixels(*seen[place], 3)) for place in range(80)]
    assert worst == [each.picture for each in sorted(rows, key=lambda row: row.iou)][:WORST]


def test_several_processes_keep_what_one_would() -> None:
    seen = pictures(60)
    alone = worst_of(kept_of(seen, range(60)))
    shared = worst_of([*kept_of(seen, range(0, 60, 2)), *kept_of(seen, range(1, 60, 2))])
    assert [each.row.picture for each in alone] == [each.row.picture for each in shared]
    assert [each.packed for each in alone] == [each.packed for each in shared]


def test_a_kept_mask_is_small_and_holds_the_classes() -> None:
    truth = np.zeros((900, 1200), np.uint8)
    answer = truth.copy()
    answer[:, 600:] = 2
    kept: list[KeptMask] = []
    keep_worst(kept, picture_row(0, count_pixels(truth, answer, 3)), answer)
    mask = kept[0].mask()
    assert mask.shape == (240, SIDE)
    assert np.unique(mask).tolist() == [0, 2]
    assert len(kept[0].packed) < 2000


def test_the_scores_are_the_metrics_own_and_inside_their_intervals() -> None:
    metric = metric_of(pictures(40))
    found = metric.findings()
    assert found.scores[0].value == metric.report['miou']
    for each in (*found.scores, *found.classes):
        assert each.low < each.value < each.high  # type: ignore[operator]
    assert '<b>' not in found.sections[0].body


@pytest.mark.parametrize(
    ('seen', 'said'),
    [
        ([], 'no picture could be looked at'),
        ([(np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8))], 'no pixel of the masks is labelled'),
        ([(np.ones((8, 8), np.uint8), np.zeros((8, 8), np.uint8))], 'not one pixel is right'),
    ],
)
def test_odd_data_still_have_a_report_that_says_so(seen: list, said: str) -> None:
    findings = metric_of(seen).findings()
    assert any(said in note for note in findings.notes)
    assert findings.sections


def test_behind_the_background_stands_what_a_class_is_taken_for_then() -> None:
    truth = np.ones((10, 10), np.uint8)
    answer = np.repeat(np.array([0] * 5 + [2] * 2 + [1] * 3, np.uint8), 10).reshape(10, 10)
    found = metric_of([(truth, answer)]).findings()
    (note,) = [each.note for each in found.classes if each.value is not None]
    assert note == 'background, then dog'
    words = re.sub('<[^>]*>', '', str(found.sections[0].body))
    assert 'Most often taken for background: 50.0% of its pixels, then for dog: 20.0% of its pixels.' in words
    all_missed = metric_of([(truth, 0 * truth)]).findings()
    assert 'taken for background: 100.0% of its pixels.' in re.sub(
        '<[^>]*>', '', str(all_missed.sections[0].body)
    )
    assert 'then' not in next(each.note for each in all_missed.classes if each.value is not None)
