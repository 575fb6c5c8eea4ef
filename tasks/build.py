"""From a config to its parts: checked values, data sets, the model. Nothing here trains."""

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS

from falconet.core.errors import UserError, closest
from falconet.core.plain_values import plain
from falconet.core.registry import build, find
from falconet.core.schema import check_config
from falconet.datasets.dataset import VisionDataset
from falconet.tasks.model import VisionModel
from falconet.tasks.task import load_tasks

# mmengine's own word for it.
DELETE_KEY = '_delete_'
# Beside the packages, in a checkout as after an installation.
CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply `--cfg-options`.

    Args:
        path: a Python config, which is run; or the name of one of the project's own, as 'linear_folder'.
        options: 'key.inner=value' strings; 'key.inner=_delete_' takes a key away, before any value is set.

    Raises:
        UserError: missing or broken file, malformed option, a key to take away that is not there, keys that a
            data set's new type does not take, or a value that `core.schema` does not allow.
    """
    path = find_config(path)
    try:
        config = Config.fromfile(path)
        changes = _parse_options(options)
        kinds = {key: _value_at(config, key) for key in changes if key.endswith('.dataset.type')}
        for key in [key for key, value in changes.items() if value == DELETE_KEY]:
            _delete(config, key)
            del changes[key]
        config.merge_from_dict(changes)
        _check_new_types(config, kinds)
    except UserError:
        raise
    except Exception as error:  # a config is code: anything can go wrong in it
        raise UserError(f'cannot read {path}: {type(error).__name__}: {error}') from error
    for key in list(config):
        if inspect.ismodule(config[key]) or inspect.isroutine(config[key]) or key.startswith('_'):
            config.pop(key)  # what the config imported or defined to compute its values
    check_config(config, source=str(path))
    return config


def find_config(path: str | Path) -> Path:
    """Return a config's file: `path` itself, or the project's own config of that name.

    Names are taken with or without folder and ending: 'linear_folder', 'demo/linear_demo', 'linear_demo.py'.

    Raises:
        UserError: there is neither; the closest names are shown.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    own = [file for file in sorted(CONFIGS.rglob('*.py')) if '_base_' not in file.parts]
    wanted = path.with_suffix('') if path.suffix == '.py' else path
    for file in own:
        name = file.relative_to(CONFIGS).with_suffix('')
        if wanted in (name, Path(name.name), 'configs' / name):
            return file
    local = Path('configs')
    known = [str(file) for file in sorted(local.rglob('*.py')) if '_base_' not in file.parts]
    if not known or path.parent == Path():
        known = [file.stem for file in own]
    raise UserError(f'there is no config {path}. {closest(str(path), known) if known else ""}')


def _value_at(config: Any, key: str) -> Any:
    """Return the value at 'key.inner', with numbers for the places of a list; None where there is none."""
    value = config
    for part in key.split('.'):
        try:
            value = value[int(part)] if isinstance(value, (list, tuple)) else value.get(part)
        except (AttributeError, IndexError, ValueError):
            return None
    return value


def _delete(config: Config, key: str) -> None:
    parent, _, last = key.rpartition('.')
    inner = _value_at(config, parent) if parent else config
    if not isinstance(inner, (Config, dict)) or last not in inner:
        known = f' {closest(last, map(str, inner))}' if isinstance(inner, (Config, dict)) and inner else ''
        raise UserError(f'--cfg-options {key}={DELETE_KEY}: the config has no {key}.{known}')
    inner.pop(last)


def _check_new_types(config: Config, kinds: Mapping[str, Any]) -> None:
    """Raise UserError where a data set's type is another than it was, and does not take the former's options.

    Args:
        config: with the changes.
        kinds: 'train_dataloader.dataset.type' -> what the config file says there.
    """
    for key, former in kinds.items():
        where = key.removesuffix('.type')
        entry = _value_at(config, where)
        if former is None or former == entry['type']:
            continue
        load_tasks()
        taken = inspect.signature(_dataset_class(entry, where=where)).parameters
        if left := [each for each in entry if each != 'type' and each not in taken]:
            ways = ' '.join(f'{where}.{each}={DELETE_KEY}' for each in left)
            raise UserError(
                f'--cfg-options {key}={entry["type"]}: it takes no {", ".join(left)}, which the config '
                f'gives to {former}. Take them away: {ways}'
            )


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
    """Return where the data lies: `--data-root`, else $FALCONET_DATA/<name>, else the config's own.

    FALCONET_DATA replaces the leading `data` of a config's `data/<name>`.

    Raises:
        UserError: `override` is empty.
    """
    if override is not None:
        if not override:  # a path of nothing is the current folder
            raise UserError('--data-root is empty: name the folder of the data, or . for this one')
        return Path(override).expanduser()
    root = Path(config.get('data_root', 'data'))
    base = os.environ.get('FALCONET_DATA')
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
    _dataset_class(loader.get('dataset'), where=where)
    return build(
        DATASETS,
        loader.get('dataset'),
        where=where,
        root=str(root),
        classes=classes,
        training=stage == 'train_dataloader',
        seed=seed,
    )


def _dataset_class(entry: Mapping[str, Any], *, where: str) -> type[VisionDataset]:
    # mmengine's own would build whatever their options name, by dotted path.
    kind = find(DATASETS, entry, where=where)
    if not (isinstance(kind, type) and issubclass(kind, VisionDataset)):
        raise UserError(f'{where}: {kind.__name__} is no data set of Falconet, a VisionDataset')
    return kind


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
