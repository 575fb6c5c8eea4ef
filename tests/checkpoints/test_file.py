"""Checkpoints are plain, whole or absent, and refuse what is not theirs."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from falconet import load_model
from falconet.checkpoints.external_weights import load_weights
from falconet.checkpoints.file import describe, read_checkpoint, to_plain, write_checkpoint
from falconet.core.errors import UserError
from falconet.engine.train import train
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel


def small_model(classes: tuple[str, ...] = ('a', 'b')) -> VisionModel:
    torch.manual_seed(0)
    return VisionModel({'type': 'MobileNetV2', 'width': 0.35}, {'type': 'LinearHead'}, classes=classes)


def content_of(model: VisionModel) -> dict[str, Any]:
    return {
        'state_dict': model.state_dict(),
        'model': model.spec,
        'classes': list(model.classes),
        'preprocess': {'transforms': [{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}]},
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(content_of(small_model()), tmp_path / 'model.pth')
    return tmp_path / 'model.pth'


def test_a_checkpoint_rebuilds_its_model(checkpoint: Path) -> None:
    model, original = load_model(checkpoint), small_model().eval()
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(model(images), original(images))
    assert model.classes == ('a', 'b')
    assert not model.training


def test_normalisation_travels_in_the_checkpoint(tmp_path: Path) -> None:
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35}, {'type': 'LinearHead'}, classes=('a',), normalise='tensorflow'
    )
    write_checkpoint(content_of(model), tmp_path / 'model.pth')
    loaded = load_model(tmp_path / 'model.pth')
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    torch.testing.assert_close(loaded.normalise(pixels)[0, 0, 0], torch.tensor([-1.0, 1.0]))


def test_imagenet_normalisation_is_torchvisions() -> None:
    from torchvision.transforms.v2.functional import normalize

    images = torch.randint(0, 255, (2, 3, 8, 8), dtype=torch.uint8)
    expected = normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(small_model().normalise(images), expected)


def test_every_value_is_plain(write_config: Callable[..., Path], tmp_path: Path) -> None:
    """A whole training checkpoint opens with weights_only=True and holds nothing but plain values."""
    train(load_config(write_config('ema = dict(decay=0.9)')), work_dir=str(tmp_path / 'run'))
    content = torch.load(tmp_path / 'run/last.pth', weights_only=True)
    to_plain(content)
    assert content['preprocess']['transforms'] == [{'type': 'ResizeCenterCrop', 'resize': 36, 'crop': 32}]
    assert content['preprocess']['channel_order'] == 'RGB'
    assert content['classes'] == ['blue', 'green', 'red']
    assert content['versions']['torch'] == torch.__version__.split('+')[0] or content['versions']['torch']
    assert 'MobileNetV2' in content['config_text']


@pytest.mark.parametrize('value', [object(), {1, 2}, np.zeros(3), lambda: None])
def test_what_is_not_plain_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(TypeError, match=r'checkpoint\.training\.extra\[1\] is a'):
        to_plain({'training': {'extra': [1, value]}})


def test_numpy_scalars_become_numbers() -> None:
    plain = to_plain({'a': np.float64(1.5), 'b': (np.int64(2), Path('x'))})
    assert plain == {'a': 1.5, 'b': (2, 'x')}
    assert type(plain['a']) is float


def test_a_full_disk_keeps_the_earlier_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match=r'No space left on device.*the earlier one is kept'):
        write_checkpoint(content_of(small_model()), checkpoint)
    assert checkpoint.read_bytes() == before
    assert [each.name for each in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_a_disk_that_fills_up_while_writing_keeps_the_earlier_checkpoint(checkpoint: Path) -> None:
    """A real limit on the file's size, as the system enforces it."""
    resource = pytest.importorskip('resource')
    import signal

    before = checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(UserError, match='the earlier one is kept'):
            write_checkpoint(content_of(small_model()), checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoint.read_bytes() == before
    assert [each.name for each in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_a_checkpoints_names_are_never_imported(tmp_path: Path) -> None:
    content = content_of(small_model())
    content['model'] = {**content['model'], 'backbone': {'type': 'os.system', 'command': 'true'}}
    write_checkpoint(content, tmp_path / 'evil.pth')
    with pytest.raises(UserError, match=r"no backbone is called 'os\.system'"):
        load_model(tmp_path / 'evil.pth')


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda path: None, 'there is no checkpoint'),
        (lambda path: path.write_bytes(b''), r'not a .*weight file'),
        (lambda path: path.write_text('hello'), r'not a .*weight file'),
        (lambda path: torch.save({'features.0.0.weight': torch.zeros(1)}, path), 'no Falconet checkpoint'),
        (lambda path: torch.save([1, 2], path), 'no Falconet checkpoint'),
        (lambda path: torch.save({'x': object()}, path), 'refused'),
    ],
)
def test_what_is_no_checkpoint_is_said(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / 'x.pth')
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('share', [0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_said(checkpoint: Path, share: float) -> None:
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match='truncated'):
        load_model(checkpoint)


def test_weights_of_other_classes_are_refused_by_name(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r'has 2 classes, the data 3\..*Only in the data: c'):
        load_weights(small_model(('a', 'b', 'c')), checkpoint)
    with pytest.raises(UserError, match='their order does not'):
        load_weights(small_model(('b', 'a')), checkpoint)


def test_a_classifier_of_another_size_is_refused_with_shapes(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2(num_classes=5).state_dict(), tmp_path / 'five.pth')
    model = VisionModel({'type': 'MobileNetV2'}, {'type': 'LinearHead'}, classes=('a', 'b'))
    with pytest.raises(
        UserError, match=r'(?s)2-class.*head\.fc\.weight: file \(5, 1280\), model \(2, 1280\)'
    ):
        load_weights(model, tmp_path / 'five.pth')


def test_an_older_checkpoint_goes_on_filling_with_imagenets_mean(tmp_path: Path) -> None:
    """Until format 2 padding had that colour whatever the model's normalisation."""
    pad = {'type': 'ResizePad', 'size': 64}
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'taps': ('stage7',)},
        {'type': 'DeepLabV3Head'},
        classes=['background', 'thing'],
        normalise='tensorflow',
        preprocess=[pad],
    ).eval()
    assert model.preprocess[0]['fill'] != (124, 116, 104)
    config = {'val_dataloader': {'dataset': {'type': 'MaskFolder', 'augment': [pad]}}}
    content = {**describe(model, Config({})), 'config': config, 'state_dict': model.state_dict()}
    content['preprocess']['transforms'] = [pad]
    path = tmp_path / 'old.pth'
    torch.save({**content, 'format': 1}, path)
    assert load_model(path).preprocess[0]['fill'] == (124, 116, 104)
    augment = read_checkpoint(path)['config']['val_dataloader']['dataset']['augment']
    assert augment[0]['fill'] == (124, 116, 104)
    torch.save({**content, 'format': 2}, path)
    assert load_model(path).preprocess[0]['fill'] == model.preprocess[0]['fill']
