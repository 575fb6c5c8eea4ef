"""A run goes on with the kernels it began with, or says that it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falconet.checkpoints.file import read_checkpoint, write_checkpoint
from falconet.engine.train import train
from falconet.layers.fast.fused import can_fuse, is_fused
from falconet.tasks.build import load_config

WriteConfig = Callable[..., Path]
pytestmark = pytest.mark.skipif(not can_fuse(), reason='needs Numba')


def weights(path: Path) -> list[torch.Tensor]:
    return list(read_checkpoint(path)['state_dict'].values())


def test_a_run_that_began_with_torchs_kernels_goes_on_with_them_bit_by_bit(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config('train_cfg = dict(max_epochs=2)')
    for name, kernels in (('torch', 'torch'), ('fused', None)):
        train(load_config(config), work_dir=str(tmp_path / name), kernels=kernels)
        assert not is_fused()
    assert any(
        not torch.equal(*pair)
        for pair in zip(
            weights(tmp_path / 'torch/last.pth'), weights(tmp_path / 'fused/last.pth'), strict=True
        )
    )
    part = tmp_path / 'part/last.pth'
    train(load_config(config, ['train_cfg.max_epochs=1']), work_dir=str(part.parent), kernels='torch')
    content = read_checkpoint(part)
    del content['training']['hooks']['ThreadsHook']['fused']  # as runs from before there was a choice
    write_checkpoint(content, part)
    train(load_config(config), work_dir=str(part.parent), resume=True)
    log = (part.parent / 'train.log').read_text()
    assert "goes on with the kernels it began with, torch's" in log
    assert 'last bits' not in log


def test_other_kernels_than_before_are_said(write_config: WriteConfig, tmp_path: Path) -> None:
    config = load_config(write_config('train_cfg = dict(max_epochs=1)'))
    train(config, work_dir=str(tmp_path / 'run'))
    train(config, work_dir=str(tmp_path / 'run'), resume=True, kernels='torch')
    log = (tmp_path / 'run/train.log').read_text()
    assert 'kernels: norms and activations fused' in log
    assert "this run began with fused norms and activations and goes on with torch's kernels: results" in log


def test_without_numba_a_fused_run_says_what_it_lacks(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(write_config('train_cfg = dict(max_epochs=1)'))
    train(config, work_dir=str(tmp_path / 'run'))
    for module in ('falconet.layers.fast.fused', 'falconet.engine.train'):
        monkeypatch.setattr(f'{module}.can_fuse', lambda: False)
    train(config, work_dir=str(tmp_path / 'run'), resume=True)
    log = (tmp_path / 'run/train.log').read_text()
    assert "kernels: torch's (pip install -e '.[fast]' makes training on a CPU faster)" in log
    assert (
        "goes on with torch's kernels (fusing needs Numba: pip install -e '.[fast]'): results change" in log
    )
