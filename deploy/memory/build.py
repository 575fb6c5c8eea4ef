"""From a plan to the steps that carry it out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from falconet.deploy.memory.geometry import Reach, Span, cut, needs_copy, reach
from falconet.deploy.memory.network import Convolution, Unit, sides
from falconet.deploy.memory.plan import RULES, Plan, Rules, Segment
from falconet.deploy.memory.steps import Shape, Step, Steps, peak


@dataclass(frozen=True)
class Frame:
    """A network on a picture of one size.

    Attributes:
        units: its layers.
        heights, widths: of the input of each unit, and of the last output.
        turned: see `Plan`.
        rules: of the engine.
    """

    units: tuple[Unit, ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    turned: bool
    rules: Rules

    @classmethod
    def of(cls, units: Sequence[Unit], size: Sequence[int], rules: Rules, *, turned: bool) -> 'Frame':
        """Return the frame for pictures of (height, width)."""
        heights, widths = (tuple(sides(units, each)) for each in size)
        return cls((*units,), heights, widths, turned, rules)

    def reaches(self, segment: Segment, rows: Span, columns: Span) -> list[tuple[Reach, Reach]]:
        """Return for each unit of a segment what it needs for a part of the segment's output."""
        found = []
        for place in range(segment.end - 1, segment.first - 1, -1):
            unit = self.units[place]
            down = reach(unit, self.heights[place], rows, turned=self.turned)
            across = reach(unit, self.widths[place], columns, turned=self.turned)
            found.append((down, across))
            rows, columns = down.source, across.source
        return found[::-1]

    def input_shape(self) -> Shape:
        """Return the shape of what goes in."""
        value_bytes = 1 if self.rules.pictures else self.rules.value_bytes
        return Shape(self.units[0].in_channels, self.heights[0], self.widths[0], value_bytes)


def build(units: Sequence[Unit], plan: Plan) -> Steps:
    """Return the steps of a plan."""
    frame = Frame.of(units, plan.size, plan.rules, turned=plan.turned)
    steps = Steps({0: frame.input_shape()}, holds_input=plan.rules.holds_input)
    tensor = 0
    for segment in plan.segments:
        whole = (0, frame.heights[segment.end]), (0, frame.widths[segment.end])
        if segment.patches == 1:
            tensor = _patch(steps, frame, segment, tensor, *whole, maps=True)
            continue
        bands = []
        for rows in cut(frame.heights[segment.end], segment.rows):
            made = [
                _patch(steps, frame, segment, tensor, rows, columns)
                for columns in cut(frame.widths[segment.end], segment.columns)
            ]
            bands.append(_join(steps, made, axis=3))
        tensor = _join(steps, bands, axis=2)
        if 'output' in frame.units[segment.end - 1].taps:
            _keep(steps, frame, tensor)
    return steps


def _patch(
    steps: Steps,
    frame: Frame,
    segment: Segment,
    tensor: int,
    rows: Span,
    columns: Span,
    *,
    maps: bool = False,
) -> int:
    reaches = frame.reaches(segment, rows, columns)
    down, across = reaches[0]
    tensor = enter(
        steps, frame, tensor, down.source, across.source, first=segment.first == 0, whole=segment.patches == 1
    )
    for place, (down, across), slices in zip(
        range(segment.first, segment.end), reaches, segment.slices, strict=True
    ):
        unit = frame.units[place]
        tensor, expanded = run_unit(steps, frame.rules, unit, tensor, down, across, slices)
        if maps:
            for tap in unit.taps:
                _keep(steps, frame, expanded if tap == 'expanded' else tensor)
    return tensor


def enter(
    steps: Steps, frame: Frame, tensor: int, rows: Span, columns: Span, *, first: bool, whole: bool
) -> int:
    """Cut a patch out of a segment's input; of the picture, turned and normalised."""
    shape = steps.shapes[tensor]
    part = Shape(shape.channels, rows[1] - rows[0], columns[1] - columns[0], shape.value_bytes)
    if not whole:
        box = (*rows, *columns)
        if first and frame.turned:
            height, width = frame.heights[0], frame.widths[0]
            box = (height - rows[1], height - rows[0], width - columns[1], width - columns[0])
        tensor = steps.make(part, 'slice', tensor, box=box)
    if not first:
        return tensor
    if frame.turned:
        tensor = steps.make(part, 'turn', tensor)
    if frame.rules.pictures:
        for kind, value_bytes in zip(('cast', 'scale', 'shift'), frame.rules.normalising, strict=True):
            tensor = steps.make(part._replace(value_bytes=value_bytes), kind, tensor)
    return tensor


