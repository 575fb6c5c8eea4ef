"""Programs without operators of our own, for engines that know none: suppression in plain arithmetic.

It picks the best box that is left, as often as there are places, and strikes out what overlaps it. Picking
over all classes at once gives the best `limit` of what suppression of each class by itself would keep, in
the order of their scores.
"""

import torch
from torch import Tensor
from torch.export import ExportedProgram

import falconet.heads.nms_op

assert falconet.heads.nms_op  # defines falconet::suppress


def in_plain_operators(program: ExportedProgram) -> ExportedProgram:
    """Return a trace in which `falconet::suppress` is written out."""
    if all(node.target is not torch.ops.falconet.suppress.default for node in program.graph.nodes):
        return program
    return program.run_decompositions({torch.ops.falconet.suppress.default: suppress_plainly})


def suppress_plainly(
    boxes: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float, per_class: int, limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do as `heads.nms_op.suppress_batch` does, in operations whose sizes and number are fixed.

    Raises:
        ValueError: fewer boxes of a class are wanted than in all, which one pass cannot keep count of.
    """
    batch, count, classes = scores.shape
    if per_class < min(limit, count):
        raise ValueError(f'per_class={per_class} is below limit={limit}: raise it to limit or export as onnx')
    # Class by class in one row, as heads.boxes.suppress orders equal scores.
    none = torch.full_like(scores, -1.0)
    left = (
        torch.where(scores > score_threshold, scores, none).permute(0, 2, 1).reshape(batch, classes * count)
    )
    none = none.reshape(batch, classes * count)
    boxes_in_order = torch.arange(count, dtype=torch.int32, device=boxes.device)[None]
    classes_in_order = torch.arange(classes, dtype=torch.int32, device=boxes.device)[None]
    low, high = boxes[..., :2], boxes[..., 2:]
    # Intersection over union above t is: intersection * (1 + t) above t * (the areas' sum).
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) * iou_threshold  # (B, N)
    facts = torch.cat([boxes, areas[..., None]], dim=2)  # (B, N, 5)
    picked: list[tuple[Tensor, Tensor, Tensor | None]] = []
    # What is in here stands `limit` times in the program: every operation counts, in files and in converting.
    for _ in range(limit):
        best = left.amax(dim=1, keepdim=True)  # (B, 1)
        place = left.argmax(dim=1, keepdim=True).to(torch.int32)
        label = place // count if classes > 1 else None
        chosen = boxes_in_order == (
            place if label is None else place - label * count
        )  # (B, N), one of each row
        fact = torch.bmm(chosen.to(boxes.dtype)[:, None], facts)  # (B, 1, 5), of the chosen box
        sides = (torch.minimum(high, fact[..., 2:4]) - torch.maximum(low, fact[..., :2])).clamp(min=0)
        shared = sides[..., 0] * sides[..., 1]
        gone = torch.logical_or(shared * (1 + iou_threshold) > areas + fact[..., 4], chosen)
        if label is not None:
            of_class = classes_in_order == label
            gone = torch.logical_and(of_class[:, :, None], gone[:, None]).reshape(batch, classes * count)
        left = torch.where(gone, none, left)
        picked.append((fact, best, label))
    found = torch.cat([each[1] for each in picked], dim=1)  # (B, limit)
    real = found > 0
    labels = torch.zeros_like(found, dtype=torch.int32)
    if classes > 1:
        labels = torch.cat([each[2] for each in picked if each[2] is not None], dim=1)
    return (
        torch.cat([each[0] for each in picked], dim=1)[..., :4] * real[..., None].to(boxes.dtype),
        torch.where(real, found, torch.zeros_like(found)),
        torch.where(real, labels, torch.full_like(labels, -1)).to(torch.int64),
        real.to(torch.int64).sum(dim=1),
    )
