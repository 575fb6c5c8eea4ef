"""Models from checkpoints and configs, and other projects' weights into a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from backbones.convert import split_weights
from backbones.pretrained import LoadReport, copy_matching, read_state_dict
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
        UserError: the file is missing, unreadable, of another shape, or of other classes.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'there is no checkpoint {path}')
    try:
        weights = split_weights(read_state_dict(path), source=str(path))
    except ValueError as error:
        raise UserError(str(error)) from error
    if weights.layout == 'kestrel':
        content = read_checkpoint(path)
        check_classes(content['classes'], model.classes, source=str(path))
        report = copy_matching(model, content['state_dict'], source=str(path))
    else:
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
