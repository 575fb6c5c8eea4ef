"""A checkpoint cannot ask for more memory than it brings."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from falconet import load_model
from falconet.checkpoints.file import describe, write_checkpoint
from falconet.core.errors import UserError
from falconet.tasks.model import VisionModel

WEIGHT = 'head.fc.weight'


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """What a checkpoint of a small model holds."""
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.1},
        {'type': 'LinearHead'},
        classes=('a', 'b'),
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
    )
    description = describe(model, Config({'model': model.spec}))
    write_checkpoint(
        {**description, 'state_dict': model.state_dict(), 'metrics': {}, 'epoch': 1, 'iter': 3},
        tmp_path / 'x.pth',
    )
    return torch.load(tmp_path / 'x.pth', weights_only=True)


def test_a_description_of_a_large_network_costs_no_memory(content: dict[str, Any], tmp_path: Path) -> None:
    """Width 8 and 100,000 classes take 1.6 GB; the weights beside them are of a small network."""
    content['model']['backbone']['width'] = 8
    content['classes'] = [str(number) for number in range(100_000)]
    torch.save(content, tmp_path / 'x.pth')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match='its weights do not fit its own model'):
        load_model(tmp_path / 'x.pth')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def repeated(state: dict[str, torch.Tensor]) -> None:
    for name, value in state.items():
        state[name] = torch.zeros((), dtype=value.dtype).expand(value.shape)


def views_of_one(state: dict[str, torch.Tensor]) -> None:
    one = torch.zeros(max(value.numel() for value in state.values()))
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = one[: value.numel()].view(value.shape)


@pytest.mark.parametrize('change', [repeated, views_of_one])
def test_a_few_bytes_that_stand_for_many_are_refused(
    content: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    change(content['state_dict'])
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'its weights are [\d,]+ bytes that stand for [\d,]+'):
        load_model(tmp_path / 'x.pth')


@pytest.mark.parametrize(
    'odd',
    [
        lambda value: value.to('meta'),
        lambda value: value.to_sparse(),
        lambda value: value.to_sparse_csr(),
    ],
)
@pytest.mark.filterwarnings('ignore:Sparse')
def test_what_is_no_plain_tensor_is_refused(
    content: dict[str, Any], tmp_path: Path, odd: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    content['state_dict'][WEIGHT] = odd(content['state_dict'][WEIGHT])
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'x\.pth'):
        load_model(tmp_path / 'x.pth')


def test_weights_of_half_the_bits_load(content: dict[str, Any], tmp_path: Path) -> None:
    state = content['state_dict']
    content['state_dict'] = {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    }
    torch.save(content, tmp_path / 'x.pth')
    loaded = load_model(tmp_path / 'x.pth').state_dict()
    assert loaded[WEIGHT].dtype == torch.float32
    assert torch.allclose(loaded[WEIGHT], state[WEIGHT], atol=1e-3)
