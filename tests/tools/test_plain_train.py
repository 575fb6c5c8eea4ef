"""The open loop trains as the runner does, and what it writes predicts."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.hooks import Hook

from falconet import load_config, load_model, train


class Losses(Hook):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.values.append(float(outputs['loss'].detach()))


def test_its_steps_are_the_runners(write_config: Callable[..., Path], root: Path, tmp_path: Path) -> None:
    config = write_config('amp = "off"\ntrain_cfg = dict(max_epochs=2)')
    noted = Losses()
    train(load_config(config), work_dir=str(tmp_path / 'run'), kernels='torch', hooks=[noted])
    tool = runpy.run_path(str(root / 'tools/plain_train.py'))
    loaded = load_config(config)
    plain = [float(losses['loss'].detach()) for losses in tool['steps'](loaded, *tool['build'](loaded))]
    assert len(plain) == len(noted.values) > 2
    assert plain[:2] == pytest.approx(noted.values[:2], rel=1e-5)
    assert len({round(value, 4) for value in plain}) == len(plain)


def test_its_checkpoint_predicts(
    write_config: Callable[..., Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write_config('train_cfg = dict(max_epochs=1)'), tmp_path / 'plain.pth'
    monkeypatch.setattr(sys, 'argv', ['plain_train.py', str(config), '--out', str(out)])
    runpy.run_path(str(root / 'tools/plain_train.py'))['main']()
    result = load_model(out).predict(np.zeros((40, 40, 3), np.uint8))
    assert result.class_names == ('blue', 'green', 'red')


def test_it_is_short_enough_to_be_read_at_once(root: Path) -> None:
    assert len((root / 'tools/plain_train.py').read_text().splitlines()) <= 80
