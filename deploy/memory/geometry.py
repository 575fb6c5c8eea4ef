"""Which cells of its input a part of a layer's output needs, along one axis, borders included."""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from falconet.deploy.memory.network import Convolution, Unit

Span = tuple[int, int]  # cells [first, end) of a map along one axis


class Reach(NamedTuple):
    """What part of an output needs along one axis.

    Attributes:
        source: cells of the input.
        before, after: zeros on either side of them.
        made: how many cells come out.
        skipped: cells of the source before the first one that comes out, for a shortcut around.
    """

    source: Span
    before: int
    after: int
    made: int
    skipped: int

    @property
    def given(self) -> int:
        """How many cells of the input there are."""
        return self.source[1] - self.source[0]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """All that memory and work depend on."""
        return (self.given, self.before, self.after, self.made, self.skipped)


def padding_before(convolution: Convolution, side: int, *, turned: bool) -> int:
    """Return how many zeros precede a whole map of `side` cells; `turned` for a network turned round.

    Symmetric padding at stride 2 has its odd zero first on an even map, TensorFlow's has it last.
    """
    reach = convolution.dilation * (convolution.kernel - 1) + 1
    made = -(-side // convolution.stride)
    total = (made - 1) * convolution.stride + reach - side
    if convolution.same:
        total = max(total, 0)
        return total - total // 2 if turned else total // 2
    symmetric = convolution.dilation * (convolution.kernel - 1) // 2
    return total - symmetric if turned else symmetric


@lru_cache(maxsize=65536)
def reach(unit: Unit, side: int, wanted: Span, *, turned: bool) -> Reach:
    """Return what the cells `wanted` of a unit's output need of its input, a map of `side` cells."""
    convolution = unit.spatial
    if convolution is None:
        return Reach(wanted, 0, 0, wanted[1] - wanted[0], 0)
    zeros = padding_before(convolution, side, turned=turned)
    first = wanted[0] * convolution.stride - zeros
    end = (wanted[1] - 1) * convolution.stride - zeros + convolution.dilation * (convolution.kernel - 1) + 1
    source = (max(first, 0), min(end, side))
    if source[1] <= source[0]:  # padding only: a map smaller than the dilation
        source = (min(source[0], side - 1), min(source[0], side - 1) + 1)
    before, after = max(source[0] - first, 0), max(end - source[1], 0)
    return Reach(source, before, after, wanted[1] - wanted[0], wanted[0] - source[0])


def same_zeros(convolution: Convolution, given: int) -> Span:
    """Return the zeros that "SAME" of TensorFlow puts before and after `given` cells."""
    span = convolution.dilation * (convolution.kernel - 1) + 1
    made = -(-given // convolution.stride)
    total = max((made - 1) * convolution.stride + span - given, 0)
    return total // 2, total - total // 2


def needs_copy(convolution: Convolution, rows: Reach, columns: Reach, *, same_only: bool) -> bool:
    """Say whether the zeros around must be written into a padded copy of the input first.

    Args:
        convolution: what is computed.
        rows, columns: of its input.
        same_only: the engine pads a whole convolution as TensorFlow does, "SAME" or "VALID"; else it pads
            each axis by the same number of zeros on both sides, as torch does.
    """
    axes = (rows, columns)
    if all(each.before == each.after == 0 for each in axes):
        return False
    if same_only:
        return any(
            same_zeros(convolution, each.given) != (each.before, each.after)
            or -(-each.given // convolution.stride) != each.made
            for each in axes
        )
    return any(not pads_evenly(convolution, each) for each in axes)


def pads_evenly(convolution: Convolution, axis: Reach) -> bool:
    """Say whether `before` zeros on both sides give the same cells, as torch pads."""
    span = convolution.dilation * (convolution.kernel - 1) + 1
    return (axis.given + 2 * axis.before - span) // convolution.stride + 1 == axis.made


def cut(side: int, parts: int) -> list[Span]:
    """Cut `side` cells into `parts` spans whose lengths differ by one at most, the longer ones first."""
    bounds = [-(-side * part // parts) for part in range(parts + 1)]
    return [(first, end) for first, end in pairwise(bounds)]
