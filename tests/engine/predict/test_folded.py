"""A network with its norms folded says what it said before, and the one it was made of stays as it was."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from falconet.engine.predict import folded as module
from falconet.engine.predict.folded import folded
from falconet.tasks.model import VisionModel

PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'classification': ({}, {'type': 'LinearHead'}),
    'detection': ({'taps': ('stage6_expand', 'last'), 'padding': 'same'}, {'type': 'SSDLiteHead'}),
    'segmentation': ({'taps': ('stage7',)}, {'type': 'DeepLabV3Head', 'aspp': True, 'hidden_channels': 16}),
}


def make_model(task: str) -> VisionModel:
    """A network whose norms have seen something."""
    torch.manual_seed(0)
    backbone, head = PARTS[task]
    model = VisionModel({'type': 'MobileNetV2', 'width': 0.35, **backbone}, head, classes=('cat', 'dog'))
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias, std=0.3)
            each.running_mean.normal_(std=0.3)
            each.running_var.uniform_(0.5, 2)
    return model.eval()


def tensors(outputs: Any) -> Iterator[torch.Tensor]:
    yield from outputs.values() if isinstance(outputs, dict) else [outputs]


def layers(model: nn.Module, *kinds: type) -> int:
    return sum(type(each) in kinds for each in model.modules())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (2, 3, 75, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize('operator', [True, False])
@pytest.mark.parametrize('task', PARTS)
def test_it_says_the_same(
    task: str, operator: bool, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, '_has_operator', lambda: operator)
    model = make_model(task)
    state = {name: each.clone() for name, each in model.state_dict().items()}
    with torch.inference_mode():
        expected = model.infer(images)
        quick = folded(model)
        found = quick.infer(images)
        again = model.infer(images)
    for one, other, own in zip(tensors(expected), tensors(found), tensors(again), strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
        torch.testing.assert_close(one, own, atol=0, rtol=0)
    assert layers(quick, *module.NORMS) == 0
    assert (layers(quick, nn.ReLU6, nn.ReLU) == 0) is operator
    assert layers(model, *module.NORMS) > 40
    torch.testing.assert_close(dict(model.state_dict()), state, atol=0, rtol=0)
    assert quick.predictor.network == quick.infer
    assert quick.predictor.head is quick.head


def test_the_operator_is_there_and_one_that_errs_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    find = module._has_operator.__wrapped__
    assert find()
    real = module._clamped
    monkeypatch.setattr(module, '_clamped', lambda *arguments: real(*arguments) + 0.01)
    assert not find()
    monkeypatch.delattr(torch.ops.mkldnn, '_convolution_pointwise')
    monkeypatch.setattr(module, '_clamped', real)
    monkeypatch.setattr(type(torch.ops.mkldnn), '__getattr__', missing)
    assert not find()


def missing(owner: Any, name: str) -> None:
    raise AttributeError(name)


def test_what_is_more_than_a_norm_or_no_neighbour_stays(images: torch.Tensor) -> None:
    class NormAndClamp(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return super().forward(input).clamp(min=0)

    block = nn.Sequential(
        nn.Conv2d(3, 4, 3), NormAndClamp(4), nn.ReLU6(), nn.Conv2d(4, 4, 1), nn.Dropout(), nn.BatchNorm2d(4)
    ).eval()
    expected = block(images.float())
    module._fold(block)
    assert [type(each) for each in block][1::2] == [NormAndClamp, nn.Conv2d, nn.BatchNorm2d]
    torch.testing.assert_close(block(images.float()), expected, atol=0, rtol=0)
