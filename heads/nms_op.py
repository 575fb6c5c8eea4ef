"""What a detector's `decode` and `place` share: the best boxes of a batch in tensors of fixed size.

`heads.boxes.suppress` branches on data. Here it is an operator, `falconet::suppress`, whose sizes are known
beforehand: torch.export keeps it as one node, and each engine has its own means for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falconet.core.names import NAME
from falconet.heads.boxes import suppress, to_pixels

OPTIONS = ('score_threshold', 'iou_threshold', 'per_class', 'limit')  # of `suppress`, in the operator's order


def suppress_batch(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float = 1e-8,
    iou_threshold: float = 0.6,
    per_class: int = 100,
    limit: int = 100,
) -> dict[str, Tensor]:
    """Keep the best boxes of every image of a batch, in tensors whose size does not depend on the data.

    Args:
        boxes: xyxy (B, N, 4).
        scores: (B, N, classes).
        score_threshold, iou_threshold, per_class, limit: see `heads.boxes.suppress`; K below is `limit`.

    Returns:
        `boxes` (B, K, 4), `scores` (B, K), best first, `labels` int64 (B, K); and `count` int64 (B,), how
        many were found. Beyond it boxes and scores are 0 and labels -1.
    """
    found = torch.ops.falconet.suppress(boxes, scores, score_threshold, iou_threshold, per_class, limit)
    return dict(zip(('boxes', 'scores', 'labels', 'count'), found, strict=True))


def place_boxes(
    answer: Mapping[str, Tensor],
    image_sizes: Sequence[tuple[int, int]],
    *,
    input_size: tuple[int, int] | None = None,
    content_sizes: Sequence[tuple[int, int] | None] | None = None,
) -> list[dict[str, np.ndarray]]:
    """Bring what `suppress_batch` returned, in fractions of the input, to the original images.

    Boxes are clipped here, not before they suppress each other. See `Head.place` for the arguments.

    Returns:
        For each image `boxes`, float32 (K, 4) xyxy in pixels; `scores`, float32 (K,), best first; `labels`,
        int64 (K,).
    """
    contents, answers = content_sizes or [None] * len(image_sizes), []
    counts = answer['count'].tolist()
    for row, (count, size, content) in enumerate(zip(counts, image_sizes, contents, strict=True)):
        each = {key: answer[key][row, :count] for key in ('boxes', 'scores', 'labels')}
        each['boxes'] = to_pixels(each['boxes'], size, input_size=input_size, content_size=content)
        answers.append({key: value.cpu().numpy() for key, value in each.items()})
    return answers


def _no_boxes(boxes: Tensor, scores: Tensor, *options: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `falconet::suppress` returns where nothing is found."""
    batch, limit = boxes.shape[0], int(options[-1])
    labels = boxes.new_full((batch, limit), -1, dtype=torch.int64)
    return boxes.new_zeros(batch, limit, 4), scores.new_zeros(batch, limit), labels, labels.new_zeros(batch)


def _suppress_each(boxes: Tensor, scores: Tensor, *options: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    named: dict[str, Any] = dict(zip(OPTIONS, options, strict=True))
    answer = _no_boxes(boxes, scores, *options)
    for row, pair in enumerate(zip(boxes, scores, strict=True)):
        found = suppress(*pair, **named)
        answer[3][row] = count = len(found[0])
        for whole, part in zip(answer, found, strict=False):
            whole[row, :count] = part
    return answer


def register(namespace: str) -> None:
    """Define the operator `<namespace>::suppress`, once a process."""
    if namespace in _libraries:
        return
    # The decorator `custom_op` would import torch's compiler, which takes longer than a checkpoint to load.
    library = _libraries[namespace] = torch.library.Library(namespace, 'FRAGMENT')
    library.define(
        'suppress(Tensor boxes, Tensor scores, float score_threshold, float iou_threshold, int per_class, '
        'int limit) -> (Tensor boxes, Tensor scores, Tensor labels, Tensor count)'
    )
    library.impl('suppress', _suppress_each, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'{namespace}::suppress', _no_boxes, lib=library)


_libraries: dict[str, torch.library.Library] = {}  # an operator lasts as long as its library
register(NAME)
