"""Box maths of SSD: default boxes, the box code, matching, mining, and suppression. Functions without state.

Boxes are `xyxy`, (x_min, y_min, x_max, y_max), or `cxcywh`, (centre x, centre y, width, height), by their
names. `unit` means fractions of the input: (0, 0) is its upper left corner, (1, 1) its lower right one.

Sources: SSD, arXiv 1512.02325, section 2.2; the TensorFlow Object Detection API, whose choices MobileNetV2's
SSDLite was trained with (`multiple_grid_anchor_generator`, `faster_rcnn_box_coder`, `argmax_matcher`,
`losses.HardExampleMiner`). torchvision.ops is imported where it is used: it takes longer to import than a
checkpoint to load.
"""

import contextlib
import importlib.util
import itertools
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What offsets are multiplied by before the loss, x and y, then width and height (`faster_rcnn_box_coder`).
CODE_SCALES = (10.0, 10.0, 5.0, 5.0)
# A default box of 16 pixels must not become one of more than 1000: `exp` of anything larger overflows.
MAX_LOG_SCALE = math.log(1000 / 16)
# Boxes looked at in the first round of suppression; more rounds follow where they do not suffice.
FIRST_CANDIDATES = 1000


def box_shapes(
    num_maps: int,
    *,
    min_scale: float = 0.2,
    max_scale: float = 0.95,
    spacing: str = 'linear',
    small_first_map: bool = True,
) -> list[list[tuple[float, float]]]:
    """Return the (width, height) of every default box at a cell, for each map, finest first.

    Map k has scale s_k, spaced from `min_scale` to `max_scale`, and boxes of aspect ratios 1, 2, 1/2,
    3, 1/3 at s_k, then one of ratio 1 at sqrt(s_k * s_k+1), where the scale after the last is 1.

    Args:
        num_maps: maps, at least 1.
        min_scale, max_scale: scale of the first and last map, in fractions of the input.
        spacing: of the scales between: 'linear', by equal differences as in SSD, or 'geometric', by equal
            ratios, as objects' sizes and the maps' strides grow.
        small_first_map: give the first map three boxes only: ratio 1 at half its scale, then ratios 2 and 1/2
            (`reduce_boxes_in_lowest_layer`).
    """
    steps = max(1, num_maps - 1)
    if spacing == 'geometric':
        ratio = (max_scale / min_scale) ** (1 / steps)
        scales = [min_scale * ratio**index for index in range(num_maps)]
    else:
        step = (max_scale - min_scale) / steps
        scales = [min_scale + step * index for index in range(num_maps)]
    scales.append(1.0)
    shapes = []
    for index, (scale, next_scale) in enumerate(itertools.pairwise(scales)):
        if index == 0 and small_first_map:
            sized = [(scale / 2, 1.0), (scale, 2.0), (scale, 1 / 2)]
        else:
            sized = [(scale, ratio) for ratio in (1.0, 2.0, 1 / 2, 3.0, 1 / 3)]
            sized.append((math.sqrt(scale * next_scale), 1.0))
        shapes.append([(size * math.sqrt(ratio), size / math.sqrt(ratio)) for size, ratio in sized])
    return shapes


