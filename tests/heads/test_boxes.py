"""The laws of SSD's box maths."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_convert, box_iou, nms

from falconet.heads.boxes import (
    box_shapes,
    covered,
    decode,
    default_boxes,
    encode,
    hard_negatives,
    match,
    suppress,
)

GRIDS_320 = [(n, n) for n in (20, 10, 5, 3, 2, 1)]
GRIDS_300 = [(n, n) for n in (19, 10, 5, 3, 2, 1)]


def some_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator)
    size = 0.02 + 0.6 * torch.rand(count, 2, generator=generator)
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def defaults_320() -> Tensor:
    return default_boxes(GRIDS_320, box_shapes(6))


def test_there_are_2034_default_boxes_at_320_and_1917_at_300() -> None:
    assert defaults_320().shape == (2034, 4)
    assert default_boxes(GRIDS_300, box_shapes(6)).shape == (1917, 4)


def test_default_boxes_follow_the_published_formula() -> None:
    boxes = defaults_320()
    # First map: three boxes a cell; the second cell of the first row.
    expected = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
    for offset, (scale, ratio) in enumerate(expected):
        width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        torch.testing.assert_close(boxes[3 + offset], torch.tensor([1.5 / 20, 0.5 / 20, width, height]))
    # Second map: six boxes a cell at scale 0.35; the first cell of the second row.
    ratios = [(0.35, 1.0), (0.35, 2.0), (0.35, 0.5), (0.35, 3.0), (0.35, 1 / 3), (math.sqrt(0.35 * 0.5), 1.0)]
    start = 20 * 20 * 3 + 10 * 6
    for offset, (scale, ratio) in enumerate(ratios):
        width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        torch.testing.assert_close(boxes[start + offset], torch.tensor([0.05, 0.15, width, height]))
    # Last map: one cell, scale 0.95, the last box between 0.95 and 1.
    side = math.sqrt(0.95)
    torch.testing.assert_close(boxes[-1], torch.tensor([0.5, 0.5, side, side]))


def test_every_map_keeps_its_aspect_on_an_input_that_is_not_square() -> None:
    boxes = default_boxes([(2, 4)], [[(0.1, 0.1)]])
    assert sorted({round(value, 4) for value in boxes[:, 0].tolist()}) == [0.125, 0.375, 0.625, 0.875]
    assert sorted({round(value, 4) for value in boxes[:, 1].tolist()}) == [0.25, 0.75]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_decode_undoes_encode(seed: int) -> None:
    boxes, defaults = some_boxes(20, seed), box_convert(some_boxes(20, seed + 1), 'xyxy', 'cxcywh')
    torch.testing.assert_close(decode(encode(boxes, defaults), defaults), boxes, atol=1e-5, rtol=1e-4)


def test_offsets_are_in_the_units_tensorflow_uses() -> None:
    default = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.5, 0.5, 0.9, 0.9]])  # centre 0.7, sides 0.4
    expected = torch.tensor([[10.0, 5.0, 5 * math.log(2), 0.0]])
    torch.testing.assert_close(encode(box, default), expected)


def test_decoding_the_wildest_offsets_stays_finite() -> None:
    wild = torch.tensor([[0.0, 0.0, 1e4, -1e4]])
    assert torch.isfinite(decode(wild, torch.tensor([[0.5, 0.5, 0.1, 0.1]]))).all()


@given(seed=st.integers(0, 10_000), count=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_every_object_gets_a_box_and_every_close_box_an_object(seed: int, count: int) -> None:
    boxes = some_boxes(count, seed)
    corners = box_convert(defaults_320(), 'cxcywh', 'xyxy')
    matches = match(boxes, corners)
    assert set(range(count)) <= set(matches.tolist())
    overlaps = box_iou(boxes, corners)
    best = overlaps.max(dim=0).values
    assert (matches[best >= 0.5] >= 0).all()
    # Apart from the boxes that objects were given because they had none better: no match below the threshold.
    weak = (matches >= 0) & (best < 0.5)
    assert int(weak.sum()) <= count


def test_two_objects_that_want_one_box_both_get_one_and_the_closer_one_gets_it() -> None:
    defaults = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.0, 0.0, 0.1, 0.1]])
    loose, tight = [0.0, 0.0, 0.3, 0.3], [0.0, 0.0, 0.39, 0.39]
    matches = match(torch.tensor([loose, tight]), defaults)
    assert matches[0] == 1
    assert 0 in matches[1:].tolist()


def test_equal_objects_get_different_boxes() -> None:
    corners = box_convert(defaults_320(), 'cxcywh', 'xyxy')
    same = torch.tensor([[0.41, 0.42, 0.44, 0.45]] * 5)
    assert set(match(same, corners).tolist()) == {-1, 0, 1, 2, 3, 4}


def test_more_objects_than_boxes_fill_all_boxes() -> None:
    assert sorted(match(some_boxes(7, 0), some_boxes(3, 1)).tolist())[0] >= 0


def test_without_objects_everything_is_background() -> None:
    assert (match(torch.zeros(0, 4), some_boxes(5, 0)) == -1).all()


def test_negatives_are_the_hardest_and_three_for_each_positive() -> None:
    losses = torch.arange(20.0)[None]
    positive = torch.zeros(1, 20, dtype=torch.bool)
    positive[0, [19, 3]] = True
    chosen = hard_negatives(losses, positive)
    assert chosen[0].nonzero().flatten().tolist() == [13, 14, 15, 16, 17, 18]


def test_an_image_without_positives_still_has_negatives() -> None:
    losses = torch.rand(2, 20, generator=torch.Generator().manual_seed(0))
    chosen = hard_negatives(losses, torch.zeros(2, 20, dtype=torch.bool), minimum=3)
    assert chosen.sum(dim=1).tolist() == [3, 3]


def test_ignored_boxes_are_never_negatives() -> None:
    losses, nothing = torch.arange(6.0)[None], torch.zeros(1, 6, dtype=torch.bool)
    ignored = torch.tensor([[False, False, False, False, True, True]])
    chosen = hard_negatives(losses, nothing, minimum=5, ignored=ignored)
    assert chosen[0].tolist() == [True, True, True, True, False, False]


def test_a_box_is_covered_by_a_crowd_by_its_own_area() -> None:
    crowd = torch.tensor([[0.0, 0.0, 1.0, 0.5]])
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.1, 0.4, 0.2, 0.65], [0.0, 0.6, 0.1, 0.7]])
    assert covered(boxes, crowd).tolist() == [True, False, False]
    assert covered(boxes, crowd[:0]).tolist() == [False, False, False]


def plain_suppress(boxes: Tensor, scores: Tensor, per_class: int, limit: int) -> list[tuple[float, int, int]]:
    """Suppression written the long way: every class on its own with torchvision's NMS, then the best."""
    found = []
    for label in range(scores.shape[1]):
        eligible = torch.nonzero(scores[:, label] > 1e-8).flatten()
        kept = eligible[nms(boxes[eligible], scores[eligible, label], 0.6)][:per_class]
        found += [(float(scores[k, label]), label, int(k)) for k in kept]
    return sorted(found, reverse=True)[:limit]


