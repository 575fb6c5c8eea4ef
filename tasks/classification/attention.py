"""Where a classifier looked: Grad-CAM (Selvaraju et al., arXiv 1610.02391) on the backbone's last map.

The head begins where that map ends, so its gradient takes no hooks and no second pass through the backbone.
The numbers are those of pytorch-grad-cam, which the tests compare with where it is installed; a report must
not need an extra.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def where_it_looked(model: Any, images: Tensor, labels: Tensor) -> np.ndarray:
    """Return how much each place spoke for a class.

    Args:
        model: a `tasks.model.VisionModel` of a classifier, in evaluation mode.
        images: RGB uint8 (B, 3, H, W).
        labels: class whose score is explained, int64 (B,).

    Returns:
        float32 (B, H, W), 0 to 1; all 0 where nothing spoke for it.
    """
    with torch.no_grad():
        maps = model.backbone(model.normalise(images.to(model.device)))
    with torch.enable_grad():
        last = maps[-1].detach().requires_grad_()  # (B, C, h, w)
        scores = model.head([*maps[:-1], last]).gather(1, labels.to(model.device)[:, None])
        (gradient,) = torch.autograd.grad(scores.sum(), last)  # leaves the parameters' own alone
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weights * last.detach()).sum(dim=1, keepdim=True))  # (B, 1, h, w)
    heat = F.interpolate(heat, images.shape[2:], mode='bilinear', align_corners=False)[:, 0]
    return (heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).float().cpu().numpy()


def laid_over(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return a picture, RGB uint8 (H, W, 3), grey where `heat` (H, W) is 0 and red-yellow where it is 1."""
    grey = image.mean(axis=2, keepdims=True) * 0.6 + 50
    glow = np.stack([np.full_like(heat, 255), 255 * np.clip(2 * heat - 0.6, 0, 1), 40 * heat], axis=2)
    share = np.clip(heat, 0, 1)[..., None] * 0.6
    return (grey * (1 - share) + glow * share).round().clip(0, 255).astype(np.uint8)
