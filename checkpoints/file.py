"""The checkpoint file: tensors and plain values only, written whole or not at all.

    format        2; 1 had the state of hooks in other places and one fill for padding, ImageNet's mean
    state_dict    the weights to use (the averaged ones where EMA is on)
    model         plain arguments that rebuild the model: backbone, head, normalise
    classes       class names in order
    preprocess    transforms that turn a picture into the network's input, and the channel order
    metrics       the last validation's scores
    config        the config as plain values; config_text the same as text
    versions      of Falconet and the libraries
    training      only in last.pth: everything `--resume` needs

Nothing in it is ever executed: it opens with `weights_only=True`, and its names are looked up in registries.
"""

import copy
import importlib.metadata
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from falconet.backbones.weights.files import read_plain
from falconet.core.errors import UserError
from falconet.core.plain_values import plain, text_of, to_plain
from falconet.core.schema import CheckpointSchema, check_schema
from falconet.datasets.transforms.augment import IMAGENET_MEAN, fill_left_open
from falconet.tasks.model import VisionModel

FORMAT = 2


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint under a temporary name, flush it to the disk, then rename it.

    Whatever happens, `path` holds either the old checkpoint or the new one.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    plain = {'format': FORMAT, **to_plain(content)}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f'.{path.name}.', suffix='.tmp', delete=False
        ) as file:
            temporary = Path(file.name)
            torch.save(plain, file)
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile makes files private; others may read what a plain open() would let them.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        kept = 'the earlier one is kept' if path.exists() else 'none was there before'
        raise UserError(
            f'could not write {path} ({error}); {kept}. Free some space, then continue with --resume.'
        ) from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Open a Falconet checkpoint on the CPU.

    Raises:
        UserError: missing, truncated, changed on its way, not a checkpoint, holding more than plain values,
            weights that are not finite, or something else than `core.schema` says.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f'{path} is a folder: name the checkpoint in it, for example {path / "best.pth"}')
    if not path.is_file():
        raise UserError(f'there is no checkpoint {path}')
    check_bytes(path)
    try:
        content = read_plain(path)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if not isinstance(content, dict) or 'state_dict' not in content or 'model' not in content:
        keys = list(content)[:4] if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f'{path} is no Falconet checkpoint (it holds {keys}). Weights of other projects load with '
            'tools/test.py CONFIG --checkpoint FILE, or model.backbone.pretrained=FILE.'
        )
    check_schema(CheckpointSchema, content, source=str(path))
    if content.get('format', 0) > FORMAT:
        raise UserError(f'{path} was written by a newer Falconet (format {content["format"]})')
    for name, value in tensors_in(content):
        if value.is_meta or value.is_quantized or value.is_nested or value.layout != torch.strided:
            raise UserError(f'{path}: {name} is no plain tensor of numbers, but {value.layout}: refused')
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f'{path}: {name} is not finite: the run had diverged. Take an earlier checkpoint')
    return _as_format_2(content) if content.get('format', 0) < 2 else content


def check_bytes(path: Path) -> None:
    """Raise UserError unless every part of a checkpoint's archive has the CRC noted for it.

    torch does not compare them. It takes about 30 ms for the 14 MB of a MobileNetV2 1.0.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's old format, or no checkpoint at all
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [
                each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED
            ]
            if packed:  # torch never does, and a small file could fill the memory
                raise UserError(f'{path}: {packed[0]} is compressed, so torch did not write it: refused')
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(f'{path}: not readable, or truncated ({error}); copy or train it again') from error
    if broken is not None:
        raise UserError(f'{path}: the bytes of {broken} have changed since it was written; copy it again')


def tensors_in(value: Any, name: str = '') -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in nested dicts, lists and tuples, by its place."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (dict, list, tuple)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors_in(each, f'{name}.{key}' if name else str(key))


def _as_format_2(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of format 1, or before, with its training state as it is written now.

    Nor did such a run fill with anything but ImageNet's mean where its config left that open.
    """
    transforms = fill_left_open(content['preprocess']['transforms'], IMAGENET_MEAN, explicit=True)
    content = {**content, 'preprocess': {**content['preprocess'], 'transforms': transforms}}
    if isinstance(content.get('config'), Mapping):
        content['config'] = with_old_fill(content['config'])
    state = content.get('training')
    if not isinstance(state, dict) or 'hooks' in state:
        return content
    hooks: dict[str, Any] = {'SaveHook': {'best': state.get('best'), 'metrics': content.get('metrics', {})}}
    if state.get('ema_steps') is not None:
        hooks['EMAHook'] = {'steps': state['ema_steps']}
    for number, stopper in enumerate(state.get('early_stopping', ()), start=1):
        hooks[f'EarlyStopping {number}' if number > 1 else 'EarlyStopping'] = stopper
    return {**content, 'training': {**state, 'hooks': hooks}}


def with_old_fill(config: Any) -> Any:
    """Return a copy of a config, or of its plain values, in which transforms name ImageNet's mean as fill."""
    config = copy.deepcopy(config)
    for stage in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = config.get(stage)
        dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
        if isinstance(dataset, MutableMapping) and isinstance(dataset.get('augment'), Sequence):
            dataset['augment'] = fill_left_open(dataset['augment'], IMAGENET_MEAN, explicit=True)
    return config


def describe(model: VisionModel, config: Config) -> dict[str, Any]:
    """Return what every checkpoint of a run says of its model, as plain values."""
    libraries = ('torch', 'torchvision', 'mmengine-lite', 'albumentations', 'numpy')
    return to_plain(
        {
            'task': model.task.name,
            'model': model.spec,
            'classes': list(model.classes),
            'preprocess': {
                'transforms': list(model.preprocess),
                'channel_order': 'RGB',
                'normalise': model.spec['normalise'],
            },
            'config': plain(config),
            'config_text': text_of(config),
            'versions': {name: _version(name) for name in ('falconet', *libraries)},
        }
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return None
