"""A model that starts from a whole checkpoint, whatever its classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from falconet.backbones.weights.files import BACKBONE_PREFIX
from falconet.backbones.weights.load import LoadReport, copy_matching, name_width
from falconet.checkpoints.external_weights import check_same_network
from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.heads.base import ClassRows
from falconet.tasks.model import VisionModel


@dataclass(frozen=True)
class TransferReport:
    """What a checkpoint with other classes gave to a model.

    Attributes:
        weights: what became of the tensors; those with rows per class count as loaded.
        kept: classes that both know; their rows were taken over.
        new: classes that only the model knows; their rows start untrained.
        dropped: classes that only the checkpoint knows.
    """

    weights: LoadReport
    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        def names(classes: tuple[str, ...]) -> str:
            more = ', ...' if len(classes) > 10 else ''
            return f'{len(classes)}' + (f' ({", ".join(classes[:10])}{more})' if classes else '')

        return (
            f'{self.weights}\n  classes kept by name {names(self.kept)}, new {names(self.new)}, '
            f'only in the checkpoint {names(self.dropped)}'
        )


def transfer_weights(model: VisionModel, path: str | Path) -> TransferReport:
    """Start a model from a whole checkpoint, whatever its classes.

    The backbone must fit. Of the head, tensors of the same shape are taken over, and of those with rows per
    class (`Head.class_rows`) the rows of classes with the same name, in whatever order.

    Args:
        model: the model to fill.
        path: a Falconet checkpoint.

    Raises:
        UserError: no Falconet checkpoint, another backbone, or weights that are right only with another
            padding, batch-norm epsilon or normalisation.
    """
    content = read_checkpoint(path)
    theirs, ours = content['model']['backbone'].get('type'), model.spec['backbone'].get('type')
    if theirs != ours:
        raise UserError(f'{path} has the backbone {theirs}, the model {ours}')
    check_same_network(model, content, source=str(path))
    own = model.state_dict()
    rows = {f'head.{key}': layout for key, layout in model.head.class_rows().items()}
    same_head = content['model']['head'].get('type') == model.spec['head'].get('type')
    same_classes = list(content['classes']) == list(model.classes)
    # Equal names in another head would be chance; rows of a head that does not say whose they are, too.
    strange_head = not same_head or (not rows and not same_classes)
    state, merges = {}, 0
    for key, value in content['state_dict'].items():
        if key.startswith('head.') and strange_head and key in own:
            continue
        if key in rows and same_head:
            merged = merge_rows(own[key], value, rows[key], ours=model.classes, theirs=content['classes'])
            merges += merged is not None
            value = value if merged is None else merged
        state[key] = value
    report = copy_matching(model, state, source=str(path))
    lost = [
        key
        for key in [*report.new, *(key for key, _, _ in report.skipped)]
        if key.startswith('backbone.') and not key.endswith('num_batches_tracked')
    ]
    if lost:
        backbone = {key.removeprefix(BACKBONE_PREFIX): value for key, value in state.items()}
        width = name_width(backbone) if report.skipped else ''
        raise UserError(
            f'{path} does not fit: {len(lost)} tensors of the backbone, from {lost[0]}. {width}\n{report}'
        )
    known = set(content['classes']) if merges or (same_head and same_classes) else set()
    return TransferReport(
        weights=report,
        kept=tuple(name for name in model.classes if name in known),
        new=tuple(name for name in model.classes if name not in known),
        dropped=tuple(name for name in content['classes'] if name not in model.classes),
    )


def merge_rows(
    own: Tensor, value: Tensor, layout: ClassRows, *, ours: Sequence[str], theirs: Sequence[str]
) -> Tensor | None:
    """Return `own` with the rows of classes that `value` has under the same name, and its background rows.

    Args:
        own: the model's tensor, (groups * (background + classes), ...).
        value: the checkpoint's, with its own number of classes.
        layout: how the rows belong to classes.
        ours, theirs: class names in the order of their rows.

    Returns:
        The merged tensor; None when `value` is not of that layout.
    """
    sizes = [layout.groups * (layout.background + len(names)) for names in (ours, theirs)]
    if (len(own), len(value)) != tuple(sizes) or own.shape[1:] != value.shape[1:]:
        return None
    merged = own.clone().view(layout.groups, -1, *own.shape[1:])
    source = value.view(layout.groups, -1, *value.shape[1:])
    merged[:, : layout.background] = source[:, : layout.background]
    places = {name: layout.background + index for index, name in enumerate(theirs)}
    for index, name in enumerate(ours, start=layout.background):
        if name in places:
            merged[:, index] = source[:, places[name]]
    return merged.view(own.shape)
