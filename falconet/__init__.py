"""Falconet: one MobileNetV2 backbone under interchangeable heads.

import falconet
model = falconet.load_model('work_dirs/linear_intel/best.pth')
result = model.predict('photo.jpg')

The packages beside this file, `falconet.tasks` and the others, are links to the folders of the checkout.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falconet.checkpoints.load import load_model
    from falconet.core.errors import UserError
    from falconet.engine.evaluate import evaluate
    from falconet.engine.train import train
    from falconet.tasks.build import load_config
    from falconet.tasks.model import VisionModel

__all__ = ['UserError', 'VisionModel', '__version__', 'evaluate', 'load_config', 'load_model', 'train']
__version__ = '0.1.0'

# Where the public names are, imported at their first use: torch takes seconds, and `--help` needs none of it.
_MODULES = {
    'UserError': 'core.errors',
    'VisionModel': 'tasks.model',
    'evaluate': 'engine.evaluate',
    'load_config': 'tasks.build',
    'load_model': 'checkpoints.load',
    'train': 'engine.train',
}

# Where links cannot be made (Windows without the right to), git writes a text file in place of each.
_HERE = Path(__file__).resolve().parent
if not (_HERE / 'core').is_dir():
    __path__.append(str(_HERE.parent))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)


def __dir__() -> list[str]:
    return sorted(__all__)
