"""Before a run: serious faults of the data in three lines, and a word where it is too short. Nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.engine.min_steps import too_short
from falconet.engine.train import train
from falconet.tasks.build import load_config


@pytest.fixture
def config(write_config: Callable[..., Path], folders: Path) -> Path:
    """A config over own pictures with five kinds of faults, four of them serious."""
    shutil.copy(folders / 'train/red/0.png', folders / 'test/red/copy.png')
    shutil.copy(folders / 'train/red/1.png', folders / 'train/blue/which.png')
    (folders / 'train/green/0.png').write_bytes(b'')
    cut = folders / 'train/green/1.png'
    cut.write_bytes(cut.read_bytes()[:500])
    return write_config(
        """
        train_cfg = dict(max_epochs=1)
        for _each in (train_dataloader, val_dataloader):
            _each['dataset'] = dict(type='ClassificationFolder', augment=_each['dataset']['augment'])
        """
    )


def log_of(folder: Path) -> list[str]:
    lines = (folder / 'train.log').read_text().splitlines()
    return [line[line.index('data: ') :] for line in lines if 'data: ' in line and 'data_time' not in line]


def test_what_is_serious_is_said_in_three_lines_and_changes_no_bit(config: Path, tmp_path: Path) -> None:
    with_check, without = tmp_path / 'with', tmp_path / 'without'
    train(load_config(config), work_dir=str(with_check), check=True)
    train(load_config(config), work_dir=str(without))
    lines = log_of(with_check)
    assert len(lines) == 4
    assert 'cannot be read' in ' '.join(lines)
    assert lines[2].startswith('data: and 2 other kinds of faults: ')
    assert lines[3].startswith('data: the whole list: python tools/check_data.py ')
    assert lines[3].endswith('--data-format folders')
    assert log_of(without) == []
    ours, theirs = (read_checkpoint(folder / 'last.pth') for folder in (with_check, without))
    for name, tensor in ours['state_dict'].items():
        assert torch.equal(tensor, theirs['state_dict'][name]), name
    longer = load_config(config, ['train_cfg.max_epochs=2'])
    train(longer, work_dir=str(with_check), check=True, resume=True)
    assert log_of(with_check) == lines  # not once more


def test_standard_data_sets_are_not_looked_at(
    write_config: Callable[..., Path], folders: Path, tmp_path: Path
) -> None:
    (folders / 'train/green/0.png').write_bytes(b'')
    options = ['train_cfg.max_epochs=1']
    train(load_config(write_config(), options), work_dir=str(tmp_path / 'run'), check=True)
    assert log_of(tmp_path / 'run') == []


@pytest.mark.parametrize(
    ('epochs', 'accumulated', 'said'),
    [
        (25, 1, '25 epochs of 8 batches are 200 optimiser steps, and this recipe needs about 800'),
        (100, 1, None),
        (100, 2, '100 epochs of 8 batches are 400 optimiser steps'),
        (99, 1, '--epochs 100 would do'),
    ],
)
def test_a_run_too_short_for_its_data_is_said(
    epochs: int, accumulated: int, said: str | None, write_config: Callable[..., Path]
) -> None:
    options = [f'train_cfg.max_epochs={epochs}', f'optim_wrapper.accumulative_counts={accumulated}']
    config = load_config(write_config('min_steps = 800'), options)
    text = too_short(config, iters_per_epoch=8)
    assert text is None if said is None else said in str(text)
    assert too_short(load_config(write_config()), iters_per_epoch=1) is None


def test_it_is_said_once_before_the_run(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_config('min_steps = 100'), ['train_cfg.max_epochs=1'])
    train(config, work_dir=str(tmp_path / 'run'))
    log = (tmp_path / 'run/train.log').read_text()
    assert log.count('this run is short for its data: 1 epochs of 6 batches are 6 optimiser steps') == 1
    assert '--epochs 17 would do' in log
    with pytest.raises(UserError, match='min_steps'):
        load_config(write_config('min_steps = -1'))
