"""Suppression of a batch says what suppression of each image says, in tensors of one size."""

import pytest
import torch

from falconet.heads.boxes import suppress
from falconet.heads.nms_op import place_boxes, suppress_batch


def candidates() -> tuple[torch.Tensor, torch.Tensor]:
    """An image with many boxes, one with a single box, one with none."""
    torch.manual_seed(0)
    corner, side = torch.rand(3, 500, 2), 0.05 + 0.3 * torch.rand(3, 500, 2)
    scores = torch.rand(3, 500, 4)
    scores[1:] = 0
    scores[1, 7, 2] = 0.5
    return torch.cat([corner, corner + side], dim=2), scores


@pytest.mark.parametrize('limit', [20, 3000])
def test_each_image_keeps_what_it_keeps_alone_and_the_rest_is_blank(limit: int) -> None:
    boxes, scores = candidates()
    answer = suppress_batch(boxes, scores, iou_threshold=0.4, per_class=limit, limit=limit)
    assert answer['count'].tolist()[1:] == [1, 0]
    for row, count in enumerate(answer['count'].tolist()):
        alone = suppress(boxes[row], scores[row], iou_threshold=0.4, per_class=limit, limit=limit)
        for key, expected, blank in zip(('boxes', 'scores', 'labels'), alone, (0, 0, -1), strict=True):
            assert answer[key].shape[:2] == (3, limit)
            assert answer[key][row, :count].equal(expected)
            assert (answer[key][row, count:] == blank).all()


def test_the_operator_keeps_the_rules_of_operators() -> None:
    arguments = (*candidates(), 0.1, 0.5, 10, 20)
    checks = torch.library.opcheck(torch.ops.falconet.suppress.default, arguments)
    assert set(checks.values()) == {'SUCCESS'}


def test_another_number_of_images_than_answers_is_refused() -> None:
    answer = suppress_batch(*candidates())
    with pytest.raises(ValueError, match='zip'):
        place_boxes(answer, [(4, 4)] * 4)
