"""Going on with --resume: a changed model or optimiser is refused, whatever else changed is said."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.engine.resume import check_same_model
from falconet.engine.train import train
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel


@pytest.fixture
def config(write_config: Callable[..., Path], tmp_path: Path) -> Path:
    """A config whose run of one epoch lies in tmp_path/run."""
    path = write_config(
        """
        train_cfg = dict(max_epochs=1)
        ema = dict(decay=0.9)
        early_stopping = dict(patience=5)
        optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.01))
        """
    )
    train(load_config(path), work_dir=str(tmp_path / 'run'))
    return path


REFUSED = {
    'model.backbone.shortcut=none': r"model\.backbone\.shortcut='bottleneck', this one has 'none'",
    'model.backbone.linear_bottleneck=False': r'model\.backbone\.linear_bottleneck=True, this one has False',
    'model.backbone.norm_eps=0.001': r'model\.backbone\.norm_eps=1e-05, this one has 0\.001',
    'model.backbone.padding=same': r"model\.backbone\.padding='symmetric', this one has 'same'",
    'model.backbone.width=0.5': r'model\.backbone\.width=0\.35, this one has 0\.5',
    'model.backbone.frozen_stages=3': r'model\.backbone\.frozen_stages=0, this one has 3',
    'model.backbone.norm_momentum=0.2': r'model\.backbone\.norm_momentum=0\.1, this one has 0\.2',
    'model.normalise=tensorflow': r'model\.normalise\.mean=.*this one has \[0\.5, 0\.5, 0\.5\]',
    'model.norm_eval=True': r'model\.norm_eval=False, this one has True',
    'model.head.label_smoothing=0.1': r'model\.head\.label_smoothing=0\.0, this one has 0\.1',
    'model.head.dropout=0.5': r'model\.head\.dropout=0\.2, this one has 0\.5',
    'val_dataloader.dataset.augment.0.crop=28': r'model\.preprocess\.0\.crop=32, this one has 28',
    'optim_wrapper.optimizer.type=Adam': r"optimizer\.type 'AdamW', this one has 'Adam'",
    'optim_wrapper.paramwise_cfg.norm_decay_mult=0.0': r'paramwise_cfg \{\}, this one has \{.norm_decay_mult',
    'param_scheduler=[]': r"types of param_scheduler \['CosineAnnealingLR'\], this one has \[\]",
    'param_scheduler.0.type=ConstantLR': r"\['CosineAnnealingLR'\], this one has \['ConstantLR'\]",
    'ema=None': 'comes from a run with ema',
}


def test_what_makes_another_model_or_optimiser_is_refused_and_changes_no_file(
    config: Path, tmp_path: Path
) -> None:
    kept = {path: path.read_bytes() for path in (tmp_path / 'run').glob('*.p*')}
    for option, message in REFUSED.items():
        changed = load_config(config, [option])
        with pytest.raises(UserError, match=message) as caught:
            train(changed, work_dir=str(tmp_path / 'run'), resume=True)
        assert 'last.pth' in str(caught.value), option
        assert 'load_from=' in str(caught.value) or option.startswith('ema'), option
    assert {path: path.read_bytes() for path in kept} == kept


def test_what_goes_on_as_it_was_and_what_is_new_is_in_the_log(config: Path, tmp_path: Path) -> None:
    options = [
        'optim_wrapper.optimizer.lr=0.5',
        'optim_wrapper.optimizer.weight_decay=0.2',
        'optim_wrapper.clip_grad.max_norm=5.0',
        'param_scheduler.0.eta_min=0.001',
        'train_cfg.max_epochs=2',
        'early_stopping.patience=9',
        'ema.decay=0.95',
    ]
    train(load_config(config, options), work_dir=str(tmp_path / 'run'), resume=True)
    log = (tmp_path / 'run/train.log').read_text()
    for line in (
        'optim_wrapper.optimizer.lr was 0.01 and goes on as it was, 0.5 is not used',
        'optim_wrapper.optimizer.weight_decay was 0.01 and goes on as it was, 0.2 is not used',
        'optim_wrapper.clip_grad.max_norm was None and is new: 5.0',
        'param_scheduler.0.eta_min was None and goes on as it was, 0.001 is not used',
        'train_cfg.max_epochs was 1 and is new: 2',
        'early_stopping.patience was 5 and is new: 9',
        'ema.decay was 0.9 and is new: 0.95',
    ):
        assert line in log
    group = read_checkpoint(tmp_path / 'run/last.pth')['training']['optimizer']['param_groups'][0]
    assert (group['initial_lr'], group['weight_decay']) == (0.01, 0.01)


def test_a_broken_training_state_ends_without_a_traceback(config: Path, tmp_path: Path) -> None:
    last = tmp_path / 'run/last.pth'
    whole = torch.load(last, weights_only=True)
    for change, message in (
        (
            lambda state: state['optimizer']['state'][0].update(exp_avg=torch.zeros(3)),
            r'exp_avg of parameter 0',
        ),
        (lambda state: state['optimizer'].pop('param_groups'), 'param_groups'),
        (lambda state: state['schedulers'].clear(), 'schedulers|does not fit this run'),
        (lambda state: state['hooks'].update(EMAHook={}), 'steps'),
    ):
        content = torch.load(last, weights_only=True)
        change(content['training'])
        torch.save(content, last)
        with pytest.raises(UserError, match=message):
            train(
                load_config(config, ['train_cfg.max_epochs=2']), work_dir=str(tmp_path / 'run'), resume=True
            )
        torch.save(whole, last)


def test_an_option_that_an_older_checkpoint_does_not_name_has_its_default() -> None:
    def model() -> VisionModel:
        return VisionModel({'type': 'MobileNetV2', 'width': 0.35}, {'type': 'LinearHead'}, classes=('a',))

    spec = {**model().spec, 'backbone': {'type': 'MobileNetV2', 'width': 0.35}}
    del spec['norm_eval']
    check_same_model(model(), {'model': spec, 'preprocess': {'transforms': []}}, source='x.pth')


def test_other_batches_are_refused_even_where_an_epoch_is_as_long(
    config: Path, tmp_path: Path, folders: Path
) -> None:
    """24 pictures are three whole batches of 7 and of 8; the run of `config` has batches of 4."""
    run = str(tmp_path / 'sevens')
    options = ['train_dataloader.batch_size=7', 'train_cfg.max_epochs=1']
    train(load_config(config, options), work_dir=run)
    with pytest.raises(UserError, match='a run of 7 pictures a batch, this one has 8: resume with the same'):
        train(
            load_config(config, ['train_dataloader.batch_size=8', 'train_cfg.max_epochs=2']),
            work_dir=run,
            resume=True,
        )
    (folders / 'train/red/0.png').unlink()
    with pytest.raises(UserError, match='a run of 24 pictures, this one has 23'):
        train(load_config(config, options[:1] + ['train_cfg.max_epochs=2']), work_dir=run, resume=True)
    last = tmp_path / 'run/last.pth'
    content = torch.load(last, weights_only=True)
    assert content['training'].pop('processes') == 1
    content['training']['processes'] = 2
    torch.save(content, last)
    write = folders / 'train/red/0.png'
    write.write_bytes((folders / 'train/red/1.png').read_bytes())
    with pytest.raises(UserError, match='a run of 2 processes, this one has 1'):
        train(load_config(config, ['train_cfg.max_epochs=2']), work_dir=str(last.parent), resume=True)
