"""Fixtures: small picture folders and configs made on the spot, and the real data where it is at hand."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
# Real photographs, weights and known answers for development. A user does not have them.
REAL_DATA = Path(os.environ.get('FALCONET_TEST_DATA', ROOT.parent / 'shared' / 'data'))

os.environ.setdefault('FALCONET_DEBUG', '')
# One thread: tiny tensors gain nothing from more, and runs compared to the bit need the same number.
torch.set_num_threads(1)


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def fresh_process(root: Path) -> Callable[[str], str]:
    """Run code in a new interpreter that finds the project; return what it printed."""

    def run(code: str) -> str:
        lines = f'import sys; sys.path.insert(0, {str(root)!r})\n{textwrap.dedent(code)}'
        done = subprocess.run([sys.executable, '-c', lines], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope='session')
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return a folder by its name. One of the test processes fills it, for all; nobody changes it later."""
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent  # the processes' own folders lie in it

    def get(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = base / 'shared' / name, base / 'shared' / f'{name}.filled'
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f'{folder}.lock'):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return get


@pytest.fixture
def real_data() -> Path:
    """Folder of real data; the test is skipped without it."""
    if not REAL_DATA.is_dir():
        pytest.skip(f'no real data in {REAL_DATA} (set FALCONET_TEST_DATA)')
    return REAL_DATA


def picture(seed: int, hue: int, size: int = 40) -> np.ndarray:
    """A noisy patch of one hue, RGB uint8 (size, size, 3): easy to tell by colour."""
    rng = np.random.default_rng(seed)
    hsv = np.empty((size, size, 3), np.uint8)
    hsv[..., 0] = hue
    hsv[..., 1:] = rng.integers(120, 255, (size, size, 2))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def write_picture(path: Path, image: np.ndarray) -> Path:
    """Write an RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A class-per-folder data set of three hues: 8 training and 4 test pictures each."""
    base = tmp_path / 'data'
    for number, (name, hue) in enumerate({'blue': 110, 'green': 60, 'red': 0}.items()):
        for split, count in (('train', 8), ('test', 4)):
            for index in range(count):
                seed = 1000 * number + 100 * (split == 'test') + index
                write_picture(base / split / name / f'{index}.png', picture(seed, hue))
    return base


CONFIG = """
    data_root = {data!r}
    model = dict(backbone=dict(type='MobileNetV2', width=0.35), head=dict(type='LinearHead'))
    train_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(
        type='ImageFolder', split='train', augment=[
            dict(type='RandomResizedCrop', size=(32, 32), scale=(0.5, 1.0)),
            dict(type='HorizontalFlip', p=0.5)]))
    val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(
        type='ImageFolder', split='test', augment=[dict(type='ResizeCenterCrop', resize=36, crop=32)]))
    train_cfg = dict(max_epochs=2)
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9))
    param_scheduler = [dict(type='CosineAnnealingLR')]
"""


@pytest.fixture
def write_config(tmp_path: Path, folders: Path) -> Callable[..., Path]:
    """Write a tiny training config over `folders`, with extra lines, and return its path."""

    def write(extra: str = '', *, workers: int = 0) -> Path:
        text = textwrap.dedent(CONFIG).format(data=str(folders), workers=workers)
        path = tmp_path / 'tiny.py'
        path.write_text(text + textwrap.dedent(extra))
        return path

    return write


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """A detection set in COCO's format: squares of two hues on grey, 12 training and 4 test pictures.

    Categories 3 'red' and 7 'green', image identifiers with gaps, one picture without objects in each split,
    one crowd.
    """
    base = tmp_path / 'coco'
    (base / 'annotations').mkdir(parents=True)
    for split, count in (('train', 12), ('test', 4)):
        rng = np.random.default_rng(len(split))
        images, objects = [], []
        for index in range(count):
            image = np.full((60, 80, 3), 128, np.uint8)
            identifier = 5 + 4 * index
            images.append({'id': identifier, 'file_name': f'{index}.png', 'height': 60, 'width': 80})
            for kind in range(0 if index == 1 else 2):
                side = int(rng.integers(14, 26))
                x, y = int(rng.integers(0, 80 - side)), int(rng.integers(0, 60 - side))
                image[y : y + side, x : x + side] = (220, 40, 40) if kind == 0 else (40, 200, 60)
                objects.append(
                    {
                        'id': 100 + 3 * len(objects),
                        'image_id': identifier,
                        'category_id': (3, 7)[kind],
                        'bbox': [x, y, side, side],
                        'area': side * side,
                        'iscrowd': int(index == 2 and kind == 1),
                        'segmentation': [[x, y, x + side, y, x + side, y + side]],
                    }
                )
            write_picture(base / split / f'{index}.png', image)
        content = {
            'images': images,
            'annotations': objects,
            'categories': [{'id': 7, 'name': 'green'}, {'id': 3, 'name': 'red'}],
        }
        (base / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return base
