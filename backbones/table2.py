"""Table 2 of the paper as data: stages, channel rounding, the network's layers one by one, and their plan.

Paper: arXiv 1801.04381, Table 2. The network and the maps between weight layouts are both written from it.
Dilation follows the authors' `slim/nets/mobilenet/mobilenet.py` (`mobilenet_base`, `output_stride`).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# One row per stage: expansion t, channels c, blocks n, stride s of the first block.
STAGES = (
    # t, c, n, s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
OUTPUT_STRIDES = (8, 16, 32)

# Every map a network can return, in the order it computes them. Stage 1 expands nothing (t = 1).
TAP_NAMES = (
    'stem',
    'stage1',
    *(name for stage in range(2, 8) for name in (f'stage{stage}_expand', f'stage{stage}')),
    'last',
)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor` that is at least 90 % of `value`.

    The rule of the authors' `slim/nets/mobilenet/conv_blocks.py` (`_make_divisible`).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


def blocks_per_stage(depth: float = 1.0) -> tuple[int, ...]:
    """Return n of Table 2 times `depth`, rounded up; the first and the last stage keep their one block.

    The rule of timm's 110d and 120d (`decode_arch_def` with `fix_first_last`).
    """
    inner = range(1, len(STAGES) - 1)
    return tuple(
        math.ceil(blocks * depth) if stage in inner else blocks
        for stage, (_, _, blocks, _) in enumerate(STAGES)
    )


class Unit(NamedTuple):
    """One convolution with its batch norm.

    Attributes:
        layer: its place in the network: 0 is the stem, then the blocks, then the last convolution.
        role: 'stem', 'expand', 'depthwise', 'project' or 'last'.
        stage: row of Table 2, from 0; -1 outside of it.
        block: block within the stage, from 0; -1 outside.
    """

    layer: int
    role: str
    stage: int = -1
    block: int = -1


def units(depth: float = 1.0) -> Iterator[Unit]:
    """Yield the network's convolutions in the order they run."""
    yield Unit(0, 'stem')
    layer = 0
    for stage, blocks in enumerate(blocks_per_stage(depth)):
        for block in range(blocks):
            layer += 1
            for role in ('expand', 'depthwise', 'project'):
                if role != 'expand' or STAGES[stage][0] != 1:
                    yield Unit(layer, role, stage, block)
    yield Unit(layer + 1, 'last')


class PlannedLayer(NamedTuple):
    """One layer of the network: the first convolution, a block, or the last convolution.

    Attributes:
        stage: 0 for the first convolution, 1 to 7 for the blocks of Table 2's rows, 8 for the last one.
        in_channels, out_channels, stride, dilation: of the layer; a block strides and dilates inside.
        expansion: t of Table 2; 1 for the two convolutions.
        stops_at_expansion: the network ends with this block's expanded tensor.
    """

    stage: int
    in_channels: int
    out_channels: int
    stride: int = 1
    dilation: int = 1
    expansion: int = 1
    stops_at_expansion: bool = False


class PlannedTap(NamedTuple):
    """A map that the network returns.

    Attributes:
        layer: index of the layer it is made by.
        is_expanded: it is the expanded tensor inside that block, not the layer's output.
        channels, stride: of the map; the stride in image pixels per cell.
    """

    layer: int
    is_expanded: bool
    channels: int
    stride: int


def plan_network(
    *,
    width: float = 1.0,
    depth: float = 1.0,
    output_stride: int = 32,
    taps: Sequence[str] = ('last',),
    stem_channels: int | None = None,
    last_channels: int | None = None,
    channel_divisor: int = 8,
) -> tuple[list[PlannedLayer], list[PlannedTap]]:
    """Plan the network that `MobileNetV2` builds with these options: layers up to the highest tap, and taps.

    Raises:
        ValueError: an option is outside what `MobileNetV2` names.
    """
    taps = check_taps(taps)
    for name, value in (('width', width), ('depth', depth)):
        if value <= 0:
            raise ValueError(f'{name} must be above 0, got {value}')
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f'output_stride must be one of {OUTPUT_STRIDES}, got {output_stride}')
    if channel_divisor < 1:
        raise ValueError(f'channel_divisor must be at least 1, got {channel_divisor}')
    channels = stem_channels or make_divisible(STEM_CHANNELS * width, channel_divisor)
    layers = [PlannedLayer(0, 3, channels, stride=2)]
    found = {'stem': PlannedTap(0, False, channels, 2)}
    running_stride, dilation = 2, 1
    highest = TAP_NAMES.index(taps[-1])
    for stage, (expansion, stage_channels, _, stage_stride) in enumerate(STAGES, start=1):
        name = f'stage{stage}'
        expand_name = f'{name}_expand' if expansion != 1 else name
        if TAP_NAMES.index(expand_name) > highest:
            break
        found[expand_name] = PlannedTap(len(layers), True, channels * expansion, running_stride)
        stops = taps[-1] == expand_name != name
        out_channels = make_divisible(stage_channels * width, channel_divisor)
        for block in range(1 if stops else blocks_per_stage(depth)[stage - 1]):
            stride, rate = stage_stride if block == 0 else 1, dilation
            if stride > 1 and running_stride == output_stride:
                # The layer that would have strided keeps the rate so far; those after it double it.
                dilation *= stride
                stride = 1
            running_stride *= stride
            layers.append(PlannedLayer(stage, channels, out_channels, stride, rate, expansion, stops))
            channels = out_channels
        found[name] = PlannedTap(len(layers) - 1, False, channels, running_stride)
    if taps[-1] == 'last':
        last = last_channels or make_divisible(LAST_CHANNELS * max(1.0, width), channel_divisor)
        found['last'] = PlannedTap(len(layers), False, last, running_stride)
        layers.append(PlannedLayer(len(STAGES) + 1, channels, last))
    return layers, [found[tap] for tap in taps]


def check_taps(taps: Sequence[str]) -> tuple[str, ...]:
    """Return `taps` as a tuple, or raise ValueError naming the known taps or the right order."""
    if isinstance(taps, str):
        raise ValueError(f'taps must be a sequence of names, got the string {taps!r}: use ({taps!r},)')
    unknown = [tap for tap in taps if tap not in TAP_NAMES]
    if unknown or not taps:
        raise ValueError(f'unknown taps {unknown}; known are {TAP_NAMES}' if unknown else 'taps is empty')
    in_order = tuple(sorted(set(taps), key=TAP_NAMES.index))
    if tuple(taps) != in_order:
        raise ValueError(f'taps must name each map once, finest first: {in_order}, got {tuple(taps)}')
    return in_order