def run_unit(
    steps: Steps, rules: Rules, unit: Unit, tensor: int, rows: Reach, columns: Reach, slices: int
) -> tuple[int, int]:
    """Append the steps of one unit on one patch; return its output and, unsliced, its expanded tensor."""
    given, total = tensor, None
    if unit.depthwise is None:
        convolution = unit.project or unit.expand
        assert convolution is not None
        made = _convolve(steps, rules, convolution, tensor, rows, columns, convolution.out_channels)
        return made, made
    project = unit.project
    assert project is not None
    thin = Shape(project.out_channels, rows.made, columns.made, rules.value_bytes)
    expanded, in_place = tensor, rules.in_place and slices > 1
    for part in pairwise(-(-unit.hidden * each // slices) for each in range(slices + 1)):
        count = part[1] - part[0]
        expanded = tensor
        if unit.expand is not None:
            inside = _whole(rows.given), _whole(columns.given)
            expanded = _convolve(steps, rules, unit.expand, tensor, *inside, count, part=part)
        elif slices > 1:
            expanded = steps.make(
                steps.shapes[tensor]._replace(channels=count), 'channels', tensor, part=part
            )
        if total is None and in_place:
            total = steps.make(thin, 'start', convolution=project)
        inner = _convolve(steps, rules, unit.depthwise, expanded, rows, columns, count, part=part)
        if unit.shortcut == 'expansion':
            inner = steps.make(steps.shapes[inner], 'add', inner, _crop(steps, expanded, rows, columns))
        if in_place:
            assert total is not None
            work = rows.made * columns.made * project.out_channels * count
            options: dict[str, Any] = {'convolution': project, 'part': part, 'work': work}
            steps.steps.append(Step('accumulate', (inner, total), total, **options))
            continue
        made = _convolve(
            steps,
            rules,
            project,
            inner,
            _whole(rows.made),
            _whole(columns.made),
            project.out_channels,
            part=part,
            bias=total is None,
            relu6=project.relu6 and slices == 1,
        )
        is_last = part[1] == unit.hidden
        total = (
            made if total is None else steps.make(thin, 'add', total, made, relu6=project.relu6 and is_last)
        )
    assert total is not None
    if in_place and project.relu6:
        steps.steps.append(Step('relu6', (total,), total))
    if unit.shortcut == 'bottleneck':
        total = steps.make(thin, 'add', _crop(steps, given, rows, columns), total)
    return total, expanded


def _convolve(
    steps: Steps,
    rules: Rules,
    convolution: Convolution,
    tensor: int,
    rows: Reach,
    columns: Reach,
    channels: int,
    *,
    part: Span = (0, 0),
    bias: bool = True,
    relu6: bool | None = None,
) -> int:
    shape = steps.shapes[tensor]
    zeros = (rows.before, rows.after, columns.before, columns.after)
    if needs_copy(convolution, rows, columns, same_only=rules.same_only):
        padded = shape._replace(height=shape.height + sum(zeros[:2]), width=shape.width + sum(zeros[2:]))
        tensor, zeros = steps.make(padded, 'pad', tensor, zeros=zeros), (0, 0, 0, 0)
    each = convolution.kernel**2 * channels * (1 if convolution.depthwise else shape.channels)
    return steps.make(
        Shape(channels, rows.made, columns.made, rules.value_bytes),
        'convolve',
        tensor,
        convolution=convolution,
        part=part,
        zeros=zeros,
        bias=bias,
        relu6=convolution.relu6 if relu6 is None else relu6,
        work=rows.made * columns.made * each,
    )


def _whole(side: int) -> Reach:
    return Reach((0, side), 0, 0, side, 0)


def _crop(steps: Steps, tensor: int, rows: Reach, columns: Reach) -> int:
    shape = steps.shapes[tensor]
    if (rows.made, columns.made) == (shape.height, shape.width):
        return tensor
    box = (
        rows.skipped,
        rows.skipped + rows.made,
        columns.skipped,
        columns.skipped + columns.made,
    )
    return steps.make(shape._replace(height=rows.made, width=columns.made), 'slice', tensor, box=box)


def _join(steps: Steps, tensors: Sequence[int], *, axis: int) -> int:
    if len(tensors) == 1:
        return tensors[0]
    shapes = [steps.shapes[each] for each in tensors]
    height, width = shapes[0].height, shapes[0].width
    if axis == 2:
        height = sum(each.height for each in shapes)
    else:
        width = sum(each.width for each in shapes)
    return steps.make(shapes[0]._replace(height=height, width=width), 'join', *tensors, axis=axis)


def _keep(steps: Steps, frame: Frame, tensor: int) -> None:
    steps.maps.append(steps.make(steps.shapes[tensor], 'turn', tensor) if frame.turned else tensor)


# Section 5 of the paper in numbers: what sums over slices leave alive at once.
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
