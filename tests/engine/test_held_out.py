"""What a run sets aside is written down, travels with its checkpoint, and is set aside again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.engine.evaluate import evaluate
from falconet.engine.held_out import read_split_file, with_format, with_split
from falconet.engine.train import train
from falconet.tasks.build import load_config


@pytest.fixture
def config(write_config: Callable[..., Path], folders: Path) -> Path:
    """A config over pictures without a split."""
    return write_config(
        f"""
        data_root = {str(folders / 'train')!r}
        train_cfg = dict(max_epochs=1)
        for _each in (train_dataloader, val_dataloader):
            _each['dataset'] = dict(type='ClassificationFolder', augment=_each['dataset']['augment'])
        """
    )


def test_a_list_is_written_travels_and_is_used_again(config: Path, folders: Path, tmp_path: Path) -> None:
    first = tmp_path / 'first'
    train(load_config(config), work_dir=str(first))
    held_out = json.loads((first / 'split.json').read_text())['held_out']
    assert len(held_out) == 6
    moved = tmp_path / 'elsewhere.pth'
    shutil.move(first / 'best.pth', moved)
    assert read_checkpoint(moved)['split'] == {'held_out': held_out}
    for index in range(8):  # which would change what a new run sets aside
        shutil.copy(folders / f'train/red/{index}.png', folders / f'train/red/more_{index}.png')
    shutil.copytree(folders / 'train', tmp_path / 'copy')
    for options in ({}, {'config': load_config(config)}):
        options.setdefault('config', None)
        report = evaluate(checkpoint=str(moved), root=str(tmp_path / 'copy'), **options)
        assert report['images'] == 6
    second = tmp_path / 'second'
    second.mkdir()
    shutil.copy(first / 'split.json', second)
    train(load_config(config), work_dir=str(second))
    assert json.loads((second / 'split.json').read_text())['held_out'] == held_out
    train(load_config(config, ['train_cfg.max_epochs=2']), work_dir=str(second), resume=True)
    assert read_checkpoint(second / 'last.pth')['split'] == {'held_out': held_out}
    train(load_config(config), work_dir=str(tmp_path / 'third'))
    # Of red there are two of each now, which stay on one side.
    third = json.loads((tmp_path / 'third/split.json').read_text())['held_out']
    red = {name.removeprefix('red/') for name in third if name.startswith('red/')}
    assert len(red) == 2
    assert {f'more_{name}' for name in red if 'more' not in name} == {name for name in red if 'more' in name}


def test_a_list_that_is_not_ours_is_not_touched(config: Path, tmp_path: Path) -> None:
    for text in ('{"held_out": ["a.png"]}', '{', '{"made_by": "made by Falconet", "held_out": [1]}'):
        (tmp_path / 'split.json').write_text(text)
        with pytest.raises(UserError, match='should be the list of pictures that a training has set aside'):
            read_split_file(tmp_path)
        assert (tmp_path / 'split.json').read_text() == text
    assert read_split_file(tmp_path / 'nowhere') is None


def test_only_data_sets_that_can_are_told(config: Path, write_config: Callable[..., Path]) -> None:
    ours = load_config(config)
    assert with_split(ours, ['a']).val_dataloader.dataset.held_out == ['a']
    assert 'held_out' not in ours.val_dataloader.dataset
    assert with_format(ours, 'csv') == '--data-format csv'
    assert ours.train_dataloader.dataset.format == 'csv'
    other = load_config(write_config())
    assert 'held_out' not in with_split(other, ['a']).val_dataloader.dataset
    with pytest.raises(UserError, match='--data-format csv: the data sets of this config have one format'):
        with_format(other, 'csv')
