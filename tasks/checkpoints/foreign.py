"""Other projects' weights into a model, and what they are only right with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from backbones.weights.files import exists, facts_of, read_plain, read_weight_file
from backbones.weights.layouts import TENSORFLOW_BORN, WeightFacts
from backbones.weights.load import LoadReport, copy_matching
from backbones.weights.split import SplitWeights, split_weights
from tasks.checkpoints.file import read_checkpoint
from tasks.errors import UserError
from tasks.model import VisionModel


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
