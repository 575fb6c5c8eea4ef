"""MobileNetV2 is the paper's network, torchvision's network, and TensorFlow's where asked."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2

from falconet.backbones import MobileNetV2
from falconet.backbones.mobilenetv2 import SHORTCUTS, InvertedResidual
from falconet.backbones.table2 import OUTPUT_STRIDES, TAP_NAMES, make_divisible, plan_network

# Parameters with a 1000-class linear layer, counted on an independent build of the network.
PARAMETERS = {
    1.0: 3_504_872,
    0.75: 2_636_424,
    0.5: 1_968_680,
    0.35: 1_677_128,
    1.3: 5_386_792,
    1.4: 6_108_776,
}
# (width, resolution) -> multiply-adds with a 1000-class linear layer: slim's table of 22 networks.
MULTIPLY_ADDS = {
    (1.4, 224): 582_195_824,
    (1.3, 224): 509_374_560,
    (1.0, 224): 300_774_272,
    (1.0, 192): 221_316_608,
    (1.0, 160): 154_083_200,
    (1.0, 128): 99_074_048,
    (1.0, 96): 56_289_152,
    (0.75, 224): 209_069_792,
    (0.75, 192): 153_941_888,
    (0.75, 160): 107_295_200,
    (0.75, 128): 69_129_728,
    (0.75, 96): 39_445_472,
    (0.5, 224): 97_131_840,
    (0.5, 192): 71_701_760,
    (0.5, 160): 50_184_000,
    (0.5, 128): 32_578_560,
    (0.5, 96): 18_885_440,
    (0.35, 224): 59_285_808,
    (0.35, 192): 43_896_512,
    (0.35, 160): 30_874_800,
    (0.35, 128): 20_220_672,
    (0.35, 96): 11_934_128,
}


class Classifier(nn.Module):
    """The paper's whole network: backbone, average pooling, linear layer."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.backbone = MobileNetV2(width=width)
        self.fc = nn.Linear(self.backbone.channels[0], 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.backbone(images)[0].mean((2, 3)))


@pytest.mark.parametrize('width', PARAMETERS)
def test_parameters_are_the_counted_ones(width: float) -> None:
    with torch.device('meta'):
        model = Classifier(width)
    assert sum(each.numel() for each in model.parameters()) == PARAMETERS[width]


@pytest.mark.parametrize(('width', 'resolution'), MULTIPLY_ADDS)
def test_multiply_adds_are_the_counted_ones(width: float, resolution: int) -> None:
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        Classifier(width).eval()(torch.empty(1, 3, resolution, resolution))
    assert counter.get_total_flops() == 2 * MULTIPLY_ADDS[width, resolution]


@pytest.fixture(scope='module')
def theirs() -> nn.Module:
    """torchvision's network with statistics that are not those of a fresh one."""
    torch.manual_seed(1)
    model = mobilenet_v2()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.3, 0.3)
    return model.eval()


@pytest.mark.parametrize('size', [(224, 224), (97, 65)])
def test_every_tap_equals_torchvision(theirs: nn.Module, size: tuple[int, int]) -> None:
    ours = MobileNetV2(taps=TAP_NAMES).eval()
    ours.load_state_dict(theirs.features.state_dict(prefix='features.'))
    images = torch.rand(2, 3, *size)
    expected = {}
    tensor = images
    ends = {0: 'stem', 1: 'stage1', 3: 'stage2', 6: 'stage3', 10: 'stage4', 13: 'stage5', 16: 'stage6'}
    ends |= {17: 'stage7', 18: 'last'}
    starts = {2: 2, 4: 3, 7: 4, 11: 5, 14: 6, 17: 7}
    with torch.no_grad():
        for index, layer in enumerate(theirs.features):
            if index in starts:
                expected[f'stage{starts[index]}_expand'] = layer.conv[0](tensor)
            tensor = layer(tensor)
            if index in ends:
                expected[ends[index]] = tensor
        maps = ours(images)
    assert set(expected) == set(TAP_NAMES)
    for name, tensor in zip(TAP_NAMES, maps, strict=True):
        assert (tensor - expected[name]).abs().max() < 1e-5, name


def test_state_dict_has_torchvisions_keys() -> None:
    ours = set(MobileNetV2().state_dict())
    assert ours == {key for key in mobilenet_v2().state_dict() if key.startswith('features.')}


