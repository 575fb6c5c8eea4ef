"""Models from checkpoints and configs, and other projects' weights into a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.build import build_model, load_config
from tasks.checkpoints.file import read_checkpoint
from tasks.errors import UserError
from tasks.model import VisionModel


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
