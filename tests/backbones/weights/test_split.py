"""Weights in every layout give the network of the library they come from; every conversion goes back."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from falconet.backbones import MobileNetV2
from falconet.backbones.table2 import make_divisible
from falconet.backbones.weights.files import read_weight_file, write_h5
from falconet.backbones.weights.layouts import LAYOUTS, TENSORFLOW_BORN
from falconet.backbones.weights.load import read_weights
from falconet.backbones.weights.published import NAMED
from falconet.backbones.weights.recognise import describe_shape
from falconet.backbones.weights.split import (
    SplitWeights,
    averaged,
    drop_background,
    join_weights,
    split_weights,
    with_counters,
)

PAPER_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


def shake(model: nn.Module) -> nn.Module:
    """Give every tensor a value of its own, as training does; logits stay of the order of 1."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            module.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias)
    return model.eval()


@torch.no_grad()
def logits(weights: SplitWeights, images: Tensor) -> Tensor:
    """What our network computes with weights of any layout."""
    assert weights.facts is not None
    backbone = MobileNetV2(**describe_shape(weights.backbone), **weights.facts.options)
    backbone.load_state_dict(with_counters(weights.backbone))
    features = backbone.eval()(images)[0].mean((2, 3))
    return features @ weights.classifier['weight'].T + weights.classifier['bias']


@torch.no_grad()
def assert_same_network(theirs: nn.Module, layout: str, size: tuple[int, int] = (96, 64)) -> None:
    weights = split_weights(theirs.state_dict(), source='theirs')
    assert weights.layout == layout
    assert not weights.missing
    assert not weights.rest
    images = torch.rand(2, 3, *size)
    expected = theirs(images)
    expected = getattr(expected, 'logits', expected)
    assert expected.std() > 0.1  # or the comparison would say nothing
    assert (logits(weights, images) - expected).abs().max() < 1e-4
    assert_round_trip(theirs.state_dict(), layout)


def assert_round_trip(state: dict[str, Tensor], layout: str) -> None:
    """Through every other layout and back, each tensor is the same to the bit."""
    weights = split_weights(state, source='first')
    for name, other in LAYOUTS.items():
        there = split_weights(join_weights(weights, name), source=name)
        assert there.layout == name
        back = join_weights(there, layout)
        counters = {key for key in state if key.endswith('num_batches_tracked')}
        lost = counters if other.stored != 'torch' else set()
        assert set(back) == set(state) - lost
        assert all(torch.equal(back[key], state[key]) for key in back)


@pytest.mark.parametrize('width', PAPER_WIDTHS)
def test_torchvisions_network(width: float) -> None:
    assert_same_network(shake(torchvision.models.mobilenet_v2(width_mult=width)), 'torchvision')


@pytest.mark.parametrize('name', ['035', '050', '075', '100', '140', '110d', '120d'])
def test_timms_network(name: str) -> None:
    assert_same_network(shake(timm.create_model(f'mobilenetv2_{name}')), 'timm')


