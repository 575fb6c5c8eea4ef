"""From a config to its parts: checked values, data sets, the model. Nothing here trains."""

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS

from tasks.data.dataset import VisionDataset
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.plain import plain
from tasks.registry import build, closest
from tasks.task import load_tasks

# Every key a config may have, so that a misspelt one is an error and not a silent default.
KEYS = (
    'model',
    'load_from',
    'data_root',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'evaluator',
    'ema',
    'early_stopping',
    'save_every_iters',
    'log_interval',
    'custom_hooks',
    'custom_imports',
    'amp',
    'seed',
    'sync_bn',
    'tensorboard',
    'work_dir',
)
MODEL_KEYS = ('backbone', 'head', 'normalise', 'norm_eval')
CYCLE_KEYS = ('max_epochs', 'val_begin', 'val_interval')
LOADER_KEYS = ('dataset', 'batch_size', 'num_workers', 'batch_augment')


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply `--cfg-options`.

    Args:
        path: a Python config; it is run.
        options: 'key.inner=value' strings.

    Raises:
        UserError: missing or broken file, malformed option, unknown key.
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
        elif key not in KEYS:
            raise UserError(f'{path}: unknown key {key!r}. {closest(key, KEYS)}')
    model = config.get('model')
    if not isinstance(model, Mapping) or not {'backbone', 'head'} <= set(model):
        raise UserError(f'{path} needs model=dict(backbone=dict(...), head=dict(...))')
    for key in model:
        if key not in MODEL_KEYS:
            raise UserError(f'{path}: unknown key model.{key}. {closest(key, MODEL_KEYS)}')
    return config


def check_numbers(config: Config) -> None:
    """Raise UserError for a training config with a part missing, or a number out of its range."""
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'train_cfg'):
        if not isinstance(config.get(key), Mapping):
            raise UserError(f'training needs {key}=dict(...), got {config.get(key)!r}')
    for key in config.train_cfg:
        if key not in CYCLE_KEYS:
            raise UserError(f'train_cfg: unknown key {key!r}. {closest(key, CYCLE_KEYS)}')
    if 'max_epochs' not in config.train_cfg:
        raise UserError('train_cfg needs max_epochs')
    numbers = {
        'seed': (config.get('seed', 0), 0),
        'log_interval': (config.get('log_interval', 10), 1),
        'save_every_iters': (config.get('save_every_iters', 0), 0),
        **{f'train_cfg.{key}': (value, 1) for key, value in config.train_cfg.items()},
    }
    check_whole(numbers)
    for stage in ('train_dataloader', 'val_dataloader'):
        check_loader(config, stage)


def check_loader(config: Config, stage: str) -> None:
    """Raise UserError for a number of a loader that is out of its range."""
    loader = config.get(stage) or {}
    sizes = {
        'batch_size': (loader.get('batch_size', 32), 1),
        'num_workers': (loader.get('num_workers', 2), 0),
    }
    check_whole({f'{stage}.{key}': value for key, value in sizes.items()})


def check_whole(numbers: Mapping[str, tuple[Any, int]]) -> None:
    """Raise UserError unless each value, by name, is a whole number that reaches its minimum."""
    for name, (value, least) in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f'{name} must be a whole number of at least {least}, got {value!r}')


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    parsed = {}
    for option in options:
        key, separator, value = option.partition('=')
        if not separator or not key:
            raise UserError(f'--cfg-options takes key=value, got {option!r}')
        parsed[key] = DictAction._parse_iterable(value)
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
    for key in loader:
        if key not in LOADER_KEYS:
            raise UserError(f'{stage}: unknown key {key!r}. {closest(key, LOADER_KEYS)}')
    return build(
        DATASETS,
        loader.get('dataset'),
        where=f'{stage}.dataset',
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
