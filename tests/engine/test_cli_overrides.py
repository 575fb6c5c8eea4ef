"""What the command line says in one word changes the config as it should, and says so."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.engine.cli_overrides import set_batch_size, set_epochs, set_start
from falconet.engine.train import train
from falconet.tasks.build import load_config


def test_the_length_is_one_number(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config('train_cfg = dict(max_epochs=9, val_begin=5)'))
    assert set_epochs(config, 3) == '--epochs 3: the config has 9; the schedule follows'
    assert config.train_cfg == {'max_epochs': 3, 'val_begin': 3}
    with pytest.raises(UserError, match='a run has 1 epoch or more'):
        set_epochs(config, 0)


def test_the_rate_grows_with_the_batch_linearly(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config('schedule = dict(lowest=0.001)\nparam_scheduler = []'))
    note = set_batch_size(config, 16)
    assert config.train_dataloader.batch_size == 16
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.08)
    assert config.schedule.lowest == pytest.approx(0.004)
    assert note == (
        '--batch-size 16: the config has 4, so the learning rate is 0.08 instead of 0.02 (it grows with the '
        'batch, linearly)'
    )
    assert set_batch_size(config, 16) == '--batch-size 16: the config has 16; the learning rate stays'
    listed = load_config(write_config("param_scheduler = [dict(type='PolyLR', eta_min=0.01)]"))
    set_batch_size(listed, 2)
    assert listed.param_scheduler[0].eta_min == pytest.approx(0.005)


def test_a_file_is_taken_for_what_it_holds(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_config('train_cfg = dict(max_epochs=1)'))
    train(config, work_dir=str(tmp_path / 'first'), notes=['a word of the command line'])
    best = tmp_path / 'first/best.pth'
    assert 'a word of the command line' in (tmp_path / 'first/train.log').read_text()
    assert set_start(config, str(best)) == f'--init {best}: a Falconet checkpoint, load_from={str(best)!r}'
    assert config.load_from == str(best)
    state = read_checkpoint(best)['state_dict']
    names = {
        key.removeprefix('backbone.'): each for key, each in state.items() if key.startswith('backbone.')
    }
    backbone = tmp_path / 'backbone.pth'
    torch.save(names, backbone)
    assert 'weights of a backbone' in set_start(config, str(backbone))
    assert (config.model.backbone.pretrained, config.load_from) == (str(backbone), None)
    with pytest.raises(UserError, match='--init nowhere: there is no such file'):
        set_start(config, 'nowhere')
    train(config, work_dir=str(tmp_path / 'second'))
    assert 'backbone' in (tmp_path / 'second/train.log').read_text()
