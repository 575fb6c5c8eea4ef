"""Where tensors come to lie in one block of memory: what an engine's arena needs, fragmentation included.

LiteRT places the largest tensors first, each into the tightest gap that is free while it is alive
(`tflite/arena_planner.cc`, `simple_memory_arena.cc`); TFLite-Micro the same into the first such gap
(`greedy_memory_planner.cc`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from falconet.deploy.memory.steps import Steps

ALIGNMENT = 64  # bytes, LiteRT's


class Lifetime(NamedTuple):
    """A tensor: its bytes, and the first and the last step during which it is alive."""

    size: int
    first: int
    last: int


def lifetimes(steps: Steps) -> dict[int, Lifetime]:
    """Return the lifetime of every tensor of a plan's steps."""
    free, end = steps.last_uses(), len(steps.steps)
    born = {0: 0}
    for place, step in enumerate(steps.steps):
        born.setdefault(step.output, place)
    return {
        each: Lifetime(steps.shapes[each].size, place, max(free.get(each, end), place))
        for each, place in born.items()
    }


def packed(tensors: Mapping[int, Lifetime], *, alignment: int = ALIGNMENT) -> tuple[int, dict[int, int]]:
    """Return how many bytes the block needs, and where in it each tensor begins."""
    end = max((each.last for each in tensors.values()), default=0)

    def order(number: int) -> tuple[bool, int, int, int]:
        size, first, last = tensors[number]
        always = first == 0 and last == end
        return (not always, 0 if always else -size, first, number)

    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, Lifetime]] = []  # offset, end, lifetime; by offset
    most = 0
    for number in sorted(tensors, key=order):
        each = tensors[number]
        offset = _gap(
            [one for one in placed if one[2].first <= each.last and each.first <= one[2].last],
            each.size,
            alignment,
        )
        offsets[number] = offset
        placed.append((offset, offset + each.size, each))
        placed.sort(key=lambda one: one[0])
        most = max(most, offset + each.size)
    return most, offsets


def arena(steps: Steps) -> int:
    """Return the bytes of LiteRT's arena for a plan's steps."""
    return packed(lifetimes(steps))[0]


def _gap(neighbours: Sequence[tuple[int, int, Lifetime]], size: int, alignment: int) -> int:
    best, tightest, current = -1, -1, 0
    for offset, end, _ in neighbours:
        start = -(-current // alignment) * alignment
        if start + size <= offset and (best < 0 or offset - start < tightest):
            best, tightest = start, offset - current
        current = max(current, end)
    return best if best >= 0 else -(-current // alignment) * alignment
