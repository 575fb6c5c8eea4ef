"""Class losses of default boxes are their formulas, also with smoothed goals."""

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from falconet.heads.class_losses import cross_entropy, focal_loss


@pytest.mark.parametrize('scores', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_smoothed_goals_are_spread_over_all_columns(scores: str, smoothing: float) -> None:
    logits, wanted = torch.randn(2, 5, 3), torch.randint(0, 3, (2, 5))
    goal = torch.nn.functional.one_hot(wanted, 3) * (1 - smoothing) + smoothing / 3
    if scores == 'softmax':
        expected = -(goal * logits.log_softmax(2)).sum(2)
    else:
        said = logits.sigmoid()
        expected = -(goal * said.log() + (1 - goal) * (1 - said).log()).sum(2)
    found = cross_entropy(logits, wanted, scores=scores, smoothing=smoothing)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('alpha', [0.25, -1.0])
def test_focal_loss_is_least_at_its_smoothed_goal_and_torchvisions_for_a_plain_one(alpha: float) -> None:
    goal = torch.nn.functional.one_hot(torch.tensor([0, 2]), 3).float()
    logits = torch.randn(2, 3)
    plain = sigmoid_focal_loss(logits, goal, alpha=alpha, gamma=2.0, reduction='sum')
    torch.testing.assert_close(focal_loss(logits, goal, alpha=alpha, gamma=2.0), plain)
    nearly = focal_loss(logits, goal, alpha=alpha, gamma=2.0, smoothing=1e-6)
    torch.testing.assert_close(nearly, plain, rtol=1e-3, atol=1e-4)
    best = (goal * 0.7 + 0.1).logit().requires_grad_()
    focal_loss(best, goal, alpha=alpha, gamma=2.0, smoothing=0.3).backward()
    assert best.grad is not None
    assert best.grad.abs().max() < 1e-4
