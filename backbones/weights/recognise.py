"""Which layout a weight file is in, and which MobileNetV2 its shapes are of.

A layout is recognised by its keys, never by a file's name.
"""

import difflib
from collections.abc import Iterator, Mapping

from torch import Tensor

from falconet.backbones.table2 import LAST_CHANNELS, STAGES, STEM_CHANNELS, Unit, make_divisible, units
from falconet.backbones.weights.files import BACKBONE_PREFIX
from falconet.backbones.weights.layouts import LAYOUTS, Layout

State = Mapping[str, Tensor]
# Depth multipliers in circulation: the paper's network, timm's 110d and 120d.
DEPTHS = (1.0, 1.2, 1.4)
WIDTHS = (1.0, 0.1, 0.25, 0.35, 0.5, 0.75, 1.1, 1.2, 1.3, 1.4)
TORCHVISION = LAYOUTS['torchvision']


def recognise(state: State, *, source: str) -> tuple[Layout, float]:
    """Return the layout and depth multiplier whose keys `state` has, or raise ValueError."""
    found = {}
    for layout in LAYOUTS.values():
        for depth in DEPTHS:
            keys = expected_keys(layout, depth)
            overlap = sum(key in state for key in keys)
            # As many as possible of the file's keys, then as few as possible that it lacks.
            found[layout.name, depth] = (overlap, overlap - len(keys))
    for name, depth in sorted(found, key=lambda place: found[place], reverse=True):
        if stem_key(LAYOUTS[name]) in state:
            return LAYOUTS[name], depth
    looked_for = ', '.join(f'{stem_key(layout)} ({layout.name})' for layout in LAYOUTS.values())
    (closest, _), (overlap, _) = max(found.items(), key=lambda item: item[1])
    near = (
        f'The closest layout is {closest}: {overlap} of its keys are there, its first is not.'
        if overlap
        else f'The closest layout is {most_alike(state)}, by how its keys are written; none of them is there.'
    )
    raise ValueError(
        f'{source}: no known weight layout. Looked for {looked_for} and {BACKBONE_PREFIX}'
        f'{stem_key(TORCHVISION)} (Falconet); the file begins with {", ".join(list(state)[:4]) or "nothing"}'
        f'. {near}'
    )


def most_alike(state: State) -> str:
    """Return the layout whose keys are written most like those of `state`."""

    def likeness(layout: Layout) -> float:
        theirs = expected_keys(layout, 1.0)[:6]
        return max(
            (
                difflib.SequenceMatcher(None, key, their).ratio()
                for key in list(state)[:40]
                for their in theirs
            ),
            default=0.0,
        )

    return max(LAYOUTS.values(), key=likeness).name


def expected_keys(layout: Layout, depth: float) -> list[str]:
    """Return the keys of a whole backbone in a layout, counters aside."""
    return [key for unit in units(depth) for key in layout.tensors(unit).values()]


def stem_key(layout: Layout) -> str:
    """Return the key of the first convolution, which every file has."""
    return layout.tensors(Unit(0, 'stem'))['conv']


def describe_shape(backbone: State) -> dict[str, float]:
    """Return the options of `MobileNetV2` that give a backbone of these shapes, where one is known.

    Args:
        backbone: in torchvision's keys, from `split_weights`.

    Returns:
        `width`, and `depth`, `stem_channels`, `last_channels`, `channel_divisor` where they are not the
        defaults; empty when no known combination fits.
    """
    _, depth = recognise(backbone, source='backbone')
    shapes = dict(_channels(backbone, depth))
    stem, last = shapes.pop('stem', None), shapes.pop('last', None)
    for divisor in (8, 4):
        for width in WIDTHS:
            expected = {
                f'stage{stage}': make_divisible(row[1] * width, divisor)
                for stage, row in enumerate(STAGES, 1)
            }
            if any(expected[name] != count for name, count in shapes.items()):
                continue
            options: dict[str, float] = {'width': width}
            if depth != 1.0:
                options['depth'] = depth
            if divisor != 8:
                options['channel_divisor'] = divisor
            if stem is not None and stem != make_divisible(STEM_CHANNELS * width, divisor):
                options['stem_channels'] = stem
            if last is not None and last != make_divisible(LAST_CHANNELS * max(1.0, width), divisor):
                options['last_channels'] = last
            return options
    return {}


def _channels(backbone: State, depth: float) -> Iterator[tuple[str, int]]:
    for unit in units(depth):
        key = TORCHVISION.tensors(unit)['conv']
        if key in backbone and unit.role in ('stem', 'project', 'last'):
            yield (f'stage{unit.stage + 1}' if unit.role == 'project' else unit.role), len(backbone[key])