def default_boxes(
    grids: Sequence[tuple[int, int]],
    shapes: Sequence[Sequence[tuple[float, float]]],
    *,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Lay the default boxes over the cells of every map.

    Args:
        grids: (rows, columns) of each map.
        shapes: for each map, the (width, height) of the boxes at a cell; see `box_shapes`.
        device: where to put them.

    Returns:
        float32 (N, 4) unit cxcywh, not clipped: map by map, row by row, cell by cell, shape by shape.
    """
    boxes = []
    for (rows, columns), cell in zip(grids, shapes, strict=True):
        y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5) / rows
        x = (torch.arange(columns, dtype=torch.float32, device=device) + 0.5) / columns
        size = torch.tensor(cell, dtype=torch.float32, device=device)  # (A, 2)
        centre_y, centre_x = torch.meshgrid(y, x, indexing='ij')
        centre = torch.stack([centre_x, centre_y], dim=-1)[:, :, None]  # (rows, columns, 1, 2)
        full = (rows, columns, len(cell), 2)
        boxes.append(torch.cat([centre.expand(full), size.expand(full)], dim=-1).reshape(-1, 4))
    return torch.cat(boxes)


def corners_of(boxes: Tensor) -> Tensor:
    """Turn cxcywh (..., 4) into xyxy (..., 4)."""
    from torchvision.ops import box_convert

    return box_convert(boxes, 'cxcywh', 'xyxy')


def encode(boxes: Tensor, defaults: Tensor) -> Tensor:
    """Express boxes as offsets from default boxes; the inverse of `decode`.

    Args:
        boxes: xyxy (..., 4), of positive width and height.
        defaults: cxcywh (..., 4), in the same unit.

    Returns:
        (..., 4): shift of the centre in widths and heights of the default box, times 10; logarithm of the
        ratio of widths and heights, times 5.
    """
    from torchvision.ops import box_convert

    cxcywh = box_convert(boxes, 'xyxy', 'cxcywh')
    shift = (cxcywh[..., :2] - defaults[..., :2]) / defaults[..., 2:]
    ratio = (cxcywh[..., 2:] / defaults[..., 2:]).log()
    return torch.cat([shift, ratio], dim=-1) * boxes.new_tensor(CODE_SCALES)


def decode(offsets: Tensor, defaults: Tensor) -> Tensor:
    """Turn offsets from default boxes back into boxes, (..., 4) xyxy; see `encode`.

    No box grows to more than 1000/16 times its default box.
    """
    offsets = offsets / offsets.new_tensor(CODE_SCALES)
    centre = offsets[..., :2] * defaults[..., 2:] + defaults[..., :2]
    half = offsets[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * defaults[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def match(boxes: Tensor, defaults: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Decide which object each default box is to find.

    A default box takes the object it overlaps most, if their IoU reaches `threshold`. Beside that every
    object gets the default box it overlaps most; where several objects want the same one it goes to the one
    that overlaps it most, and the others get the best of what is left.

    Args:
        boxes: objects, xyxy (M, 4).
        defaults: default boxes, xyxy (N, 4), in the same unit.
        threshold: least IoU of a match.

    Returns:
        int64 (N,): index of the object, or -1 for background.
    """
    if len(boxes) == 0:
        return torch.full((len(defaults),), -1, dtype=torch.int64, device=defaults.device)
    from torchvision.ops import box_iou

    overlaps = box_iou(boxes, defaults)  # (M, N)
    best_overlap, best_object = overlaps.max(dim=0)
    matches = torch.where(best_overlap >= threshold, best_object, -1)

    # In every round each object without a box bids for its favourite; each wanted box goes to one of them.
    bids = overlaps.clone()
    waiting = torch.arange(len(boxes), device=boxes.device)
    nobody = len(boxes)
    while len(waiting) and len(waiting) + len(defaults) > nobody:
        bid, wanted = bids[waiting].max(dim=1)
        highest = bid.new_zeros(len(defaults)).scatter_reduce(0, wanted, bid, 'amax', include_self=False)
        candidate = torch.where(bid == highest[wanted], waiting, nobody)
        winner = torch.full_like(matches, nobody).scatter_reduce(0, wanted, candidate, 'amin')
        served = winner[wanted] == waiting
        matches[wanted[served]] = waiting[served]
        bids[:, wanted] = -1  # taken
        waiting = waiting[~served]
    return matches


def hard_negatives(
    losses: Tensor, positive: Tensor, *, ratio: float = 3.0, minimum: int = 3, ignored: Tensor | None = None
) -> Tensor:
    """Pick the background boxes with the largest loss.

    Args:
        losses: classification loss of every default box, (B, N).
        positive: bool (B, N), the boxes that are to find an object.
        ratio: negatives for each positive of the same image.
        minimum: least number of negatives of an image, so that images without objects teach too
            (`min_negatives_per_image`).
        ignored: bool (B, N), boxes that are neither.

    Returns:
        bool (B, N), never positive nor ignored.
    """
    counts = (positive.sum(dim=1, keepdim=True) * ratio).long().clamp(min=minimum)  # (B, 1)
    barred = positive if ignored is None else positive | ignored
    order = losses.masked_fill(barred, -torch.inf).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < counts) & ~barred


def covered(boxes: Tensor, regions: Tensor, *, share: float = 0.5) -> Tensor:
    """Return which boxes lie in one of the regions by more than `share` of their own area.

    Args:
        boxes: xyxy (N, 4).
        regions: xyxy (M, 4); crowds, whose single objects nobody outlined.
        share: of the box's area, 0 to 1.

    Returns:
        bool (N,).
    """
    if len(regions) == 0:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    upper_left = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    lower_right = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (lower_right - upper_left).clamp(min=0).prod(dim=2)  # (N, M)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return (shared > share * area[:, None]).any(dim=1)


