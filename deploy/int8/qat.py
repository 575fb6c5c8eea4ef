"""Quantisation-aware fine-tuning: a checkpoint's own training, a few epochs more, on the grid of eight bits.

The recipe is the config's: data, augmentation, losses, optimiser. Its learning rate is a part of what it was,
and falls to nothing; norms keep their statistics. The network computes as its INT8 files will
(`deploy.int8.rounding`), in float32, with ranges measured on the calibration pictures before each epoch. Of
the epochs and the checkpoint itself, the one with the best rounded score is taken.
"""

import copy
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor

from falconet.checkpoints.file import read_checkpoint
from falconet.checkpoints.load import model_from_checkpoint
from falconet.checkpoints.untrusted import SETTING, check_transforms
from falconet.core.errors import Interrupted, UserError, listing
from falconet.core.options import check_options
from falconet.core.plain_values import plain
from falconet.datasets.images.images import read_image
from falconet.deploy.int8.calibration import STAGE, Calibration
from falconet.deploy.int8.rounding import Rounding, snap
from falconet.engine.evaluate import evaluate
from falconet.engine.held_out import split_in, with_split, write_split_file
from falconet.engine.hooks.saving import BEST
from falconet.engine.train import train
from falconet.tasks.build import build_dataset, data_root
from falconet.tasks.model import VisionModel

RATE = 0.05  # of the config's learning rate
# Of a config, what is taken from a checkpoint, which may be a stranger's.
KEYS = ('data_root', 'train_dataloader', 'val_dataloader', 'evaluator', 'seed')
# albumentations' transforms that change numbers only, besides those that evaluation takes.
RANDOM = (
    *('RandomResizedCrop', 'RandomCrop', 'RandomScale', 'ColorJitter', 'RandomBrightnessContrast'),
    *('HueSaturationValue', 'GaussianBlur', 'GaussNoise', 'Rotate', 'ShiftScaleRotate', 'CoarseDropout'),
)


class Tuned(NamedTuple):
    """What fine-tuning gave.

    Attributes:
        model: with rounded weights.
        epochs: that were trained.
        before, after: the score by its name, computed in eight bits.
    """

    model: VisionModel
    epochs: int
    before: dict[str, float]
    after: dict[str, float]


def fine_tuned(
    checkpoint: Path,
    content: Mapping[str, Any],
    calibration: Calibration,
    *,
    epochs: int,
    root: str | None,
    primary: str,
) -> Tuned:
    """Fine-tune a checkpoint's model for eight bits.

    Args:
        checkpoint: its file.
        content: what is in it.
        calibration: pictures to measure ranges on.
        epochs: to train.
        root: where the data lies, instead of the config's place.
        primary: the name of the score.

    Raises:
        UserError: the checkpoint does not say how it was trained, in a way that is taken from it, or its
            training data is missing.
    """
    config = training_config(content, checkpoint, epochs=epochs)
    _check_data(with_split(config, split_in(content)), content, checkpoint, root=root)
    model = model_from_checkpoint(content, source=str(checkpoint)).eval()

    def score(each: VisionModel) -> dict[str, float]:
        return {primary: rounded_score(each, checkpoint, calibration, root=root, primary=primary)}

    before = score(copy.deepcopy(model))
    print(
        f'quantisation-aware fine-tuning: {epochs} epochs; in eight bits {primary} was {before[primary]:.4f}'
    )
    with tempfile.TemporaryDirectory() as folder:
        if (held_out := split_in(content)) is not None:
            write_split_file(Path(folder), held_out)
        hook = RoundingHook(calibration)
        try:
            train(config, root=root, work_dir=folder, kernels='torch', hooks=[hook])
        except Interrupted as error:  # what it saved goes with the folder
            raise Interrupted(
                'stopped while fine-tuning; nothing was written', signal_number=error.signal_number
            ) from error
        learnt = model_from_checkpoint(read_checkpoint(Path(folder) / BEST), source=str(checkpoint)).eval()
    snap(learnt)
    after = score(copy.deepcopy(learnt))
    if not after[primary] >= before[primary]:
        return Tuned(model, epochs, before, before)
    return Tuned(learnt, epochs, before, after)


