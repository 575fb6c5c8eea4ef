"""Programs without operators of our own, for engines that know none: suppression in plain arithmetic.

It picks the best box that is left, as often as there are places, and strikes out what overlaps it. Picking
over all classes at once gives the best `limit` of what suppression of each class by itself would keep, in
the order of their scores.
"""

import torch
from torch import Tensor
from torch.export import ExportedProgram

import heads.detections

assert heads.detections  # defines kestrel::suppress


def in_plain_operators(program: ExportedProgram) -> ExportedProgram:
    """Return a trace in which `kestrel::suppress` is written out."""
    if all(node.target is not torch.ops.kestrel.suppress.default for node in program.graph.nodes):
        return program
    return program.run_decompositions({torch.ops.kestrel.suppress.default: suppress_plainly})


def suppress_plainly(
    boxes: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float, per_class: int, limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do as `heads.detections.suppress_batch` does, in operations whose sizes and number are fixed.

    Raises:
        ValueError: fewer boxes of a class are wanted than in all, which one pass cannot keep count of.
    """
    batch, count, classes = scores.shape
    if per_class < min(limit, count):
        raise ValueError(f'per_class={per_class} is below limit={limit}: raise it to limit or export as onnx')
    # Class by class in one row, as heads.boxes.suppress orders equal scores.
    left = torch.where(scores > score_threshold, scores, torch.full_like(scores, -1.0))
    left = left.permute(0, 2, 1).reshape(batch, classes * count)
    boxes_in_order = torch.arange(count, dtype=torch.int32, device=boxes.device)[None]
    classes_in_order = torch.arange(classes, dtype=torch.int32, device=boxes.device)[None]
    sides = [boxes[..., side] for side in range(4)]  # each (B, N)
    areas = (sides[2] - sides[0]) * (sides[3] - sides[1])
    picked: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(limit):
        best = left.amax(dim=1, keepdim=True)  # (B, 1)
        place = left.argmax(dim=1, keepdim=True).to(torch.int32)
        label = place // count
        chosen = (boxes_in_order == place - label * count).to(boxes.dtype)  # (B, N), one 1 in each row
        box = [(chosen * side).sum(dim=1, keepdim=True) for side in sides]
        width = (torch.minimum(sides[2], box[2]) - torch.maximum(sides[0], box[0])).clamp(min=0)
        height = (torch.minimum(sides[3], box[3]) - torch.maximum(sides[1], box[1])).clamp(min=0)
        shared = width * height
        union = areas + (box[2] - box[0]) * (box[3] - box[1]) - shared
        gone = torch.maximum((shared > iou_threshold * union).to(boxes.dtype), chosen)
        if classes > 1:
            of_class = (classes_in_order == label).to(boxes.dtype)
            gone = (of_class[:, :, None] * gone[:, None]).reshape(batch, classes * count)
        left = torch.where(gone > 0, torch.full_like(left, -1.0), left)
        picked.append((torch.cat(box, dim=1), best, label))
    found = torch.cat([each[1] for each in picked], dim=1)  # (B, limit)
    real = found > 0
    labels = torch.cat([each[2] for each in picked], dim=1)
    return (
        torch.stack([each[0] for each in picked], dim=1) * real[..., None].to(boxes.dtype),
        torch.where(real, found, torch.zeros_like(found)),
        torch.where(real, labels, torch.full_like(labels, -1)).to(torch.int64),
        real.to(torch.int64).sum(dim=1),
    )
