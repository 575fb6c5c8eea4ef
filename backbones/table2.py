"""Table 2 of the paper as data: stages, channel rounding, and the network's layers one by one.

Paper: arXiv 1801.04381, Table 2. The network and the maps between weight layouts are both written from it.
"""

import math
from collections.abc import Iterator
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