class FlatNetwork(nn.Module):
    """The modules of tonylins/pytorch-mobilenet-v2 and d-li14/mobilenetv2.pytorch, as their keys are."""

    def __init__(self, width: float, *, divisor: int = 8, last_inside: bool) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
            return [layer, nn.BatchNorm2d(outputs), nn.ReLU6()]

        class Block(nn.Module):
            def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
                super().__init__()
                inner = inputs * expansion
                expand = conv(inputs, inner, 1, 1) if expansion > 1 else []
                project = conv(inner, outputs, 1, 1)[:2]
                self.conv = nn.Sequential(*expand, *conv(inner, inner, 3, stride, inner), *project)
                self.identity = stride == 1 and inputs == outputs

            def forward(self, images: Tensor) -> Tensor:
                return images + self.conv(images) if self.identity else self.conv(images)

        channels = make_divisible(32 * width, divisor)
        layers: list[nn.Module] = [nn.Sequential(*conv(3, channels, 3, 2))]
        rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
        for expansion, row_channels, blocks, stride in (*rows, (6, 320, 1, 1)):
            outputs = make_divisible(row_channels * width, divisor)
            for block in range(blocks):
                layers.append(Block(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        last = nn.Sequential(*conv(channels, max(1280, make_divisible(1280 * width)), 1, 1))
        self.features = nn.Sequential(*layers, *([last] if last_inside else []))
        if not last_inside:
            self.conv = last
        self.classifier = nn.Linear(max(1280, make_divisible(1280 * width)), 1000)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        maps = self.conv(maps) if hasattr(self, 'conv') else maps
        return self.classifier(maps.mean((2, 3)))


@pytest.mark.parametrize('width', [0.1, 0.25, 0.35, 0.5, 0.75, 1.0])
def test_d_li14s_network(width: float) -> None:
    theirs = shake(FlatNetwork(width, divisor=4 if width == 0.1 else 8, last_inside=False))
    assert 'conv.0.weight' in theirs.state_dict()
    assert_same_network(theirs, 'd-li14')
    options = next(
        each.options
        for name, each in NAMED.items()
        if name.startswith('d-li14') and each.options['width'] == width
    )
    assert describe_shape(split_weights(theirs.state_dict(), source='').backbone) == options


def test_d_li14s_parameter_counts() -> None:
    """The README of the repository gives them in millions: 0.1 needs channels in multiples of 4."""
    printed = {1.0: 3.504, 0.75: 2.636, 0.5: 1.968, 0.35: 1.677, 0.25: 1.519, 0.1: 1.356}
    for width, millions in printed.items():
        with torch.device('meta'):
            model = FlatNetwork(width, divisor=4 if width == 0.1 else 8, last_inside=False)
        count = sum(each.numel() for each in model.parameters())
        assert int(count / 1000) / 1000 == millions


def test_tonylins_network() -> None:
    theirs = shake(FlatNetwork(1.0, last_inside=True))
    assert 'features.18.0.weight' in theirs.state_dict()
    assert_same_network(theirs, 'tonylins')


@pytest.mark.parametrize(
    'width',
    [0.35, 1.0, pytest.param(0.75, marks=pytest.mark.slow), pytest.param(1.4, marks=pytest.mark.slow)],
)
def test_transformers_network(width: float) -> None:
    transformers = pytest.importorskip('transformers', reason="pip install -e '.[parity]'")
    config = transformers.MobileNetV2Config(depth_multiplier=width, num_labels=1001)
    model = shake(transformers.MobileNetV2ForImageClassification(config))
    for size in ((96, 64), (65, 97)):
        assert_same_network(model, 'transformers', size)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Keras 3 on its PyTorch backend, which spares installing TensorFlow."""
    monkeypatch.setenv('KERAS_BACKEND', 'torch')
    return pytest.importorskip('keras', reason="pip install -e '.[parity]'")


def keras_model(keras: ModuleType, width: float, side: int) -> object:
    model = keras.applications.MobileNetV2((side, side, 3), width, weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    ranges = {
        'gamma': (0.5, 1.5),
        'beta': (-0.3, 0.3),
        'moving_mean': (-0.3, 0.3),
        'moving_variance': (0.5, 1.5),
    }
    for variable in model.weights:
        if variable.name in ranges:
            variable.assign(rng.uniform(*ranges[variable.name], variable.shape).astype('float32'))
        elif 'predictions' in variable.path:
            variable.assign(rng.normal(0, 0.1, variable.shape).astype('float32'))
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::UserWarning')
@pytest.mark.parametrize('width', PAPER_WIDTHS)
def test_keras_network(keras: ModuleType, tmp_path: Path, width: float) -> None:
    side = 96 if width != 1.0 else 97  # an odd side too: padding differs there
    model = keras_model(keras, width, side)
    images = np.random.default_rng(1).uniform(-1, 1, (2, side, side, 3)).astype('float32')
    expected = torch.as_tensor(np.asarray(model(images).detach()))  # type: ignore[operator]
    assert expected.std() > 0.1
    writers: dict[str, Callable[[Path], None]] = {
        'whole.h5': model.save,  # type: ignore[attr-defined]
        'new.weights.h5': model.save_weights,  # type: ignore[attr-defined]
    }
    for name, write in writers.items():
        write(tmp_path / name)
        weights = read_weights(str(tmp_path / name))
        assert weights.layout == 'keras'
        assert not weights.missing
        ours = logits(weights, torch.from_numpy(images).permute(0, 3, 1, 2))
        assert (ours - expected).abs().max() < 1e-4, name
    # What we write is what Keras reads.
    write_h5(join_weights(weights, 'keras'), tmp_path / 'ours.h5')
    again = keras.applications.MobileNetV2((side, side, 3), width, weights=None, classifier_activation=None)
    again.load_weights(tmp_path / 'ours.h5', by_name=True)
    np.testing.assert_allclose(np.asarray(again(images).detach()), expected, atol=1e-4)


def random_weights(width: float = 0.35, classes: int = 5) -> SplitWeights:
    model = shake(torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width))
    return split_weights(model.state_dict(), source='random')


def test_slims_names_are_those_of_a_real_checkpoint(real_data: Path) -> None:
    """The Object Detection API's variables: slim's network under one more prefix."""
    state, facts = read_weight_file(real_data / 'weights/ssdlite_mobilenetv2_person_tf_variables.npz')
    weights = split_weights(state, source='person')
    assert (weights.layout, facts, weights.facts) == ('object_detection', None, TENSORFLOW_BORN)
    assert not weights.missing
    assert describe_shape(weights.backbone) == {'width': 1.0}
    backbone = MobileNetV2(pretrained=str(real_data / 'weights/ssdlite_mobilenetv2_person_tf_variables.npz'))
    assert backbone.settled == {'padding': 'same', 'norm_eps': 1e-3}
    assert {key for key in backbone.load_report.new if 'num_batches' not in key} == set()
    assert all(key.startswith(('BoxPredictor', 'layer_19')) for key in weights.rest)


def test_slims_moving_averages_are_taken_where_there_are_any() -> None:
    state = join_weights(random_weights(), 'slim')
    doubled = {
        f'{key}/ExponentialMovingAverage': value * 2 for key, value in state.items() if 'moving' not in key
    }
    taken = averaged({**state, **doubled})
    assert set(taken) == set(state)
    for key, value in state.items():
        assert torch.equal(taken[key], value if 'moving' in key else value * 2)


def test_the_background_is_the_first_class() -> None:
    classifier = {'weight': torch.arange(6.0).view(3, 2), 'bias': torch.arange(3.0)}
    kept = drop_background(classifier)
    assert kept['weight'].tolist() == [[2, 3], [4, 5]]
    assert kept['bias'].tolist() == [1, 2]
