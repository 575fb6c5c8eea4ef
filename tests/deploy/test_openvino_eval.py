"""A checkpoint's network in OpenVINO says what torch says, is used only then, and is converted once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import falconet.deploy.openvino_eval
from falconet.deploy.openvino_eval import ENOUGH, QuickNetwork, quick_network, quicken
from falconet.deploy.parity import generated_pictures
from falconet.tasks.model import VisionModel

Models = Callable[..., VisionModel]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, empty."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(close(one[name], other[name]) for name in one)
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-4))


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_it_computes_what_the_model_computes(small_model: Models, task: str) -> None:
    model, said = small_model(task), []
    network = QuickNetwork(model, said.append)
    pictures = torch.from_numpy(generated_pictures((96, 96), count=21)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.infer(pictures)
        first, then = network(pictures[:2]), network(pictures)
    assert type(then) is type(expected)
    torch.testing.assert_close(first, model.infer(pictures[:2]), atol=0, rtol=0)  # the first is torch's own
    assert close(then, expected)
    (line,) = said
    assert line.startswith('engine: OpenVINO')


def test_it_is_converted_once_for_the_same_weights(
    small_model: Models, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    QuickNetwork(small_model('classification'), print)(pictures)
    (kept,) = cache.glob('falconet/network_*')
    written = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert set(written) == {'network.xml', 'network.bin'}
    QuickNetwork(small_model('classification'), print)(pictures)
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == written
    other = small_model('classification')
    with torch.no_grad():
        next(other.head.parameters()).add_(1)
    QuickNetwork(other, print)(pictures)
    assert len(list(cache.glob('falconet/network_*'))) == 2
    (kept / 'network.xml').write_text('damaged')
    said: list[str] = []
    QuickNetwork(small_model('classification'), said.append)(pictures)
    assert said[0].startswith('engine: OpenVINO')


def test_where_they_do_not_agree_torch_goes_on(small_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    real = falconet.deploy.openvino_eval._compile

    def wrong(*arguments: Any, **options: Any) -> Any:
        run = real(*arguments, **options)
        return lambda pictures: {name: each + 0.01 for name, each in run(pictures).items()}

    monkeypatch.setattr(falconet.deploy.openvino_eval, '_compile', wrong)
    model, said = small_model('classification'), []
    network = QuickNetwork(model, said.append)
    pictures = torch.from_numpy(generated_pictures((96, 96), count=2)).permute(0, 3, 1, 2)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(network(pictures), model.infer(pictures), atol=0, rtol=0)
    assert said == ['engine: torch; OpenVINO differs by 0.01 on the first 2 pictures']


def test_what_cannot_be_converted_is_computed_by_torch(
    small_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError('no such operator\nin detail')

    monkeypatch.setattr(falconet.deploy.openvino_eval, '_convert', broken)
    model, said = small_model('classification'), []
    pictures = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    with torch.no_grad():
        found = QuickNetwork(model, said.append)(pictures)
        torch.testing.assert_close(found, model.infer(pictures), atol=0, rtol=0)
    assert said == ['engine: torch (OpenVINO cannot take this network: no such operator)']


def test_pictures_of_several_sizes_are_computed_by_torch_without_a_word(small_model: Models) -> None:
    model, said = small_model('classification', preprocess={'type': 'HorizontalFlip', 'p': 0.0}), []
    network = QuickNetwork(model, said.append)
    with torch.no_grad():
        for side in (64, 96):
            pictures = torch.zeros(1, 3, side, side, dtype=torch.uint8)
            torch.testing.assert_close(network(pictures), model.infer(pictures), atol=0, rtol=0)
    assert said == []


def test_few_pictures_stay_with_torch(small_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model('classification')
    enough = ENOUGH * torch.get_num_threads()
    assert quick_network(model, enough - 1, print) is None
    assert quick_network(model, enough, print) is not None
    own = model.predictor.network
    quicken(model, enough - 1, print)
    assert model.predictor.network == own
    quicken(model, None, print)
    assert isinstance(model.predictor.network, QuickNetwork)
    monkeypatch.setattr(falconet.deploy.openvino_eval.importlib.util, 'find_spec', lambda _: None)
    assert quick_network(model, enough, print) is None
