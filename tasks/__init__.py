"""Tasks: data, metrics and the runner around a backbone and a head.

from tasks import load_model
result = load_model('work_dirs/linear_intel/best.pth').predict('photo.jpg')
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.build import load_config
    from tasks.checkpoints.load import load_model
    from tasks.errors import UserError
    from tasks.model import VisionModel
    from tasks.training.evaluate import evaluate
    from tasks.training.train import train

__all__ = ['UserError', 'VisionModel', 'evaluate', 'load_config', 'load_model', 'train']

_HOMES = {
    'UserError': 'tasks.errors',
    'VisionModel': 'tasks.model',
    'evaluate': 'tasks.training.evaluate',
    'load_config': 'tasks.build',
    'load_model': 'tasks.checkpoints.load',
    'train': 'tasks.training.train',
}


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, and `tools/train.py --help` needs nothing of it.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