@pytest.mark.parametrize(
    ('taps', 'channels', 'strides'),
    [
        (('last',), (1280,), (32,)),
        (('stage6_expand', 'last'), (576, 1280), (16, 32)),
        (('stage7',), (320,), (32,)),
        (
            ('stage1', 'stage2', 'stage3', 'stage4', 'stage5', 'stage6', 'stage7'),
            (16, 24, 32, 64, 96, 160, 320),
            (2, 4, 8, 16, 16, 32, 32),
        ),
    ],
)
def test_taps_have_table_2s_channels(taps: tuple, channels: tuple, strides: tuple) -> None:
    with torch.device('meta'):
        backbone = MobileNetV2(taps=taps)
    assert (backbone.channels, backbone.strides) == (channels, strides)


@pytest.mark.parametrize('output_stride', OUTPUT_STRIDES)
@pytest.mark.parametrize('options', [{}, {'width': 0.35, 'depth': 1.4}, {'taps': ('stem', 'stage6')}])
def test_the_layers_are_those_of_the_plan(options: dict, output_stride: int) -> None:
    layers, _ = plan_network(**options, output_stride=output_stride)
    tensor = torch.rand(1, 3, 64, 64)
    for planned, built in zip(
        layers, MobileNetV2(**options, output_stride=output_stride).features, strict=True
    ):
        made = built(tensor)
        assert (tensor.shape[1], made.shape[1]) == (planned.in_channels, planned.out_channels)
        assert tensor.shape[2] // made.shape[2] == planned.stride
        convolutions = [each for each in built.modules() if isinstance(each, nn.Conv2d)]
        assert max(each.dilation[0] for each in convolutions) == planned.dilation
        assert max(each.in_channels for each in convolutions) == planned.in_channels * planned.expansion
        tensor = made


@pytest.mark.parametrize('tap', TAP_NAMES)
def test_layers_above_the_highest_tap_are_not_built(tap: str) -> None:
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, taps=(tap,))
    (tensor,) = backbone.train()(torch.rand(2, 3, 64, 64))
    tensor.square().mean().backward()
    assert all(each.grad is not None for each in backbone.parameters())


def depthwise(backbone: MobileNetV2) -> list[tuple[int, int]]:
    """(stride, dilation) of the depthwise convolutions from stage 2 on, in order."""
    return [
        (module.stride[0], module.dilation[0])
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ][1:]


def test_dilation_follows_tensorflows_rule() -> None:
    """The layer that would have strided keeps the rate so far; the layers after it multiply theirs by 2."""
    plain = [(2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (2, 1), *[(1, 1)] * 6, (2, 1), *[(1, 1)] * 3]
    os16 = [*plain[:12], (1, 1), *[(1, 2)] * 3]
    os8 = [*plain[:5], (1, 1), *[(1, 2)] * 6, (1, 2), *[(1, 4)] * 3]
    with torch.device('meta'):
        assert depthwise(MobileNetV2(output_stride=32)) == plain
        assert depthwise(MobileNetV2(output_stride=16)) == os16
        assert depthwise(MobileNetV2(output_stride=8)) == os8


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
def test_dilated_map_holds_the_strided_one(padding: str) -> None:
    """Up to the first dilated layer a finer output stride computes the coarse values and those between."""
    torch.manual_seed(0)
    taps = ('stage5', 'stage6_expand')
    coarse = MobileNetV2(width=0.35, taps=taps, padding=padding).eval()
    fine = MobileNetV2(width=0.35, taps=taps, padding=padding, output_stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    assert coarse.strides == (16, 16)
    assert fine.strides == (8, 8)
    # A dilated layer sees the same neighbours at every second place, so the maps agree there exactly;
    # the borders differ, because padding reaches further.
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        small, large = coarse(images)[0], fine(images)[0]
    assert large.shape[-1] == 2 * small.shape[-1]
    # TensorFlow's stride starts at the second row of an even map, PyTorch's at the first.
    offset = 1 if padding == 'same' else 0
    torch.testing.assert_close(
        large[..., offset::2, offset::2][..., 2:-2, 2:-2], small[..., 2:-2, 2:-2], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize(('output_stride', 'layer'), [(16, 14), (8, 7)])
def test_the_layer_that_keeps_its_resolution_computes_the_strided_values_and_those_between(
    padding: str, output_stride: int, layer: int
) -> None:
    """Before the first dilated layer the maps agree exactly where both have a value, borders included."""
    torch.manual_seed(0)
    coarse = MobileNetV2(width=0.35, padding=padding).eval().features[: layer + 1]
    fine = MobileNetV2(width=0.35, padding=padding, output_stride=output_stride).eval().features[: layer + 1]
    fine.load_state_dict(coarse.state_dict())
    images = torch.rand(1, 3, 97, 129)  # n * 32 + 1: every stride begins at the first pixel
    with torch.no_grad():
        small, large = coarse(images), fine(images)
    assert large.shape[2] == 2 * small.shape[2] - 1
    torch.testing.assert_close(large[..., ::2, ::2], small, atol=1e-5, rtol=1e-4)


def test_channels_are_rounded_to_the_divisor() -> None:
    """TensorFlow's deeplab of width 0.5 has 12 channels in stage 2."""
    taps = ('stage2', 'stage3', 'stage7')
    with torch.device('meta'):
        assert MobileNetV2(width=0.5, taps=taps).channels == (16, 16, 160)
        assert MobileNetV2(width=0.5, taps=taps, channel_divisor=1).channels == (12, 16, 160)


def test_width_below_one_keeps_the_last_layer() -> None:
    with torch.device('meta'):
        assert MobileNetV2(width=0.5).channels == (1280,)
        assert MobileNetV2(width=0.5, last_channels=640).channels == (640,)
        assert MobileNetV2(width=1.4).channels == (1792,)


@pytest.mark.parametrize('value', [1, 8, 11.2, 12, 19.9, 24 * 1.4, 100.5])
def test_rounded_channels_are_multiples_of_8_and_at_least_90_percent(value: float) -> None:
    rounded = make_divisible(value)
    assert rounded % 8 == 0
    assert rounded >= 0.9 * value
    assert rounded <= max(8, value + 8)


def test_frozen_stages_do_not_change_in_training() -> None:
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, frozen_stages=3)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in backbone.parameters() if p.requires_grad), lr=0.1)
    backbone.train()(torch.rand(4, 3, 64, 64))[0].square().mean().backward()
    optimizer.step()
    changed = {
        int(key.split('.')[1]) for key, value in backbone.state_dict().items() if (value != before[key]).any()
    }
    assert changed == set(range(7, 19))  # features 0 to 6 are the stem and stages 1 to 3