@pytest.mark.parametrize(
    ('classes', 'per_class', 'limit'), [(1, 100, 100), (5, 100, 100), (5, 7, 100), (3, 50, 20)]
)
def test_suppression_equals_the_plain_one_over_all_boxes(classes: int, per_class: int, limit: int) -> None:
    for seed, spread in ((0, 1.0), (1, 0.05)):
        # With a small spread nearly all boxes suppress each other, and many rounds are needed.
        boxes = some_boxes(1, seed) + spread * (some_boxes(3000, seed + 1) - 0.5) * 0.3
        scores = torch.rand(3000, classes, generator=torch.Generator().manual_seed(seed))
        scores[scores < 0.1] = 0
        kept, values, labels = suppress(boxes, scores, per_class=per_class, limit=limit)
        expected = plain_suppress(boxes, scores, per_class, limit)
        assert values.tolist() == [score for score, _, _ in expected]
        assert labels.tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(kept, boxes[[k for _, _, k in expected]])


def test_nothing_above_the_threshold_gives_no_boxes() -> None:
    kept, values, labels = suppress(some_boxes(9, 0), torch.zeros(9, 4))
    assert kept.shape == (0, 4)
    assert len(values) == len(labels) == 0


def test_scales_grow_by_equal_differences_or_by_equal_ratios() -> None:
    linear, geometric = (
        [
            shapes[0][0]
            for shapes in box_shapes(5, min_scale=0.05, max_scale=0.8, spacing=spacing, small_first_map=False)
        ]
        for spacing in ('linear', 'geometric')
    )
    assert linear == pytest.approx([0.05, 0.2375, 0.425, 0.6125, 0.8])
    assert geometric == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    for shapes in box_shapes(1, min_scale=0.3, spacing='geometric', small_first_map=False):
        assert shapes[0] == pytest.approx((0.3, 0.3))
