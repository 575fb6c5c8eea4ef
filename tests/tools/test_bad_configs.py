"""Bad configs and checkpoints: each ends in one message that names the place, what was got, the way out."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from falconet.core.errors import UserError
from falconet.engine.train import train
from falconet.tasks.build import load_config

CONFIG_TABLE = {
    'early_stopping.patience=abc': "early_stopping.patience must be a whole number of at least 1, got 'abc'",
    'early_stopping=5': r'early_stopping must be dict\(...\), got 5',
    'early_stopping.patiense=3': "unknown key 'early_stopping.patiense'. Did you mean patience",
    'ema.decay=abc': "ema.decay must be a number above 0 and below 1, got 'abc'",
    'ema=5': r'ema must be dict\(...\), got 5',
    'optim_wrapper.clip_grad.max_norm=abc': "clip_grad.max_norm must be a number above 0, got 'abc'",
    'optim_wrapper.clip_grad=5': r'clip_grad must be dict\(...\), got 5',
    'optim_wrapper.clip_grad.max_nrm=5': 'Did you mean max_norm',
    'optim_wrapper.paramwise_cfg.norm_decay=0': 'Did you mean norm_decay_mult',
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr=0': 'Known: lr_mult, decay_mult',
    'optim_wrapper.accumulative_counts=0': 'accumulative_counts must be a whole number of at least 1, got 0',
    'optim_wrapper.optimizer.lr=abc': "optimizer.lr must be a number, got 'abc'",
    'optim_wrapper.optimizer.momentum=abc': 'optim_wrapper: ',
    'optim_wrapper=5': r'optim_wrapper must be dict\(...\), got 5',
    'param_scheduler=5': 'param_scheduler must be a.* list, got 5',
    'param_scheduler.0.T_max=abc': "param_scheduler.0.T_max must be a whole number of at least 1, got 'abc'",
    'param_scheduler.0.eta_min=abc': "param_scheduler.0.eta_min must be a number, got 'abc'",
    'load_from=5': 'load_from must be a text, got 5',
    'data_root=5': 'data_root must be a text, got 5',
    'model.backbone.width=abc': "width must be a number above 0 and at most 8, got 'abc'",
    'model.backbone.width=400': 'width must be a number above 0 and at most 8, got 400',
    'model.backbone.frozen_stages=-1': 'frozen_stages must be a whole number of at least 0 and at most 8',
    'model.backbone=5': r'model.backbone must be dict\(...\), got 5',
    'model.head.label_smoothing=-2': 'label_smoothing must be a number of at least 0 and at most 1, got -2',
    'model.head.dropout=2': 'dropout must be a number of at least 0 and at most 1, got 2',
    'model.head.class_weights=[1,-1,1]': 'class_weights must be a list of numbers of at least 0, one a class',
    'model.head.class_weights=[1,nan,1]': 'class_weights must be a list of numbers of at least 0',
    'model.normalise=5': r'normalise must be a name or dict\(mean=, std=\), got 5',
    'model.norm_eval=5': 'model.norm_eval must be True or False, got 5',
    'train_dataloader.batch_size=0': 'batch_size must be a whole number of at least 1, got 0',
    'val_dataloader.batch_size=-1': 'val_dataloader.batch_size must be a whole number of at least 1, got -1',
    'val_dataloader.num_workers=300': 'num_workers must be a whole number .* and at most 128, got 300',
    'train_dataloader.dataset=5': r'train_dataloader.dataset must be dict\(...\), got 5',
    'train_dataloader.dataset.type=ConcatDataset': 'ConcatDataset is no data set of Falconet',
    'train_dataloader.dataset.augment=5': 'train_dataloader.dataset',
    'train_dataloader.batch_augment=[5]': 'batch_augment must be a list of dict',
    'seed=4294967296': 'seed must be a whole number of at least 0 and at most 4294967295, got 4294967296',
    'seed=abc': "seed must be a whole number .*, got 'abc'",
    'train_cfg=5': r'train_cfg must be dict\(...\), got 5',
    'train_cfg.max_epochs=1.5': 'train_cfg.max_epochs must be a whole number of at least 1, got 1.5',
    'evaluator=5': r"evaluator must be dict\(type='Name', ...\), got 5",
    'custom_hooks=5': 'custom_hooks must be a list of dict',
    'sync_bn=5': 'sync_bn must be True or False, got 5',
    'amp=5': "amp must be 'auto' or 'off', got 5",
    'train_cfg.max_epochs=1' + 400 * '0': 'train_cfg.max_epochs is a whole number beyond 64 bits',
    'param_scheduler.0.T_max=1' + 400 * '0': 'param_scheduler.0.T_max is a whole number beyond 64 bits',
    'train_dataloader.cache.limit=[1]': r"cache.limit must be bytes or a text like '500MB'.*, got \[1\]",
    'distill.teacher=5': r"distill.teacher must be a checkpoint's name, or dict\(model=.*, got 5",
    'optim_wrapper.optimizer.type=LBFGS': 'LBFGS computes the loss several times a step',
    'optim_wrapper.optimizer.type=SparseAdam': 'SparseAdam is for sparse gradients',
    'optim_wrapper.clip_grad.type=value': "clip_grad needs clip_value with type='value'",
    'optim_wrapper.clip_grad.norm_type=1.0': "clip_grad needs max_norm with type='norm'",
    'optim_wrapper.paramwise_cfg.custom_keys.bakbone.lr_mult=0.1': "custom_keys: 'bakbone' is in no name",
    'early_stopping.monitor=miou': "early_stopping.monitor: no score 'miou'. Known: top1, top5, mean_class",
    'evaluator.type=DetectionMetric': 'DetectionMetric scores detection, this is classification: take Class',
    'ema=dict(decay=0.9)': r'one by one, ema\.name=value',
}


@pytest.mark.parametrize('option', CONFIG_TABLE)
def test_a_wrong_value_in_a_config_is_named_with_what_is_expected(
    write_config: Callable[..., Path], tmp_path: Path, option: str
) -> None:
    with pytest.raises(UserError, match=CONFIG_TABLE[option]):
        train(load_config(write_config(), [option]), work_dir=str(tmp_path / 'run'))


def test_mixing_by_nothing_and_a_place_to_log_to_without_its_library_are_explained(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    for extra, message in (
        (
            "train_dataloader['batch_augment'] = [dict(type='MixUp', alpha=0)]",
            r'\(MixUp\): alpha must be a numb',
        ),
        ("train_dataloader['batch_augment'] = [dict(type='CutMix', alpha='x')]", r"above 0, got 'x'"),
        (
            "optim_wrapper['clip_grad'] = dict(type='value', clip_value=1.0, max_norm=1.0)",
            'max_norm is not for',
        ),
        ("vis_backends = [dict(type='MLflowVisBackend')]", 'vis_backends: .*mlflow.*leave that entry out'),
    ):
        with pytest.raises(UserError, match=message):
            train(load_config(write_config(extra)), work_dir=str(tmp_path / 'run'))


def test_a_module_that_cannot_be_imported_is_named(write_config: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r'cannot read .*tiny\.py: .*no_such_module'):
        load_config(write_config("custom_imports = dict(imports=['no_such_module'])"))


def test_batch_norms_shared_by_one_process_are_said_to_do_nothing(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    train(
        load_config(write_config('train_cfg = dict(max_epochs=1)'), ['sync_bn=True']),
        work_dir=str(tmp_path / 'r'),
    )
    assert 'sync_bn=True does nothing here' in (tmp_path / 'r/train.log').read_text()


def test_the_command_lines_end_with_code_2_and_no_traceback(
    command: Callable[..., Any], template: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    bad = deepcopy(template)
    bad['model']['backbone']['pretrained'] = 'torchvision'
    torch.save(bad, tmp_path / 'bad.pth')
    for arguments, message in (
        (['train', write_config(), '--cfg-options', 'ema.decay=abc'], 'ema.decay must be a number'),
        (['predict', tmp_path / 'bad.pth', tmp_path], "pretrained='torchvision' is not taken"),
    ):
        done = command(*arguments)
        assert done.code == 2, done.output
        assert message in done.output
