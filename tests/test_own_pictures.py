"""Every command of docs/own_pictures.md runs, on small data laid out as the page says."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from falconet.checkpoints.file import read_checkpoint
from falconet.datasets.images.images import read_image

# What makes a run last seconds.
SMALL = [
    'model.backbone.width=0.35',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
]
SMALLER = {
    'ssdlite': [
        *('train_dataloader.dataset.augment.4.height=96', 'train_dataloader.dataset.augment.4.width=96'),
        *('val_dataloader.dataset.augment.0.height=96', 'val_dataloader.dataset.augment.0.width=96'),
    ],
    'deeplabv3': ['train_dataloader.dataset.augment.0.size=65', 'val_dataloader.dataset.augment.0.size=97'],
    'linear': [
        'train_dataloader.dataset.augment.0.size=(64,64)',
        *('val_dataloader.dataset.augment.0.resize=64', 'val_dataloader.dataset.augment.0.crop=64'),
    ],
}


def commands(root: Path) -> list[list[str]]:
    text = (root / 'docs/own_pictures.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```\n(.*?)^```$', text, re.M | re.S)
    return [line.split() for block in blocks for line in block.splitlines()]


@pytest.fixture
def data(tmp_path: Path, folders: Path, coco_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """my_pictures (a folder a class), my_boxes (YOLO) and my_masks in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders / 'train', tmp_path / 'my_pictures')
    for name in ('my_boxes', 'my_masks'):
        shutil.copytree(coco_folder / 'train', tmp_path / name / 'images')
    (tmp_path / 'my_boxes/labels').mkdir()
    (tmp_path / 'my_masks/masks').mkdir()
    (tmp_path / 'my_boxes/classes.txt').write_text('red\n')
    (tmp_path / 'my_masks/classes.txt').write_text('background\nred\n')
    for path in sorted((tmp_path / 'my_boxes/images').iterdir()):
        red = read_image(path)[..., 0] > 200
        cv2.imwrite(str(tmp_path / f'my_masks/masks/{path.name}'), red.astype(np.uint8))
        label = ''
        if red.any():
            (top, bottom), (left, right) = (np.flatnonzero(red.any(axis=axis))[[0, -1]] for axis in (1, 0))
            x, y, w, h = (
                (left + right + 1) / 160,
                (top + bottom + 1) / 120,
                right - left + 1,
                bottom - top + 1,
            )
            label = f'0 {x:.6f} {y:.6f} {w / 80:.6f} {h / 60:.6f}\n'
        (tmp_path / f'my_boxes/labels/{path.stem}.txt').write_text(label)
    return tmp_path


@pytest.fixture
def call(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """Run a command line of the page in this process, a training shortened; return its exit code."""

    def run(words: list[str]) -> int:
        assert words[0] == '.venv/bin/python'
        tool, *arguments = words[1:]
        arguments = [str(root / each) if each.startswith('configs/') else each for each in arguments]
        if tool.endswith('train.py'):
            start = [] if '--init' in words else ['model.backbone.pretrained=None']
            kind = Path(words[2]).name.split('_')[0]
            arguments += ['--epochs', '1', '--cfg-options', *SMALL, *start, *SMALLER[kind]]
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(root / tool), run_name='__main__')
        return int(left.value.code or 0)

    return run


def test_every_command_of_the_page_runs_and_leaves_the_data_alone(
    root: Path, data: Path, call: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    places = [data / name for name in ('my_pictures', 'my_boxes', 'my_masks')]

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for each in places for path in each.rglob('*') if path.is_file()}

    kept = content()
    lines = commands(root)
    assert len(lines) == 22
    for words in lines:
        # The doctor has something to say of so few pictures.
        codes = (0, 1) if words[1].endswith('check_data.py') else (0,)
        assert call(words) in codes, (words, capsys.readouterr().err)
    assert content() == kept
    for name, count in (('linear', 6), ('ssdlite', 3), ('deeplabv3', 3)):
        folder = data / f'work_dirs/{name}_folder'
        held_out = read_checkpoint(folder / 'best.pth')['split']['held_out']
        assert len(held_out) >= count - 1
        assert (folder / 'split.json').read_text().count('.png') == len(held_out)
        assert f'{len(held_out)} of' in (folder / 'train.log').read_text()
        assert 'this run is short for its data' in (folder / 'train.log').read_text()
    for name in ('checked', 'pictures', 'boxes', 'masks'):
        assert 'data:image/jpeg' in (data / f'{name}.html').read_text(encoding='utf-8')
    assert {path.name for path in (data / 'my_two_classes').iterdir()} == {'cold', 'red'}
    log = (data / 'work_dirs/longer/train.log').read_text()
    assert '--batch-size 16: the config has 12, so the learning rate is 0.00133333 instead of 0.001' in log
    assert 'a Falconet checkpoint, load_from=' in (data / 'work_dirs/again/train.log').read_text()
    assert 'YOLO: classes.txt, 12 label files' in (data / 'work_dirs/named/train.log').read_text()