def suppress(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float = 1e-8,
    iou_threshold: float = 0.6,
    per_class: int = 100,
    limit: int = 100,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the best boxes of one image: non-maximum suppression within each class.

    The answer is that of suppressing all boxes of all classes and keeping the `limit` best. It is found
    without looking at most of them: a box is only ever suppressed by a better one, so the best boxes are
    enough as soon as `limit` of them survive.

    Args:
        boxes: xyxy (N, 4), shared by all classes.
        scores: (N, classes).
        score_threshold: leave out what scores no more than this.
        iou_threshold: of two boxes of a class that overlap by more, the better one stays.
        per_class: boxes kept of one class.
        limit: boxes kept in all.

    Returns:
        boxes (K, 4), scores (K,), class indices int64 (K,), best first.
    """
    nms, num_classes = _nms_operator(), scores.shape[1]
    flat = scores.flatten()
    eligible = int((flat > score_threshold).sum())
    count = min(eligible, FIRST_CANDIDATES)
    while True:
        best, order = flat.topk(count)
        labels = order % num_classes
        # In double precision: classes are told apart by moving their boxes far from each other. Apple's
        # GPUs have none.
        place = 'cpu' if boxes.device.type == 'mps' else boxes.device
        candidates = boxes[order // num_classes].to(place).double()
        if count:
            apart = labels.to(place) * (candidates.max() - candidates.min() + 1)
            candidates = candidates + apart[:, None]
        kept = nms(candidates, best.to(place).double(), iou_threshold).to(boxes.device)
        if per_class < limit:
            kept = kept[_rank_in_class(labels[kept]) < per_class]
        if len(kept) >= limit or count == eligible:
            kept = kept[:limit]
            return boxes[order[kept] // num_classes], best[kept], labels[kept]
        count = min(eligible, 4 * count)


@cache
def _nms_operator() -> Any:
    """Return torchvision's operator, without torchvision where that can be.

    Its operators are a library of their own. To import the package around it brings torch's compiler along:
    a second that a first picture would wait for.
    """
    spec = importlib.util.find_spec('torchvision')
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        for library in Path(folder).glob('_C*'):
            with contextlib.suppress(OSError):
                torch.ops.load_library(str(library))
    if not hasattr(torch.ops.torchvision, 'nms'):
        import torchvision  # noqa: F401
    return torch.ops.torchvision.nms


def to_pixels(
    boxes_unit: Tensor,
    image_size: tuple[Any, Any],
    *,
    input_size: tuple[int, int] | None = None,
    content_size: tuple[Any, Any] | None = None,
) -> Tensor:
    """Bring boxes from fractions of the network's input to pixels of the original image, clipped to it.

    Sizes of the image are numbers, or scalar tensors where a program for pictures of any size computes them.

    Args:
        boxes_unit: xyxy (K, 4), in fractions of the input.
        image_size: (height, width) of the original image, in pixels.
        input_size, content_size: (height, width) of the input and of the part of it, from the upper left
            corner, that the image fills; `content_size` None when it fills all of it.

    Raises:
        ValueError: `content_size` without `input_size`.
    """
    if content_size is not None:
        if input_size is None:
            raise ValueError('content_sizes needs input_size')
        rows, columns = (whole / part for whole, part in zip(input_size, content_size, strict=True))
        boxes_unit = boxes_unit * _by_side(boxes_unit, rows, columns)
    return boxes_unit.clamp(0, 1) * _by_side(boxes_unit, *image_size)


def _by_side(boxes: Tensor, vertical: Any, horizontal: Any) -> Tensor:
    """Return what the sides (x_min, y_min, x_max, y_max) of boxes are each multiplied with, (4,)."""
    factors = [horizontal, vertical] * 2
    return torch.stack(factors).to(boxes.dtype) if isinstance(vertical, Tensor) else boxes.new_tensor(factors)


def _rank_in_class(labels: Tensor) -> Tensor:
    """Return for each place how many earlier places have the same label."""
    same = labels[:, None] == labels[None]
    return same.tril(diagonal=-1).sum(dim=1)
