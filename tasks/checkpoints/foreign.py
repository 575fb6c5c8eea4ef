"""Other projects' weights into a model, and what they are only right with."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from backbones.base import BACKBONES
from backbones.weights.files import BACKBONE_PREFIX, exists, facts_of, read_plain, read_weight_file
from backbones.weights.layouts import TENSORFLOW_BORN, WeightFacts
from backbones.weights.load import LoadReport, copy_matching
from backbones.weights.split import SplitWeights, split_weights
from tasks.checkpoints.file import read_checkpoint
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.registry import find


def load_weights(model: VisionModel, path: str | Path) -> LoadReport:
    """Load a weight file into a model built from a config.

    Args:
        model: the model to fill.
        path: a Kestrel checkpoint, or a file in a layout `backbones.weights.split` knows.

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
        check_same_network(model, content, source=str(path))
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
        report = copy_matching(model, named_for(model, weights), source=str(path))
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


def named_for(model: VisionModel, weights: SplitWeights) -> dict[str, Tensor]:
    """Return a file's tensors under the model's own keys; a classifier it has no use for under its own."""
    classifier = {f'classifier.{key}': value for key, value in weights.classifier.items()}
    head = model.head.translate(weights.layout, {**weights.rest, **classifier})
    return {
        **{f'{BACKBONE_PREFIX}{key}': value for key, value in weights.backbone.items()},
        **{f'head.{key}': value for key, value in head.items()},
        **({} if model.head.linear() else classifier),
    }


def facts_of_checkpoint(content: Mapping[str, Any], *, source: str) -> WeightFacts | None:
    """Return what a checkpoint's weights are right with, or raise UserError for an unknown backbone."""
    find(BACKBONES, content['model']['backbone'], where=f'{source}: model.backbone')
    return facts_of(content, source=source)


def facts_of_model(model: VisionModel) -> WeightFacts:
    """Return what a model's weights are right with: what they decide in its backbone, and normalisation."""
    entry = model.spec['backbone']
    return WeightFacts(
        {name: entry.get(name, default) for name, default in model.backbone.from_weights.items()},
        {'mean': tuple(model.normalise.mean), 'std': tuple(model.normalise.std)},
    )


def check_facts(model: VisionModel, facts: WeightFacts | None, *, source: str) -> None:
    """Raise UserError unless the weights are right with the model's options and normalisation."""
    if facts is None:
        return
    ours = facts_of_model(model).as_plain()
    for name, theirs in facts.as_plain().items():
        if name in ours and ours[name] != theirs:
            where = 'model.normalise' if name == 'normalise' else f'model.backbone.{name}'
            raise UserError(
                f'{source} is only right with {name} {theirs}, the model has {ours[name]}: set {where} so'
            )


def check_same_network(model: VisionModel, content: Mapping[str, Any], *, source: str) -> None:
    """Raise UserError unless a Kestrel checkpoint's backbone computes what the model's does."""
    check_facts(model, facts_of_checkpoint(content, source=source), source=source)
    ours, theirs = model.spec['backbone'], content['model']['backbone']
    for name, default in model.backbone.wiring.items():
        if ours.get(name, default) != theirs.get(name, default):
            raise UserError(
                f'{source} was trained with {name}={theirs.get(name, default)!r}, the model has '
                f'{ours.get(name, default)!r}: the tensors would fit, the answers would be wrong'
            )


def adopt_file(config: Config, path: str | Path) -> Config:
    """Return a config in which a file that brings all weights decides what the given one leaves open.

    What weights decide in a backbone, and normalisation, become those that the file's weights are right with
    where they are not given. The file that the backbone would otherwise start from is not needed.

    Raises:
        UserError: the file is missing or unreadable.
    """
    path = Path(path).expanduser()
    if not exists(path):
        raise UserError(f'there is no checkpoint {path}')
    config = deepcopy(config)
    backbone = config.model.backbone
    backbone.pop('pretrained', None)
    if is_kestrel(path):
        facts = facts_of_checkpoint(read_checkpoint(path), source=str(path))
    else:
        facts = open_weights(path).facts
    if facts is None:
        return config
    for name in find(BACKBONES, backbone, where='model.backbone').from_weights:
        if backbone.get(name) is None and name in facts.options:
            backbone[name] = facts.options[name]
    if config.model.get('normalise') is None:
        config.model.normalise = facts.as_plain()['normalise']
    return config


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
