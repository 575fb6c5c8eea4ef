"""A plan: which layers run patch by patch, and in how many slices each block is computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from falconet.deploy.memory.sizes import in_kilobytes


@dataclass(frozen=True)
class Rules:
    """What an engine does with memory.

    Attributes:
        value_bytes: of a number of the network: 4, 2 or 1.
        pictures: uint8 pictures go in and are normalised; else normalised images of `value_bytes`.
        normalising: bytes of a number after each of the steps that normalise: cast, scale, shift.
        same_only: it pads as TensorFlow does, and writes a padded copy for all else; see `needs_copy`.
        in_place: a slice's projection is added in place; else it is a tensor first, and the sum a third.
        holds_input: the input stays in memory to the end.
        turns: it can turn a map by 180 degrees.
    """

    value_bytes: int = 4
    pictures: bool = True
    normalising: tuple[int, int, int] = (4, 4, 4)
    same_only: bool = True
    in_place: bool = False
    holds_input: bool = True
    turns: bool = True


# As LiteRT plans its arena, of float32 and of INT8 graphs; TFLite-Micro writes over an input it has read.
RULES = {
    'float32': Rules(),
    'int8': Rules(value_bytes=1, normalising=(4, 1, 1)),
    'micro': Rules(value_bytes=1, normalising=(1, 1, 1), holds_input=False, turns=False),
    'torch': Rules(same_only=False, in_place=True),
}


@dataclass(frozen=True)
class Segment:
    """Some layers in a row, computed together.

    Attributes:
        first, end: the units [first, end).
        rows, columns: how many patches the segment's output is cut into; 1 and 1 is the whole map.
        slices: for each unit, how many slices its expanded tensor is computed in.
    """

    first: int
    end: int
    rows: int
    columns: int
    slices: tuple[int, ...]

    @property
    def patches(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    @property
    def operators(self) -> int:
        """About how many operators compute it."""
        return self.patches * sum(4 * count for count in self.slices)


@dataclass(frozen=True)
class Plan:
    """How to run a network.

    Attributes:
        segments: one after the other, the whole network.
        turned: the picture and all kernels are turned by 180 degrees, and the maps back.
        size: (height, width) of the picture.
        rules: under which it was made.
        peak: bytes alive at the worst moment, inside the backbone.
        arena: bytes of the one block that LiteRT puts all tensors in, gaps included; 0 without one.
        work: its multiply-adds.
        plain_peak, plain_arena, plain_work: the same without a plan.
    """

    segments: tuple[Segment, ...]
    turned: bool
    size: tuple[int, int]
    rules: Rules
    peak: int = 0
    arena: int = 0
    work: int = 0
    plain_peak: int = 0
    plain_arena: int = 0
    plain_work: int = 0

    @property
    def needs(self) -> int:
        """Bytes it needs: of the block, or without one those alive."""
        return self.arena or self.peak

    @property
    def extra(self) -> float:
        """Multiply-adds above those of the plain network, as a share of them."""
        return self.work / self.plain_work - 1 if self.plain_work else 0.0

    def facts(self, asked: int) -> dict[str, Any]:
        """Return what there is to know of it in plain values, for JSON; `asked` are bytes for a picture."""
        return {
            'asked': asked,
            'planned': self.needs,
            'plain': self.plain_arena or self.plain_peak,
            'multiply_adds': self.work,
            'plain_multiply_adds': self.plain_work,
            'turned': self.turned,
            'segments': [
                {
                    'layers': [each.first, each.end - 1],
                    'grid': [each.rows, each.columns],
                    'slices': [*each.slices],
                }
                for each in self.segments
            ],
        }

    def describe(self, names: Sequence[str] = ()) -> str:
        """Say in a few words what it does."""
        parts = [*_parts(self.segments, names)]
        turned = ['turned by 180 degrees'] if self.turned else []
        how = '; '.join([*turned, *parts]) or 'as it is'
        return (
            f'{in_kilobytes(self.needs)} of activations instead of '
            f'{in_kilobytes(self.plain_arena or self.plain_peak)}, '
            f'{self.extra:.1%} more multiply-adds: {how}'
        )


def plain(count: int, size: tuple[int, int], rules: Rules, *, turned: bool = False) -> Plan:
    """Return the plan that changes nothing, for a network of `count` units."""
    segments = tuple(Segment(place, place + 1, 1, 1, (1,)) for place in range(count))
    return Plan(segments, turned, size, rules)


def _parts(segments: Sequence[Segment], names: Sequence[str]) -> Iterator[str]:
    for each in segments:
        label = names[each.first] if names else f'layer {each.first}'
        if each.end - each.first > 1:
            label += f' to {names[each.end - 1] if names else each.end - 1}'
        said = []
        if each.patches > 1:
            said.append(f'{each.rows}x{each.columns} patches')
        if max(each.slices) > 1:
            counts = ', '.join(map(str, each.slices))
            said.append(f'{counts} slices' if len(each.slices) == 1 else f'slices {counts}')
        if said:
            yield f'{label} in {" and ".join(said)}'
