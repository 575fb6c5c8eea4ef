"""Every registered backbone keeps the contract of backbones/base.py."""

import inspect

import pytest
import torch

import falconet.backbones
from falconet.backbones import BACKBONES, Backbone
from falconet.core.options import check_options

assert falconet.backbones


@pytest.fixture(params=sorted(BACKBONES.module_dict))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.module_dict[request.param]().eval()


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (1, 1), (33, 224)])
def test_maps_have_the_promised_shapes(backbone: Backbone, size: tuple[int, int]) -> None:
    maps = backbone(torch.rand(2, 3, *size))
    assert len(maps) == len(backbone.channels) == len(backbone.strides)
    for tensor, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert tensor.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_what_weights_decide_and_what_is_wired_are_options_with_these_defaults(backbone: Backbone) -> None:
    options = inspect.signature(type(backbone)).parameters
    assert {name: options[name].default for name in backbone.wiring} == dict(backbone.wiring)
    assert {name: backbone.settled[name] for name in backbone.from_weights} == dict(backbone.from_weights)


def test_strides_are_finest_first(backbone: Backbone) -> None:
    assert list(backbone.strides) == sorted(backbone.strides)


def test_channels_last_input_gives_the_same_maps(backbone: Backbone) -> None:
    images = torch.rand(2, 3, 64, 64)
    plain = backbone(images)
    swapped = backbone.to(memory_format=torch.channels_last)(
        images.contiguous(memory_format=torch.channels_last)
    )
    for ours, theirs in zip(plain, swapped, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_every_parameter_receives_a_gradient(backbone: Backbone) -> None:
    maps = backbone.train()(torch.rand(2, 3, 64, 64))
    sum(tensor.square().mean() for tensor in maps).backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize('name', sorted(BACKBONES.module_dict))
def test_it_states_what_a_checkpoint_may_set_and_checks_it(name: str) -> None:
    """Only `pretrained`, which names a file or starts a download, is a config's alone."""
    backbone_class = BACKBONES.module_dict[name]
    parameters = inspect.signature(backbone_class).parameters
    assert set(backbone_class.option_values or ()) == set(parameters) - {'pretrained'}
    check_options(backbone_class.option_values, {key: each.default for key, each in parameters.items()})
    for option in backbone_class.option_values:
        with pytest.raises(ValueError, match=f'{option} must'):
            backbone_class(**{option: object()})
