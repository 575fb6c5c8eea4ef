"""The cheapest plan within a budget, or the one that needs least.

Between two segments only one map is alive, so a plan's peak is the largest of its segments' and its work the
sum of theirs: the cheapest plan is a shortest path over the units, and the least one a path whose largest
step is smallest. Both are exact, but for gaps between tensors (`packing`), over all candidates: every cut
into segments of up to `LONGEST` units, every grid of `GRIDS`, and up to `SLICES` slices in each block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from falconet.core.errors import UserError
from falconet.deploy.memory.arithmetic import unit_peak, unit_work
from falconet.deploy.memory.build import Frame, build, enter, run_unit
from falconet.deploy.memory.geometry import Reach, cut
from falconet.deploy.memory.network import Unit, read_network
from falconet.deploy.memory.packing import arena
from falconet.deploy.memory.plan import Plan, Rules, Segment, plain
from falconet.deploy.memory.sizes import in_kilobytes
from falconet.deploy.memory.steps import Shape, Steps, multiply_adds, peak

# An operator costs about as much as this many multiply-adds before it has computed anything: without that a
# plan of a thousand small patches looks cheap.
OPERATOR = 50_000
# Shares of the budget that plans are made for, until one fits with the gaps between tensors.
SHARES = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75, 0.7)
SLICES = 5  # "a small constant between 2 and 5", section 5
LONGEST = 8  # units in a segment that begins with the picture; later ones have half as many at most
GRIDS = (
    *((rows, 1) for rows in (2, 3, 4, 5, 6, 8, 10, 12)),
    *((rows, columns) for rows in range(2, 11) for columns in (rows, rows + 1)),
)


@dataclass(frozen=True)
class Candidate:
    """A segment on one grid.

    Attributes:
        segment: with one slice in each block.
        floor: bytes alive whatever the slices: joining, cutting, normalising.
        needs: bytes alive in each unit, for 1, 2, ... slices.
        work: multiply-adds.
    """

    segment: Segment
    floor: int
    needs: tuple[tuple[int, ...], ...]
    work: int

    def within(self, budget: int) -> Segment | None:
        """Return the segment with the fewest slices that fit, or None."""
        if self.floor > budget:
            return None
        slices = []
        for each in self.needs:
            fits = [count for count, need in enumerate(each, 1) if need <= budget]
            if not fits:
                return None
            slices.append(fits[0])
        return replace(self.segment, slices=(*slices,))

    @property
    def least(self) -> int:
        """The fewest bytes it can do with."""
        return max([self.floor, *map(min, self.needs)])


class Search:
    """All plans of a network for one picture size.

    Args:
        backbone: a MobileNetV2, with batch norms or without.
        size: (height, width) of the picture.
        rules: of the engine.
        most_slices: of a block.
    """

    def __init__(
        self, backbone: nn.Module, size: Sequence[int], rules: Rules, *, most_slices: int = SLICES
    ) -> None:
        self.units, self.size, self.rules = read_network(backbone), (size[0], size[1]), rules
        self.most_slices = most_slices
        self._entered: dict[tuple[object, ...], int] = {}
        self._found: dict[tuple[object, ...], Sequence[int]] = {}

    @cached_property
    def frames(self) -> list[Frame]:
        """The network as it is and, where that may save a copy, turned."""
        may_help = self.rules.turns and self.rules.same_only and any(map(_is_lopsided, self.units))
        turns = (False, True) if may_help else (False,)
        return [Frame.of(self.units, self.size, self.rules, turned=turned) for turned in turns]

    @cached_property
    def candidates(self) -> list[tuple[Frame, list[Candidate]]]:
        """All candidates, for each frame."""
        return [(frame, [*self._candidates(frame)]) for frame in self.frames]

    def cheapest(self, budget: int) -> Plan | None:
        """Return the plan with the fewest multiply-adds within `budget` bytes, then the fewest slices."""
        found = []
        for frame, candidates in self.candidates:
            best: dict[int, tuple[int, tuple[Segment, ...]]] = {0: (0, ())}
            for each in candidates:  # ordered by where they begin
                start = best.get(each.segment.first)
                segment = each.within(budget) if start else None
                if start is None or segment is None:
                    continue
                (cost, path), operators = start, segment.operators
                cost = cost + each.work + OPERATOR * operators
                known = best.get(segment.end)
                if known is None or cost < known[0]:
                    best[segment.end] = (cost, (*path, segment))
            if len(self.units) in best:
                cost, path = best[len(self.units)]
                found.append((cost, frame.turned, self.finished(path, turned=frame.turned)))
        return min(found, key=lambda each: each[:2])[2] if found else None

    def least(self) -> Plan:
        """Return the cheapest of the plans that need least."""
        floors = []
        for _, candidates in self.candidates:
            best = {0: 0}
            for each in candidates:
                if each.segment.first in best:
                    need = max(best[each.segment.first], each.least)
                    best[each.segment.end] = min(need, best.get(each.segment.end, need))
            floors.append(best[len(self.units)])
        found = self.cheapest(min(floors))
        assert found is not None
        return found

    def fitting(self, budget: int) -> Plan | None:
        """Return the cheapest plan whose tensors fit into one block of `budget` bytes, gaps included."""
        for share in SHARES:
            found = self.cheapest(int(share * budget))
            if found is None or found.needs <= budget:
                return found
        return None

    def fitting_least(self) -> Plan:
        """Return the plan of those that `fitting` tries that needs the smallest block."""
        least = self.least()
        tried = [self.cheapest(int(least.peak * factor)) for factor in (1.0, 1.03, 1.06, 1.1, 1.15, 1.2)]
        return min([each for each in tried if each], key=lambda each: each.needs)

    def finished(self, segments: Sequence[Segment], *, turned: bool) -> Plan:
        """Return a plan with its peak and its work, and those of the plain network."""
        made = Plan((*segments,), turned, self.size, self.rules)
        steps, usual = (
            build(self.units, made),
            build(self.units, plain(len(self.units), self.size, self.rules)),
        )
        packs = not self.rules.in_place
        return replace(
            made,
            peak=peak(steps),
            arena=arena(steps) if packs else 0,
            plain_arena=arena(usual) if packs else 0,
            work=multiply_adds(steps),
            plain_peak=peak(usual),
            plain_work=multiply_adds(usual),
        )

    def _candidates(self, frame: Frame) -> Iterator[Candidate]:
        count = len(self.units)
        for first in range(count):
            for end in range(first + 1, min(count, first + (LONGEST if first == 0 else LONGEST // 2)) + 1):
                between = self.units[first:end]
                # A map to return must be there as a whole.
                if any(unit.taps for unit in between[:-1]):
                    continue
                height, width = frame.heights[end], frame.widths[end]
                tapped_inside = 'expanded' in between[-1].taps
                if end == first + 1:
                    yield self._candidate(frame, Segment(first, end, 1, 1, (1,)), unsliced=tapped_inside)
                if tapped_inside:
                    continue
                for rows, columns in GRIDS:
                    if rows <= height and columns <= width:
                        yield self._candidate(frame, Segment(first, end, rows, columns, (1,) * len(between)))

    def _candidate(self, frame: Frame, segment: Segment, *, unsliced: bool = False) -> Candidate:
        """Evaluate a segment: of patches of one shape only the last counts, when most is alive beside it."""
        units = self.units[segment.first : segment.end]
        out = self._output(frame, segment.end)
        given = self._output(frame, segment.first) if segment.first else frame.input_shape()
        held = self._held(frame, segment.first)
        stays = segment.first == 0 and self.rules.holds_input
        rows, columns = cut(out.height, segment.rows), cut(out.width, segment.columns)
        down = [[each[0] for each in frame.reaches(segment, span, (0, 1))] for span in rows]
        across = [[each[1] for each in frame.reaches(segment, (0, 1), span)] for span in columns]
        per_row = out.channels * out.value_bytes
        floor = 0
        latest: dict[object, tuple[int, int, int, bool]] = {}  # by shape: patch, what is done, more to come
        shapes = [[tuple(each.shape for each in reaches) for reaches in axis] for axis in (down, across)]
        for i, (first, end) in enumerate(rows):
            before, tall = per_row * first * out.width, end - first
            is_last = i == len(rows) - 1
            for j, part in enumerate(columns):
                more = not (is_last and j == len(columns) - 1)
                patch = (i, j, before + per_row * tall * part[0], more)
                latest[shapes[0][i], shapes[1][j], more] = patch
            if segment.columns > 1:
                beside = given.size if stays or not is_last else 0
                floor = max(floor, held + beside + before + 2 * per_row * tall * out.width)
        if segment.rows > 1:
            floor = max(floor, held + (given.size if stays else 0) + 2 * out.size)
        needs: list[tuple[int, ...]] = []
        work = 0
        for place, unit in enumerate(units):
            most = 1 if unsliced else min(self.most_slices, max(1, unit.hidden // 8))
            worst = [0] * most
            for i, j, done, more in latest.values():
                # Normalising makes another tensor of the picture, which may go then.
                beside = done + held + (given.size if more or (stays and _enters(frame, segment)) else 0)
                found = self._peaks(frame, unit, (down[i][place], across[j][place]), most)
                worst = [max(each, beside + need) for each, need in zip(worst, found, strict=True)]
            needs.append((*worst,))
            counts = [
                sum(getattr(each[place], name) for each in down)
                * sum(getattr(each[place], name) for each in across)
                for name in ('given', 'made')
            ]
            work += unit_work(unit, *counts)
        for i, j, done, more in latest.values():
            entering = self._entering(frame, segment, (down[i][0], across[j][0]), more or stays)
            floor = max(floor, held + done + entering)
        return Candidate(segment, floor, (*needs,), work)

    def _held(self, frame: Frame, first: int) -> int:
        """Return the bytes that are alive beside a segment: the picture, and maps to return."""
        held = frame.input_shape().size if first and self.rules.holds_input else 0
        for unit in self.units[:first]:
            for tap in unit.taps:
                if tap == 'expanded':
                    held += self._expanded(frame, unit).size
                elif unit.index != first - 1 or frame.turned:  # else it is the segment's input
                    held += self._output(frame, unit.index + 1).size
        return held

    def _entering(self, frame: Frame, segment: Segment, reaches: tuple[Reach, Reach], stays: bool) -> int:
        given = self._output(frame, segment.first) if segment.first else frame.input_shape()
        spans = (reaches[0].source, reaches[1].source)
        key = ('enter', frame.turned, segment.first, segment.patches > 1, stays, *spans)
        if key not in self._entered:
            steps = Steps({0: given}, holds_input=stays)
            enter(steps, frame, 0, *spans, first=segment.first == 0, whole=segment.patches == 1)
            self._entered[key] = peak(steps)
        return self._entered[key]

    def _peaks(self, frame: Frame, unit: Unit, reaches: tuple[Reach, Reach], most: int) -> Sequence[int]:
        """Return the bytes alive inside a unit on one patch, input and output included, by slices."""
        if not unit.taps:
            key = (unit.index, reaches[0].shape, reaches[1].shape, most)
            if key not in self._found:
                self._found[key] = unit_peak(unit, self.rules, *reaches, most)
            return self._found[key]
        found = []
        for slices in range(1, most + 1):
            given = Shape(unit.in_channels, reaches[0].given, reaches[1].given, self.rules.value_bytes)
            steps = Steps({0: given})
            made, expanded = run_unit(steps, self.rules, unit, 0, *reaches, slices)
            for tap in unit.taps:
                tensor = made if tap == 'output' else expanded
                shape = steps.shapes[tensor]
                steps.maps.append(steps.make(shape, 'turn', tensor) if frame.turned else tensor)
            steps.maps.append(made)
            found.append(peak(steps))
        return found

    def _output(self, frame: Frame, end: int) -> Shape:
        """Return the shape of the map between two units."""
        channels = self.units[end - 1].out_channels
        return Shape(channels, frame.heights[end], frame.widths[end], self.rules.value_bytes)

    def _expanded(self, frame: Frame, unit: Unit) -> Shape:
        height, width = frame.heights[unit.index], frame.widths[unit.index]
        return Shape(
            unit.hidden if unit.depthwise else unit.out_channels, height, width, self.rules.value_bytes
        )


def plan(
    backbone: nn.Module, size: Sequence[int], budget: int, *, rules: Rules, most_slices: int = SLICES
) -> Plan:
    """Return the cheapest plan within `budget` bytes.

    Args:
        backbone: a MobileNetV2.
        size: (height, width) of the picture.
        budget: bytes of the block that all activations lie in, the picture included.
        rules: of the engine.
        most_slices: of a block.

    Raises:
        UserError: it is another network, or no plan fits; the message says the least and its plan.
    """
    search = Search(backbone, size, rules, most_slices=most_slices)
    found = search.fitting(budget)
    if found is None:
        raise too_little(search, budget)
    return found


def too_little(search: Search, budget: int, *, batch: int = 1) -> UserError:
    """Return the error that says what the least is, and its plan, for a budget of `batch` pictures."""
    least = search.fitting_least()
    many = f' for each of {batch} pictures' if batch > 1 else ''
    return UserError(
        f'{in_kilobytes(budget // batch)}{many} are too few for this network at '
        f'{search.size[0]}x{search.size[1]} in {8 * search.rules.value_bytes} bits. The least is '
        f'{least.describe()}. Ask for that much, or take a smaller picture or width'
    )


def _enters(frame: Frame, segment: Segment) -> bool:
    """Say whether a segment's input is not what its first unit reads."""
    return segment.patches > 1 or frame.rules.pictures or frame.turned


def _is_lopsided(unit: Unit) -> bool:
    return unit.spatial is not None and unit.spatial.stride > 1 and not unit.spatial.same
