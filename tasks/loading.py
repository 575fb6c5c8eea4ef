"""Models from checkpoints and configs, and other projects' weights into a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from backbones.convert import SplitWeights, split_weights
from backbones.layouts import TENSORFLOW_BORN, WeightFacts
from backbones.pretrained import LoadReport, copy_matching
from backbones.weight_files import exists, facts_of, read_plain, read_weight_file
from heads.base import ClassRows
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.runtime.checkpoint import read_checkpoint


def load_model(
    source: str | Path, *, classes: Sequence[str] | None = None, device: str | torch.device = 'cpu'
) -> VisionModel:
    """Load a trained model, or build a fresh one.

    Args:
        source: a Kestrel checkpoint (`.pth`), which needs nothing else; or a config (`.py`), for a model
            with untrained or `pretrained` weights. A config is Python code and is run; a checkpoint
            never is.
        classes: class names, for a config only; by default they are read from its data.
        device: where to put it.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: no such file, not a checkpoint, or one that does not fit its own description.
    """
    if str(source).endswith('.py'):
        from tasks.runner import build_model, load_config

        model = build_model(load_config(source), classes=classes)
    else:
        model = model_from_checkpoint(read_checkpoint(source), source=str(source))
    model.to(device).eval()
    return model


def model_from_checkpoint(content: Mapping[str, Any], *, source: str) -> VisionModel:
    """Build the model a checkpoint describes and give it the checkpoint's weights."""
    spec = content['model']
    model = VisionModel(**spec, classes=content['classes'], preprocess=content['preprocess']['transforms'])
    try:
        model.load_state_dict(content['state_dict'])
    except RuntimeError as error:
        raise UserError(f'{source}: its weights do not fit its own model: {error}') from error
    return model


def load_weights(model: VisionModel, path: str | Path) -> LoadReport:
    """Load a weight file into a model built from a config.

    Args:
        model: the model to fill.
        path: a Kestrel checkpoint, or a file in a layout `backbones.convert` knows.

    Returns:
        What was loaded. Every tensor of the model must be in the file.

    Raises:
        UserError: the file is missing, unreadable, of another shape, of other classes, or right only with
            another padding, batch-norm epsilon or normalisation than the model's.
    """
    path = Path(path).expanduser()
    if not exists(path):
        raise UserError(f'there is no checkpoint {path}')
    if is_kestrel(path):
        content = read_checkpoint(path)
        check_classes(content['classes'], model.classes, source=str(path))
        check_facts(model, facts_of(content), source=str(path))
        check_wiring(model, content, source=str(path))
        report = copy_matching(model, content['state_dict'], source=str(path))
    else:
        weights = open_weights(path)
        check_facts(model, weights.facts, source=str(path))
        rows = len(weights.classifier.get('bias', ()))
        if rows == len(model.classes) + 1 and weights.facts == TENSORFLOW_BORN:
            raise UserError(
                f"{path} knows {rows:,} classes, the model {rows - 1:,}: the first is TensorFlow's "
                f'background. Take it away: tools/convert_weights.py {path} OUT.pth --drop-background'
            )
        state = {f'backbone.{key}': value for key, value in weights.backbone.items()}
        state |= {f'head.fc.{key}': value for key, value in weights.classifier.items()}
        translated = model.head.translate(weights.layout, weights.rest)
        state |= {f'head.{key}': value for key, value in translated.items()}
        report = copy_matching(model, state, source=str(path))
    # The normalisation is set by the config; other projects' files do not carry it.
    lost = [
        key
        for key in report.new
        # TensorFlow does not count batches either, and nothing depends on it.
        if not key.startswith('normalise.') and not key.endswith('num_batches_tracked')
    ]
    if lost or report.skipped:
        raise UserError(f'{path} does not fit the model (a {len(model.classes)}-class one).\n{report}')
    return report


