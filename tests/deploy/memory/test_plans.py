"""Plans of execution: the same maps, in exactly the bytes that arithmetic over shapes says."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from falconet.backbones import MobileNetV2
from falconet.backbones.counting import block_needs, peak_memory
from falconet.backbones.counting import multiply_adds as counted
from falconet.core.errors import UserError
from falconet.deploy.memory import (
    Plan,
    Search,
    Segment,
    apply,
    memory_size,
    multiply_adds,
    peak,
    plan,
    read_network,
)
from falconet.deploy.memory.arithmetic import unit_peak, unit_work
from falconet.deploy.memory.build import build, one_channel_at_a_time, run_unit, sliced_peak
from falconet.deploy.memory.geometry import reach
from falconet.deploy.memory.live import live_peak
from falconet.deploy.memory.network import sides
from falconet.deploy.memory.packing import Lifetime, arena, lifetimes, packed
from falconet.deploy.memory.plan import RULES, Rules, plain
from falconet.deploy.memory.steps import Shape, Steps
from falconet.deploy.program import fold_norms

NETWORKS: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (64, 64)),
    ({'padding': 'same'}, (97, 75)),
    ({}, (97, 75)),
    ({'taps': ('stage7',), 'output_stride': 16}, (65, 66)),
    ({'taps': ('stage7',), 'output_stride': 8, 'padding': 'same'}, (50, 65)),
    ({'taps': ('stage6_expand', 'last'), 'padding': 'same'}, (64, 64)),
    ({'taps': ('stage6_expand',)}, (64, 64)),
    ({'shortcut': 'expansion', 'linear_bottleneck': False}, (64, 64)),
    ({'shortcut': 'none', 'taps': ('stem', 'stage2', 'last')}, (64, 80)),
]
NAMES = ['even', 'same', 'odd', 'os16', 'os8', 'detector', 'expanded', 'figure6', 'taps']


def network(**options: Any) -> Any:
    """Return a small backbone without norms whose biases are not zero."""
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, **options)
    for each in backbone.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.weight.data.uniform_(0.5, 1.5)
            each.bias.data.uniform_(-0.5, 0.5)
            each.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return fold_norms(backbone.eval())


def on_meta(**options: Any) -> Any:
    """Return a backbone of shapes only."""
    with torch.device('meta'):
        return MobileNetV2(**options).eval()


def crowded(units: Any, size: tuple[int, int], rules: Rules, *, turned: bool = False) -> Plan:
    """Return a plan with patches and slices at every turn, several units deep at first."""
    heights, widths = (sides(units, each) for each in size)
    segments, first = [], 0
    for length, grid, slices in ((4, (3, 2), 2), (2, (2, 1), 3), (3, (2, 2), 1), *[(1, (1, 1), 4)] * 30):
        if first == len(units):
            break
        end = first + 1
        while end < min(first + length, len(units)) and not units[end - 1].taps + units[end].taps:
            end += 1
        if 'expanded' in units[end - 1].taps:
            grid, slices = (1, 1), 1
        rows, columns = min(grid[0], heights[end]), min(grid[1], widths[end])
        segments.append(Segment(first, end, rows, columns, (slices,) * (end - first)))
        first = end
    return Plan((*segments,), turned, size, rules)


@pytest.mark.parametrize(('options', 'size'), NETWORKS, ids=NAMES)
@pytest.mark.parametrize('way', ['torch', 'float32', 'turned'])
def test_patches_and_slices_give_the_same_maps_in_the_planned_bytes(
    options: dict[str, Any], size: tuple[int, int], way: str
) -> None:
    backbone = network(**options)
    pictures = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    scale, shift = torch.rand(1, 3, 1, 1) / 64 + 0.01, torch.randn(1, 3, 1, 1)
    with torch.no_grad():
        expected = backbone(pictures.permute(0, 3, 1, 2) * scale + shift)
    units, rules = read_network(backbone), RULES['torch' if way == 'torch' else 'float32']
    found = crowded(units, size, rules, turned=way == 'turned')
    module = apply(backbone, found, scale=scale, shift=shift)
    with torch.no_grad():
        maps = module(pictures)
        for one, other in zip(maps, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    one = [pictures[:1].clone()]
    measured = live_peak(lambda: module.execute(one), one)
    # torch pads TensorFlow's way in a copy, which LiteRT does not need.
    assert measured == peak(module.steps) if way == 'torch' else measured >= peak(module.steps)


def test_section_5_at_five_slices_takes_the_papers_bytes() -> None:
    """The neediest block of width 1.0 at 224 px, to the byte: its ends, and a fifth of what lies inside."""
    backbone = MobileNetV2(taps=('stage1',)).eval()
    rules = replace(RULES['torch'], pictures=False, holds_input=False)
    segments = (Segment(0, 1, 1, 1, (1,)), Segment(1, 2, 1, 1, (5,)))
    module = apply(fold_norms(backbone), Plan(segments, False, (224, 224), rules))
    paper = 4 * max(block_needs(on_meta(), 224, 5))
    assert paper == 4 * (32 + 16 + 7 + 7) * 112 * 112
    images = [torch.zeros(1, 3, 224, 224)]
    assert live_peak(lambda: module.execute(images), images) == peak(module.steps) == paper


def test_in_five_slices_the_whole_network_takes_the_papers_bytes_too() -> None:
    backbone = MobileNetV2().eval()
    rules = replace(RULES['torch'], pictures=False, holds_input=False)
    segments = [
        Segment(place, place + 1, 1, 1, (1 if unit.depthwise is None else 5,))
        for place, unit in enumerate(read_network(backbone))
    ]
    module = apply(fold_norms(backbone), Plan((*segments,), False, (224, 224), rules))
    images = [torch.zeros(1, 3, 224, 224)]
    measured = live_peak(lambda: module.execute(images), images)
    assert measured == peak(module.steps) == 4 * max(block_needs(on_meta(), 224, 5))


def test_the_papers_numbers_are_those_of_the_count_by_operators() -> None:
    units = read_network(on_meta())
    for slices in (2, 3, 4, 5):
        assert sliced_peak(units, (224, 224), slices) == peak_memory(on_meta(), 224, slices=slices)
    assert sliced_peak(units, (224, 224), 1) == peak_memory(on_meta(), 224)


def test_one_channel_at_a_time_a_block_needs_its_ends_and_a_channel_of_either_side() -> None:
    ends, most = one_channel_at_a_time(read_network(on_meta())[2], 112)
    assert ends == 2 * (16 * 112**2 + 24 * 56**2)
    assert most == ends + 2 * (112**2 + 56**2)


@pytest.mark.parametrize('way', ['torch', 'float32'])
def test_the_searchs_arithmetic_is_that_of_the_steps(way: str) -> None:
    rules = RULES[way]
    for options in ({}, {'shortcut': 'expansion', 'padding': 'same'}, {'output_stride': 8}):
        for unit, side in zip(
            read_network(on_meta(**options)), sides(read_network(on_meta()), 37), strict=False
        ):
            for rows, turned in itertools.product(((0, 2), (1, 3), (0, 1)), (False, True)):
                down = reach(unit, max(side, 7), rows, turned=turned)
                across = reach(unit, max(side, 7), (0, 2), turned=turned)
                most = 1 if unit.depthwise is None else 5
                found = unit_peak(unit, rules, down, across, most)
                for slices in range(1, most + 1):
                    given = Shape(unit.in_channels, down.given, across.given, 4)
                    steps = Steps({0: given})
                    steps.maps.append(run_unit(steps, rules, unit, 0, down, across, slices)[0])
                    assert peak(steps) == found[slices - 1], (unit, rows, slices)
                    work = unit_work(unit, down.given * across.given, down.made * across.made)
                    assert multiply_adds(steps) == work


def test_without_a_plan_the_multiply_adds_are_the_networks() -> None:
    backbone = on_meta()
    steps = build(read_network(backbone), plain(19, (224, 224), RULES['torch']))
    assert multiply_adds(steps) == counted(lambda: backbone(torch.empty(1, 3, 224, 224, device='meta')))


@pytest.fixture(scope='module')
def small() -> Search:
    """All plans of width 0.35 at 96 px in INT8."""
    return Search(on_meta(width=0.35), (96, 96), RULES['int8'])


def test_a_plan_within_the_budget_is_found_and_the_least_is_less(small: Search) -> None:
    budget = memory_size('64KB')
    found, least = small.fitting(budget), small.least()
    assert found is not None
    assert found.peak <= found.arena <= budget < found.plain_peak
    assert least.peak <= found.peak
    assert found.work <= least.work
    assert small.cheapest(least.peak - 1) is None


def test_a_larger_budget_never_costs_more(small: Search) -> None:
    plans = [small.cheapest(budget) for budget in range(50_000, 300_000, 10_000)]
    costs = [each.work for each in plans if each is not None]
    assert len(costs) > 10
    assert costs[-1] == plans[-1].plain_work  # type: ignore[union-attr]
    assert costs[-1] <= min(costs)


def test_the_searchs_peak_is_that_of_the_finished_plan() -> None:
    for options in ({}, {'taps': ('stage6_expand', 'last'), 'padding': 'same'}):
        search = Search(on_meta(width=0.35, **options), (64, 64), RULES['float32'])
        least = search.least()
        assert search.cheapest(least.peak) is not None
        assert search.cheapest(least.peak - 1) is None, options


def test_the_paper_sized_network_fits_into_320_kilobytes_at_a_tenth_more() -> None:
    search = Search(on_meta(), (224, 224), RULES['int8'], most_slices=1)
    found, roomy = search.fitting(320_000), search.fitting(512_000)
    assert found is not None
    assert roomy is not None
    assert found.arena <= 320_000
    assert found.extra <= 0.1
    assert roomy.extra <= 0.03
    assert max(max(each.slices) for each in found.segments) == 1


def test_too_small_a_budget_names_the_least_and_its_plan() -> None:
    with pytest.raises(UserError, match=r'10\.0 kB are too few .* The least is \d+\.\d kB .* patches'):
        plan(on_meta(width=0.35), (96, 96), 10_000, rules=RULES['int8'])


def test_another_backbone_is_refused_by_name() -> None:
    with pytest.raises(UserError, match='for MobileNetV2, got the backbone Linear'):
        plan(torch.nn.Linear(1, 1), (96, 96), 10_000, rules=RULES['int8'])


def test_pictures_of_another_size_are_refused() -> None:
    backbone = network()
    rules = replace(RULES['torch'], pictures=False)
    module = apply(backbone, plain(19, (64, 64), rules))
    with pytest.raises(ValueError, match=r'for pictures of \(64, 64\), got \(64, 65\)'):
        module(torch.zeros(1, 3, 64, 65))


@pytest.mark.parametrize(
    ('text', 'size'), [('300KB', 300_000), ('320 KiB', 327_680), ('1.5MB', 1_500_000), ('65536', 65_536)]
)
def test_amounts_of_memory_are_read_as_written(text: str, size: int) -> None:
    assert memory_size(text) == size


@pytest.mark.parametrize('text', ['', 'KB', '0KB', '-3KB', '3 bananas', '1e3KB'])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match='--memory must be bytes or a text like'):
        memory_size(text)


def test_tensors_are_packed_as_litert_does() -> None:
    tensors = {0: Lifetime(64, 0, 9), 1: Lifetime(640, 0, 1), 2: Lifetime(128, 1, 2), 3: Lifetime(640, 2, 3)}
    size, offsets = packed(tensors)
    assert offsets == {0: 0, 1: 64, 3: 64, 2: 704}
    assert size == 832


def test_no_two_tensors_alive_at_once_share_a_byte() -> None:
    units = read_network(on_meta(width=0.35))
    steps = build(units, crowded(units, (64, 64), RULES['int8']))
    alive = lifetimes(steps)
    size, offsets = packed(alive)
    assert peak(steps) <= size == arena(steps)
    for one, other in itertools.combinations(alive, 2):
        apart = alive[one].last < alive[other].first or alive[other].last < alive[one].first
        first, second = sorted((one, other), key=lambda each: offsets[each])
        assert apart or offsets[first] + alive[first].size <= offsets[second]
