"""docs/paper_tables.md says what the networks count, and torch's counter agrees with a second one."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from falconet.backbones import MobileNetV2
from falconet.backbones.counting import atrous_surplus, multiply_adds, peak_memory
from falconet.heads import DeepLabV3Head, LinearHead, SSDLiteHead


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / 'tools/paper_tables.py'
    spec = importlib.util.spec_from_file_location('paper_tables', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_networks_count(tool: ModuleType, root: Path) -> None:
    """To write it anew: python tools/paper_tables.py --markdown"""
    assert (root / tool.PAGE).read_text(encoding='utf-8') == tool.markdown(list(tool.tables()))


@pytest.mark.parametrize(
    ('value', 'printed', 'verdict'),
    [
        (300_774_272, '301', 'equal'),
        (300_774_272, '300', 'equal, truncated'),
        (300_774_272, '302', 'differs: because'),
        (2_740_000_000, '2.75', 'differs: because'),
        (387_469_000_000, '387', 'equal'),
    ],
)
def test_a_figure_is_equal_when_it_rounds_or_is_cut_off_there(
    tool: ModuleType, value: int, printed: str, verdict: str
) -> None:
    assert tool.compare(value, printed, 1e9 if value > 1e9 else 1e6, 'because') == verdict


def count_by_hand(run: Callable[[], object], *modules: nn.Module) -> int:
    """Outputs times inputs that each one sums, over convolutions and linear layers."""
    total = 0

    def note(layer: nn.Module, _: object, made: Tensor) -> None:
        nonlocal total
        inputs = (
            layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            if isinstance(layer, nn.Conv2d)
            else layer.in_features
        )
        total += made.numel() * inputs

    layers = [each for module in modules for each in module.modules()]
    hooks = [each.register_forward_hook(note) for each in layers if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ('taps', 'output_stride', 'head_class', 'options', 'side'),
    [
        (('last',), 32, LinearHead, {}, 224),
        (('stage6_expand', 'last'), 32, SSDLiteHead, {}, 320),
        (('stage6_expand', 'last'), 32, SSDLiteHead, {'separable': False}, 300),
        (('stage7',), 16, DeepLabV3Head, {}, 257),
        (('stage7',), 8, DeepLabV3Head, {'aspp': True}, 257),
    ],
)
def test_torchs_counter_agrees_with_counting_by_hand(
    taps: tuple, output_stride: int, head_class: type, options: dict, side: int
) -> None:
    backbone = MobileNetV2(taps=taps, output_stride=output_stride).eval()
    head = head_class(backbone.channels, backbone.strides, num_classes=21, **options).eval()
    images = torch.zeros(1, 3, side, side)

    def run() -> object:
        return head(backbone(images))

    assert multiply_adds(run) == count_by_hand(run, backbone, head)


def test_tensorflow_1_padded_maps_to_a_multiple_of_the_rate() -> None:
    """A map of 33 cells at rate 2 is computed as 34: by hand, 3 * 3 sums for each of 34² - 33² cells."""
    layer = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False)
    surplus = atrous_surplus(lambda: layer(torch.zeros(1, 4, 33, 33)), layer)
    assert surplus == (34**2 - 33**2) * 4 * 9
    assert atrous_surplus(lambda: layer(torch.zeros(1, 4, 32, 32)), layer) == 0


def test_memory_of_a_bottleneck_computed_in_slices() -> None:
    """The counts of an independent build, in megabytes of 16-bit numbers, to the two digits given."""
    with torch.device('meta'):
        backbone = MobileNetV2().eval()
    found = [peak_memory(backbone, 224, slices=slices) / 1e6 for slices in (None, 1, 2, 3, 4, 5)]
    assert [round(each, 2) for each in found] == [3.01, 1.20, 2.06, 1.76, 1.61, 1.56]
