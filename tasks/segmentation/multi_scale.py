"""Evaluation at several scales and mirrored: the probabilities of twelve passes, averaged.

Source: DeepLab's `eval.py` (`eval_scales` 0.5 to 1.75, `add_flipped_images`) and `model.py`
(`predict_labels_multi_scale`), which gave the paper's rows "MF" (arXiv 1801.04381, Table 7).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from falconet.core.errors import UserError
from falconet.heads.base import Enlarges

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def scaled_side(side: int, scale: float) -> int:
    """Return a side of n * stride + 1 pixels scaled to one that is of that form, too: 513 to 257, ... 897."""
    return max(1, int((side - 1) * scale + 1))


def multi_scale_scores(model: Any, images: Tensor) -> Tensor:
    """Return class probabilities at the input's resolution, averaged over `SCALES` and mirror images.

    Args:
        model: a `tasks.model.VisionModel` with a segmentation head.
        images: RGB uint8 (B, 3, H, W). One at a time goes through the network, so the memory needed does not
            grow with the batch, apart from what is returned.

    Returns:
        float (B, C, H, W), adding up to 1 over the classes; `Head.predict` takes it for logits.

    Raises:
        UserError: the head is not one that `Enlarges`.
    """
    head = model.head
    if not isinstance(head, Enlarges):
        raise UserError(
            f'{type(head).__name__} cannot be tested at several scales: it has no method '
            'enlarge(outputs, size), see Enlarges in heads/base.py'
        )
    images = model.normalise(images.contiguous(memory_format=torch.channels_last))
    size = (images.shape[2], images.shape[3])
    averages = []
    for image in images.split(1):
        total: Any = 0
        for scale in SCALES:
            scaled = F.interpolate(
                image,
                size=(scaled_side(size[0], scale), scaled_side(size[1], scale)),
                mode='bilinear',
                align_corners=True,
            )
            for mirrored in (False, True):
                logits = model.head(model.backbone(scaled.flip(3) if mirrored else scaled)).float()
                scores = head.enlarge(logits.flip(3) if mirrored else logits, size)
                total = total + scores.softmax(dim=1)
        averages.append(total / (2 * len(SCALES)))
    return torch.cat(averages)
