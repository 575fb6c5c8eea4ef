"""Section 5 of the paper (arXiv 1801.04381) in numbers: what sums over slices leave alive at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from falconet.deploy.memory.build import build, run_unit
from falconet.deploy.memory.geometry import reach
from falconet.deploy.memory.network import Unit
from falconet.deploy.memory.plan import RULES, Plan, Segment
from falconet.deploy.memory.steps import Shape, Steps, peak

# Images go in as 16-bit numbers and are let go; a slice's projection is added in place.
PAPERS = replace(RULES['torch'], value_bytes=2, pictures=False, holds_input=False)


def sliced_peak(units: Sequence[Unit], size: tuple[int, int], slices: int) -> int:
    """Return the bytes a network needs with each bottleneck in so many slices, or one for each channel."""
    counts = [min(slices, unit.hidden) for unit in units]
    segments = (Segment(place, place + 1, 1, 1, (count,)) for place, count in enumerate(counts))
    return peak(build(units, Plan((*segments,), False, size, PAPERS)))


class Inside(NamedTuple):
    """Bytes of a block computed one channel at a time: its input and output, and the most with them."""

    ends: int
    most: int


def one_channel_at_a_time(unit: Unit, side: int) -> Inside:
    """Return what a bottleneck needs on a map of `side` x `side` cells."""
    assert unit.spatial is not None
    made = -(-side // unit.spatial.stride)
    given, whole = Shape(unit.in_channels, side, side, PAPERS.value_bytes), (0, made)
    along = reach(unit, side, whole, turned=False)
    steps = Steps({0: given})
    output, _ = run_unit(steps, PAPERS, unit, 0, along, along, unit.hidden)
    steps.maps.append(output)
    return Inside(given.size + steps.shapes[output].size, peak(steps))