def training_config(content: Mapping[str, Any], checkpoint: Path, *, epochs: int) -> Config:
    """Return the config of the fine-tuning.

    Raises:
        UserError: the checkpoint's own lacks what is needed, or has what is not taken from a checkpoint.
    """
    given = plain(content.get('config') or {})
    lacking = [key for key in (STAGE, 'val_dataloader', 'optim_wrapper') if not given.get(key)]
    if lacking:
        raise UserError(
            f'--qat needs to know how {checkpoint} was trained, and its config has no {lacking[0]}: leave '
            '--qat out, or train a checkpoint with tools/train.py'
        )
    config = {key: given[key] for key in KEYS if key in given}
    check_augment(config[STAGE].get('dataset', {}).get('augment', []), source=str(checkpoint))
    check_transforms(config['val_dataloader'].get('dataset', {}).get('augment', []), source=str(checkpoint))
    wrapper = given['optim_wrapper']
    optimizer = dict(wrapper.get('optimizer') or {})
    if not isinstance(optimizer.get('lr'), (int, float)):
        raise UserError(f'--qat begins from the learning rate of {checkpoint}, whose optimizer names none')
    optimizer['lr'] *= RATE
    for key in (STAGE, 'val_dataloader'):
        config[key].pop('cache', None)  # a folder that is written to
        config[key].pop('batch_augment', None)
    spec = content['model']
    backbone = {key: value for key, value in spec['backbone'].items() if key != 'pretrained'}
    return Config(
        {
            **config,
            'model': {**spec, 'backbone': backbone, 'norm_eval': True},
            'load_from': str(checkpoint),
            'train_cfg': {'max_epochs': epochs, 'val_interval': 1},
            'optim_wrapper': {'optimizer': optimizer, 'paramwise_cfg': wrapper.get('paramwise_cfg') or {}},
            'schedule': {'decay': 'cosine', 'lowest': 0.0},
            'amp': 'off',
        }
    )


def _check_data(config: Config, content: Mapping[str, Any], checkpoint: Path, *, root: str | None) -> None:
    """Raise UserError unless the training data is there, with the checkpoint's classes."""
    data = build_dataset(config, STAGE, root=data_root(config, root), classes=None, seed=0)
    if list(data.classes) != list(content['classes']):
        raise UserError(
            f'--qat goes on with the training of {checkpoint}, whose classes are '
            f'{listing(content["classes"])}, but the training data has {listing(data.classes)}: say with '
            '--data-root where its own data lies'
        )


def check_augment(entries: Any, *, source: str) -> None:
    """Raise UserError for a transform of a training that is not taken from a checkpoint."""
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get('type') in RANDOM:
            values = {key: value for key, value in entry.items() if key != 'type'}
            try:
                check_options(dict.fromkeys(values, SETTING), values)
            except ValueError as error:
                raise UserError(f'{source}: {entry["type"]}: {error}') from error
        else:
            check_transforms([entry], source=source)


def rounded_score(
    model: VisionModel, checkpoint: Path, calibration: Calibration, *, root: str | None, primary: str
) -> float:
    """Return the score of a model that computes in eight bits; it does so from now on."""
    rounding = Rounding(model)
    rounding.measure(pictures_of(calibration, model))
    return evaluate(None, checkpoint=str(checkpoint), root=root, network=model.infer)[primary]


def pictures_of(calibration: Calibration, model: VisionModel) -> Iterator[Tensor]:
    """Yield pictures as the network takes them, RGB uint8 (1, 3, H, W)."""
    for path in calibration.paths:
        yield torch.from_numpy(model.to_input(read_image(path))).permute(2, 0, 1)[None]


class RoundingHook(Hook):
    """Has a run's model compute in eight bits, with ranges measured before each epoch."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._rounding: Rounding | None = None

    def before_train_epoch(self, runner: Any) -> None:
        model = runner.bare_model
        self._rounding = self._rounding or Rounding(model)
        self._rounding.measure(pictures_of(self._calibration, model))
