"""From a config to its parts: checked values, data sets, the model. Nothing here trains."""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS

from tasks.data.dataset import VisionDataset
from tasks.errors import UserError, closest
from tasks.model import VisionModel
from tasks.plain import plain
from tasks.registry import build, find
from tasks.schema import check_config
from tasks.task import load_tasks


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply `--cfg-options`.

    Args:
        path: a Python config; it is run.
        options: 'key.inner=value' strings.

    Raises:
        UserError: missing or broken file, malformed option, or a value that `tasks.schema` does not allow.
    """
    path = Path(path)
    if not path.is_file():
        nearby = [str(each) for each in sorted(Path('configs').rglob('*.py')) if '_base_' not in each.parts]
        raise UserError(f'there is no config {path}. {closest(str(path), nearby) if nearby else ""}')
    try:
        config = Config.fromfile(path)
        config.merge_from_dict(_parse_options(options))
    except UserError:
        raise
    except Exception as error:  # a config is code: anything can go wrong in it
        raise UserError(f'cannot read {path}: {type(error).__name__}: {error}') from error
    for key in list(config):
        if inspect.ismodule(config[key]) or inspect.isroutine(config[key]) or key.startswith('_'):
            config.pop(key)  # what the config imported or defined to compute its values
    check_config(config, source=str(path))
    return config


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    parsed = {}
    for option in options:
        key, separator, value = option.partition('=')
        if not separator or not key:
            raise UserError(f'--cfg-options takes key=value, got {option!r}')
        try:
            if 'dict(' in value:  # mmengine takes it for a text, or calls itself without end
                raise ValueError(value)
            parsed[key] = DictAction._parse_iterable(value)
        except (RecursionError, AssertionError, ValueError) as error:
            raise UserError(
                f'--cfg-options {option}: {value!r} is no number, text, list or tuple. Set the values of a '
                f'dict one by one, {key}.name=value'
            ) from error
    return parsed


def data_root(config: Config, override: str | None) -> Path:
    """Return where the data lies: `--data-root`, else $KESTREL_DATA/<name>, else the config's own.

    KESTREL_DATA replaces the leading `data` of a config's `data/<name>`.
    """
    if override is not None:
        return Path(override).expanduser()
    root = Path(config.get('data_root', 'data'))
    base = os.environ.get('KESTREL_DATA')
    if base and root.parts[:1] == ('data',):
        return Path(base).expanduser().joinpath(*root.parts[1:])
    return root


def build_dataset(
    config: Config, stage: str, *, root: Path, classes: Sequence[str] | None, seed: int
) -> VisionDataset:
    """Build the data set of 'train_dataloader', 'val_dataloader' or 'test_dataloader'."""
    load_tasks()
    loader = config.get(stage)
    if loader is None:
        raise UserError(f'the config has no {stage}')
    where = f'{stage}.dataset'
    # mmengine's own would build whatever their options name, by dotted path.
    kind = find(DATASETS, loader.get('dataset'), where=where)
    if not (isinstance(kind, type) and issubclass(kind, VisionDataset)):
        raise UserError(f'{where}: {kind.__name__} is no data set of Kestrel, a VisionDataset')
    return build(
        DATASETS,
        loader.get('dataset'),
        where=where,
        root=str(root),
        classes=classes,
        training=stage == 'train_dataloader',
        seed=seed,
    )


def evaluation_stage(config: Config) -> str:
    """Return the loader that `tools/test.py` scores: 'test_dataloader' where there is one."""
    return 'test_dataloader' if 'test_dataloader' in config else 'val_dataloader'


def build_model(
    config: Config, *, classes: Sequence[str] | None = None, training: VisionDataset | None = None
) -> VisionModel:
    """Build the untrained (or pretrained) model of a config.

    Args:
        config: from `load_config`.
        classes: class names; by default those of the config's data.
        training: the training data, from which `class_weights='data'` in the head are computed. They shape
            the loss only: without it, as when evaluating, there are none.
    """
    if classes is None:
        stage = 'train_dataloader' if 'train_dataloader' in config else evaluation_stage(config)
        root = data_root(config, None)
        classes = build_dataset(config, stage, root=root, classes=None, seed=0).classes
    options = plain(config.model)
    if options['head'].get('class_weights') == 'data':
        options['head']['class_weights'] = None if training is None else _class_weights(training)
    stage = config.get(evaluation_stage(config)) or {}
    preprocess = plain(stage.get('dataset', {}).get('augment', []))
    return VisionModel(**options, classes=classes, preprocess=preprocess)


def _class_weights(training: VisionDataset) -> list[float]:
    compute = getattr(training, 'class_weights', None)
    if compute is None:
        raise UserError(
            f"class_weights='data': {type(training).__name__} does not count its classes; give the numbers"
        )
    return compute()
