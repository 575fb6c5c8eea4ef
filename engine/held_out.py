"""The pictures that a run has set aside for scoring: written beside it, in its checkpoints, used again."""

import inspect
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import DATASETS

from falconet.core.errors import UserError
from falconet.core.owned_files import is_ours, write_json
from falconet.tasks.task import load_tasks

FILE = 'split.json'
STAGES = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def with_split(config: Config, held_out: Sequence[str] | None) -> Config:
    """Return a config whose data sets set these pictures aside, as far as they set any aside themselves."""
    if held_out is None:
        return config
    config = deepcopy(config)
    for dataset in _datasets(config, 'held_out'):
        dataset['held_out'] = list(held_out)
    return config


def with_format(config: Config, name: str) -> str:
    """Set the format that data sets are read in (`--data-format`); return a line for the log."""
    found = _datasets(config, 'format')
    if not found:
        raise UserError(
            f'--data-format {name}: the data sets of this config have one format only. Those for folders of '
            'your own take several: configs/linear_folder.py, ssdlite_folder.py, deeplabv3_folder.py'
        )
    for dataset in found:
        dataset['format'] = name
    return f'--data-format {name}'


def _datasets(config: Config, option: str) -> list[Any]:
    load_tasks()
    entries = [loader.get('dataset') for stage in STAGES if isinstance(loader := config.get(stage), dict)]
    kinds = [(entry, DATASETS.module_dict.get(str(entry.get('type')))) for entry in entries if entry]
    return [entry for entry, kind in kinds if kind and option in inspect.signature(kind).parameters]


def split_in(content: Mapping[str, Any] | None) -> list[str] | None:
    """Return the pictures that a checkpoint's run had set aside."""
    split = None if content is None else content.get('split')
    return None if split is None else list(split['held_out'])


def read_split_file(folder: Path) -> list[str] | None:
    """Return the pictures that an earlier run in this folder had set aside; None where there is no list.

    Raises:
        UserError: it is not ours, or broken.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        names = content['held_out']
        if not is_ours(path) or not all(isinstance(name, str) for name in names):
            raise ValueError('not written by a training')
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} should be the list of pictures that a training has set aside: {error}. Move it, or give '
            'another --work-dir'
        ) from error
    return names


def write_split_file(folder: Path, held_out: Sequence[str]) -> None:
    """Write the list of pictures set aside, in the main process only."""
    if is_main_process():
        write_json({'held_out': list(held_out)}, folder / FILE)