def is_kestrel(path: Path) -> bool:
    """Whether a weight file is a Kestrel checkpoint."""
    if path.suffix in ('.npz', '.h5', '.hdf5', '.keras', '.safetensors', '.index') or not path.is_file():
        return False
    try:
        content = read_plain(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    return isinstance(content, dict) and 'state_dict' in content and isinstance(content.get('model'), dict)


def open_weights(path: Path) -> SplitWeights:
    """Read another project's weight file and take it apart, or raise UserError."""
    try:
        state, facts = read_weight_file(path)
        return split_weights(state, source=str(path), facts=facts)
    except ValueError as error:
        raise UserError(str(error)) from error


def facts_of_model(model: VisionModel) -> WeightFacts:
    """Return padding, batch-norm epsilon and normalisation of a model, as far as its backbone has them."""
    entry = {**model.spec['backbone'], **model.backbone.settled}
    return WeightFacts(
        padding=entry.get('padding', 'symmetric'),
        norm_eps=entry.get('norm_eps', 1e-5),
        normalise={'mean': tuple(model.normalise.mean), 'std': tuple(model.normalise.std)},
    )


def check_facts(model: VisionModel, facts: WeightFacts | None, *, source: str) -> None:
    """Raise UserError unless the weights are right with the model's padding, epsilon and normalisation."""
    if facts is None:
        return
    ours = facts_of_model(model).as_plain()
    for name, theirs in facts.as_plain().items():
        if ours[name] != theirs:
            where = 'model.normalise' if name == 'normalise' else f'model.backbone.{name}'
            raise UserError(
                f'{source} is only right with {name} {theirs}, the model has {ours[name]}: set {where} so'
            )


# Options that change what a backbone computes but neither name nor shape of a tensor, and their defaults.
WIRING = {'linear_bottleneck': True, 'shortcut': 'bottleneck'}


def check_wiring(model: VisionModel, content: Mapping[str, Any], *, source: str) -> None:
    """Raise UserError unless a Kestrel checkpoint's backbone computes what the model's does."""
    ours, theirs = model.spec['backbone'], content['model']['backbone']
    for name, default in WIRING.items():
        if ours.get(name, default) != theirs.get(name, default):
            raise UserError(
                f'{source} was trained with {name}={theirs.get(name, default)!r}, the model has '
                f'{ours.get(name, default)!r}: the tensors would fit, the answers would be wrong'
            )


def adopt_file(config: Config, path: str | Path) -> None:
    """Let a file that brings all weights decide what a config leaves open.

    Padding, batch-norm epsilon and normalisation, where not given, become those that the file's weights are
    right with. The file that the backbone would otherwise start from is not needed.

    Raises:
        UserError: the file is missing or unreadable.
    """
    path = Path(path).expanduser()
    if not exists(path):
        raise UserError(f'there is no checkpoint {path}')
    backbone = config.model.backbone
    backbone.pop('pretrained', None)
    facts = facts_of(read_checkpoint(path)) if is_kestrel(path) else open_weights(path).facts
    if facts is None:
        return
    if backbone.get('type') == 'MobileNetV2':
        for name in ('padding', 'norm_eps'):
            if backbone.get(name) is None:
                backbone[name] = getattr(facts, name)
    if config.model.get('normalise') is None:
        config.model.normalise = facts.as_plain()['normalise']


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
        path: a Kestrel checkpoint.

    Raises:
        UserError: no Kestrel checkpoint, another backbone, or weights that are right only with another
            padding, batch-norm epsilon or normalisation.
    """
    content = read_checkpoint(path)
    theirs, ours = content['model']['backbone'].get('type'), model.spec['backbone'].get('type')
    if theirs != ours:
        raise UserError(f'{path} has the backbone {theirs}, the model {ours}')
    check_facts(model, facts_of(content), source=str(path))
    check_wiring(model, content, source=str(path))
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
        raise UserError(
            f'{path} does not fit: {len(lost)} tensors of the backbone, from {lost[0]}.\n{report}'
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


def check_classes(theirs: Sequence[str], ours: Sequence[str], *, source: str) -> None:
    """Raise UserError unless both name the same classes in the same order."""
    if list(theirs) == list(ours):
        return
    only_theirs = [name for name in theirs if name not in ours]
    only_ours = [name for name in ours if name not in theirs]
    raise UserError(
        f'{source} knows {len(theirs)} classes, the data has {len(ours)}. '
        f'Only in the checkpoint: {", ".join(only_theirs[:10]) or "none"}. '
        f'Only in the data: {", ".join(only_ours[:10]) or "none"}.'
        + (' The names agree, their order does not.' if not only_theirs + only_ours else '')
    )
