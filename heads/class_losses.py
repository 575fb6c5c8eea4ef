"""Class losses of default boxes: cross-entropy of both kinds of scores, and focal loss, with smoothed goals.

Smoothing spreads a share of each box's goal evenly over all columns, background included, as
`torch.nn.functional.cross_entropy` does.
"""

import torch.nn.functional as F
from torch import Tensor

from falconet.layers.fast.fused_losses import softplus


def cross_entropy(logits: Tensor, wanted: Tensor, *, scores: str, smoothing: float = 0.0) -> Tensor:
    """Return the loss of every default box, (B, N).

    Args:
        logits: (B, N, K), background first.
        wanted: column of each box, int64 (B, N).
        scores: 'sigmoid', where the columns' losses are added up, or 'softmax'.
        smoothing: share of the goal that is spread over the K columns.
    """
    if scores == 'softmax':
        losses = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), reduction='none', label_smoothing=smoothing
        )
        return losses.view_as(wanted)
    # Without a one-hot tensor: softplus(x) - goal * x, added up.
    right = logits.gather(2, wanted[..., None])[..., 0]
    losses = softplus(logits).sum(dim=2) - (1 - smoothing) * right
    return losses - smoothing * logits.mean(dim=2) if smoothing else losses


def focal_loss(logits: Tensor, goal: Tensor, *, alpha: float, gamma: float, smoothing: float = 0.0) -> Tensor:
    """Return the focal loss of all boxes, added up.

    With smoothed goals it is least where the score is the goal: |goal - score|^gamma in front of the
    cross-entropy is what 1 - p_t is for goals of 0 and 1 ("Generalized focal loss", arXiv 2006.04388).

    Args:
        logits: (M, K).
        goal: one-hot, (M, K).
        alpha: weight of ones against zeros, by the goal before it is smoothed; below 0 for none.
        gamma: exponent.
        smoothing: share of the goal that is spread over the K columns.
    """
    if smoothing == 0:
        from torchvision.ops import sigmoid_focal_loss

        return sigmoid_focal_loss(logits, goal, alpha=alpha, gamma=gamma, reduction='sum')
    smooth = (1 - smoothing) * goal + smoothing / goal.shape[1]
    losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction='none')
    losses = losses * (smooth - logits.sigmoid()).abs() ** gamma
    if alpha >= 0:
        losses = losses * (alpha * goal + (1 - alpha) * (1 - goal))
    return losses.sum()
