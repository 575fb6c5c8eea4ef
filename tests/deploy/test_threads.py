"""Programs answer several threads of one process at a time, each with its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from falconet.deploy.engines import ExportedModel
from falconet.deploy.openvino_eval import QuickNetwork
from falconet.deploy.parity import generated_pictures
from falconet.tasks.model import VisionModel


def test_a_checkpoints_network_in_openvino_does(
    small_model: Callable[..., VisionModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    network = QuickNetwork(small_model('classification'), print)
    batches = torch.from_numpy(generated_pictures((96, 96), count=40)).permute(0, 3, 1, 2).split(5)

    def answer(place: int) -> Tensor:
        with torch.no_grad():
            return network(batches[place % len(batches)])

    answer(0)  # the first one chooses the engine
    assert network._run is not None
    alone = [answer(place) for place in range(len(batches))]
    with ThreadPoolExecutor(8) as pool:
        for place, found in enumerate(pool.map(answer, range(80))):
            torch.testing.assert_close(found, alone[place % len(batches)], atol=1e-6, rtol=0)


@pytest.mark.parametrize('ending', ['.onnx', '.xml', '.pt2'])
def test_an_exported_file_does(exported: Callable[[str, str], Path], ending: str) -> None:
    model = ExportedModel(exported('classification', 'symmetric') / f'best{ending}')
    pictures = list(generated_pictures((96, 96), count=8))
    alone = [model.predict(picture).scores for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        for place, found in enumerate(pool.map(model.predict, pictures * 10)):
            np.testing.assert_allclose(found.scores, alone[place % len(pictures)], atol=1e-6)