def test_norm_settings_reach_every_norm() -> None:
    backbone = MobileNetV2(width=0.35, norm_eps=1e-3, norm_momentum=0.003)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.003)}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'taps': ('stage9',)}, 'unknown taps'),
        ({'taps': ('stage1_expand',)}, 'unknown taps'),
        ({'taps': ()}, 'empty'),
        ({'taps': 'last'}, 'sequence of names'),
        ({'taps': ('last', 'stage6_expand')}, r"finest first: \('stage6_expand', 'last'\)"),
        ({'output_stride': 4}, 'output_stride'),
        ({'padding': 'valid'}, 'padding'),
        ({'width': 0}, 'width'),
        ({'channel_divisor': 0}, 'channel_divisor'),
        ({'frozen_stages': 9}, 'frozen_stages'),
    ],
)
def test_a_wrong_option_is_explained(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MobileNetV2(**options)


def test_a_relu_bottleneck_is_never_negative_and_the_papers_is() -> None:
    """Figure 6a."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    taps = ('stage1', 'stage4')
    for linear in (True, False):
        maps = MobileNetV2(width=0.35, taps=taps, linear_bottleneck=linear, shortcut='none')(images)
        assert all(bool((tensor < 0).any()) == linear for tensor in maps)


def test_shortcuts_join_what_they_are_named_after() -> None:
    """Figure 6b, on one block whose convolutions and norms give zero or pass on what they get."""
    torch.manual_seed(0)
    thin = torch.rand(1, 8, 5, 5)
    blocks = {
        shortcut: InvertedResidual(8, 8, stride=1, dilation=1, expansion=6, shortcut=shortcut).eval()
        for shortcut in SHORTCUTS
    }
    for block in blocks.values():
        block.load_state_dict(blocks['none'].state_dict())
    expanded = blocks['none'].expand(thin)
    depthwise, *projection = blocks['none'].conv[1:]

    def project(tensor: torch.Tensor) -> torch.Tensor:
        for layer in projection:
            tensor = layer(tensor)
        return tensor

    plain = project(depthwise(expanded))
    torch.testing.assert_close(blocks['none'](thin), plain)
    torch.testing.assert_close(blocks['bottleneck'](thin), thin + plain)
    torch.testing.assert_close(blocks['expansion'](thin), project(depthwise(expanded) + expanded))
    assert not torch.allclose(blocks['expansion'](thin), plain)
