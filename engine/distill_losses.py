"""What a student is told by its teacher's raw outputs, task by task.

Hinton et al., arXiv 1503.02531: probabilities softened by a temperature T, and the gradient's factor T^2.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor

from falconet.core.errors import UserError
from falconet.heads.base import IGNORE
from falconet.layers.fast.fused_losses import softplus


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student) of softened class probabilities.

    Args:
        student, teacher: logits with the classes last, (..., C).
        temperature: T, above 0.

    Returns:
        Of the shape of the logits without their last dimension.
    """
    ours = F.log_softmax(student / temperature, dim=-1)
    theirs = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(dim=-1)


def binary_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the same where every class is a yes or no of its own (sigmoid), added up over the classes."""
    ours, theirs = student / temperature, teacher / temperature
    yes = theirs.sigmoid()
    entropy = softplus(theirs) - yes * theirs
    return temperature**2 * (softplus(ours) - yes * ours - entropy).sum(dim=-1)


def _expect_scores(student: Any, teacher: Any, form: str) -> None:
    """Raise UserError where a head's raw outputs are no class scores, as those of a user's own may be."""
    for whose, outputs in (('student', student), ('teacher', teacher)):
        if not isinstance(outputs, Tensor) or outputs.ndim != form.count(',') + 1:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UserError(
                f"distill compares class scores, a tensor {form}; the {whose}'s head returns {found}. Train "
                'it without distill'
            )
    if student.shape[1] != teacher.shape[1]:
        raise UserError(
            f'distill: the student scores {student.shape[1]} classes, the teacher {teacher.shape[1]}'
        )


def of_images(student: Tensor, teacher: Tensor, targets: Any, temperature: float) -> dict[str, Tensor]:
    """Classification: logits (B, C); the mean over the images."""
    _expect_scores(student, teacher, '(B, classes)')
    return {'loss_distill': divergence(student, teacher, temperature).mean()}


def of_pixels(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> dict[str, Tensor]:
    """Segmentation: logits (B, C, h, w), compared at the student's cells; the mean over the labelled ones."""
    _expect_scores(student, teacher, '(B, classes, height, width)')
    cells = student.shape[2:]
    if teacher.shape[2:] != cells:
        teacher = F.interpolate(teacher, size=cells, mode='bilinear', align_corners=True)
    labels = F.interpolate(targets[:, None].float(), size=cells, mode='nearest')[:, 0]
    counts = (labels != IGNORE).to(student.dtype)  # (B, h, w)
    each = divergence(student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1), temperature)
    return {'loss_distill': (each * counts).sum() / counts.sum().clamp(min=1)}


def of_boxes(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    targets: Any,
    temperature: float,
    *,
    scores: str,
) -> dict[str, Tensor]:
    """Detection: what both say of each default box.

    Class scores of all boxes are compared. Offsets count by how surely the teacher sees an object there. Both
    are divided by how many objects it sees, over all processes, as the loss of labels is by theirs.

    Args:
        student, teacher: `offsets` (B, N, 4), `logits` (B, N, 1 + C) with the background first, `defaults`.
        targets: not used.
        temperature: as in `divergence`.
        scores: 'sigmoid' or 'softmax', of both heads.
    """
    ours, theirs = student['logits'], teacher['logits']
    if student['defaults'].shape != teacher['defaults'].shape or not torch.allclose(
        student['defaults'], teacher['defaults'], atol=1e-5
    ):
        raise UserError(
            f'distill: the teacher has {len(teacher["defaults"])} default boxes, the student '
            f'{len(student["defaults"])}, or others: they need the same input size, strides of the maps, '
            'and options of the boxes'
        )
    sigmoid = scores == 'sigmoid'
    each = (binary_divergence if sigmoid else divergence)(ours, theirs, temperature)  # (B, N)
    sure = (theirs.sigmoid() if sigmoid else theirs.softmax(dim=2))[..., 1:].amax(dim=2)  # (B, N)
    seen = sure.sum()
    all_reduce(seen, op='mean')
    seen = seen.clamp(min=1.0)
    apart = F.smooth_l1_loss(student['offsets'], teacher['offsets'], reduction='none').sum(dim=2)
    return {'loss_distill': each.sum() / seen, 'loss_distill_box': (apart * sure).sum() / seen}


COMPARISONS: dict[str, Callable[..., dict[str, Tensor]]] = {
    'classification': of_images,
    'segmentation': of_pixels,
    'detection': of_boxes,
}
