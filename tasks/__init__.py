"""Tasks: data, metrics and the runner around a backbone and a head.

from tasks import load_model
result = load_model('work_dirs/linear_intel/best.pth').predict('photo.jpg')
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.errors import UserError
    from tasks.loading import load_model
    from tasks.model import VisionModel

__all__ = ['UserError', 'VisionModel', 'load_model']

_HOMES = {
    'UserError': 'tasks.errors',
    'VisionModel': 'tasks.model',
    'load_model': 'tasks.loading',
}


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, and `tools/train.py --help` needs nothing of it.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
