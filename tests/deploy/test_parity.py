"""Differences are found where they are, and nowhere else."""

import numpy as np
import pytest

from falconet.deploy.parity import differences, generated_pictures, too_large

Answer = dict[str, np.ndarray]


def detections() -> Answer:
    """Return three boxes of two pictures, the third far from sure."""
    boxes = np.array([[[10, 10, 50, 60], [20, 5, 90, 40], [0, 0, 5, 5], [0, 0, 0, 0]]] * 2, np.float32)
    return {
        'boxes': boxes,
        'scores': np.array([[0.9, 0.9, 0.004, 0], [0.8, 0.3, 0.001, 0]], np.float32),
        'labels': np.array([[0, 1, 0, -1]] * 2),
        'count': np.array([3, 3]),
    }


def changed(answer: Answer, name: str, place: tuple, value: float) -> Answer:
    copy = {key: each.copy() for key, each in answer.items()}
    copy[name][place] += value
    return copy


def test_equal_answers_do_not_differ() -> None:
    assert differences(detections(), detections(), task='detection') == {'scores': 0, 'boxes': 0}


def test_equal_scores_may_come_in_any_order() -> None:
    other = detections()
    for name in ('boxes', 'labels'):
        other[name][0, :2] = other[name][0, 1::-1].copy()
    assert not too_large(differences(detections(), other, task='detection'))


@pytest.mark.parametrize(
    ('name', 'place', 'value', 'wrong'),
    [
        ('boxes', (1, 1, 2), 0.06, {'boxes'}),
        ('scores', (0, 0), -2e-4, {'scores'}),
        ('labels', (0, 1), 1, {'boxes'}),
        ('count', (1,), -3, {'boxes', 'scores'}),
        ('boxes', (0, 2, 2), 9, set()),  # of a box that is far from sure
    ],
)
def test_a_detection_that_moved_is_found(name: str, place: tuple, value: float, wrong: set[str]) -> None:
    other = changed(detections(), name, place, value)
    assert too_large(differences(detections(), other, task='detection')).keys() == wrong
    assert too_large(differences(other, detections(), task='detection')).keys() == wrong


def test_where_nothing_is_sure_the_best_are_compared() -> None:
    faint = detections()
    faint['scores'] *= 0.01
    other = changed(faint, 'boxes', (1, 0, 0), 1)
    assert too_large(differences(faint, other, task='detection')) == {'boxes': pytest.approx(1)}


def test_a_mask_may_differ_in_one_pixel_of_a_thousand() -> None:
    mask = np.zeros((1, 100, 100), np.uint8)
    answer = {'mask': mask, 'scores': mask.astype(np.float32), 'cells': np.zeros((1, 2, 4, 4), np.float32)}
    assert not too_large(
        differences(answer, changed(answer, 'mask', (0, 0, slice(10)), 1), task='segmentation')
    )
    other = changed(answer, 'mask', (0, 0, slice(11)), 1)
    assert too_large(differences(answer, other, task='segmentation')).keys() == {'mask'}


@pytest.mark.parametrize('value', [2e-4, np.nan, np.inf])
def test_scores_that_differ_or_are_no_numbers_are_too_large(value: float) -> None:
    answer = {'scores': np.full((2, 3), 1 / 3, np.float32)}
    other = changed(answer, 'scores', (1, 1), value)
    assert too_large(differences(answer, other, task='classification')).keys() == {'scores'}
    assert too_large(differences(answer, {'scores': answer['scores'][:1]}, task=None)).keys() == {'outputs'}


def test_generated_pictures_have_all_greys_and_are_the_same_every_time() -> None:
    pictures = generated_pictures((50, 70))
    assert pictures.shape == (4, 50, 70, 3)
    assert pictures.dtype == np.uint8
    assert len(np.unique(pictures)) > 250
    assert (pictures == generated_pictures((50, 70))).all()
