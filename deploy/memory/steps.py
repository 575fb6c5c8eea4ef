"""A network's work written out: step after step, the tensors each makes, and which are alive when."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from falconet.deploy.memory.network import Convolution


class Shape(NamedTuple):
    """A tensor of one picture: channels, height, width, and the bytes of one number."""

    channels: int
    height: int
    width: int
    value_bytes: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.channels * self.height * self.width * self.value_bytes


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        kind: 'slice' (rows and columns `box`), 'channels' (`part`), 'turn', 'cast', 'scale', 'shift', 'pad'
            (`zeros`), 'convolve', 'add', 'join' (along `axis`, 2 or 3); in place: 'start' (a sum, with the
            bias), 'accumulate' (a slice's projection, into its second input), 'relu6'.
        inputs: numbers of the tensors it reads.
        output: number of the tensor it makes, or changes.
        convolution, part, zeros, bias: of 'convolve': which one; which channels [first, end) of the expanded
            tensor; zeros (above, below, left, right) that need no copy; whether the bias is added.
        relu6: end in one.
        work: multiply-adds.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    convolution: Convolution | None = None
    part: tuple[int, int] = (0, 0)
    zeros: tuple[int, int, int, int] = (0, 0, 0, 0)
    bias: bool = True
    relu6: bool = False
    axis: int = 0
    work: int = 0


@dataclass
class Steps:
    """Steps and the tensors between them.

    Attributes:
        shapes: of every tensor, by its number; 0 is the input.
        steps: in the order they run.
        maps: numbers of the tensors that are returned, finest first.
        holds_input: the input is alive to the end.
    """

    shapes: dict[int, Shape]
    steps: list[Step] = field(default_factory=list)
    maps: list[int] = field(default_factory=list)
    holds_input: bool = False

    def make(self, shape: Shape, kind: str, *inputs: int, **options: object) -> int:
        """Append a step that makes a tensor, and return its number."""
        output = len(self.shapes)
        self.shapes[output] = shape
        self.steps.append(Step(kind, inputs, output, **options))  # type: ignore[arg-type]
        return output

    def last_uses(self) -> dict[int, int]:
        """Return after which step each tensor is free; those that stay are missing."""
        last = {0: -1}
        for place, step in enumerate(self.steps):
            for each in (*step.inputs, step.output):
                last[each] = place
        kept = {*self.maps, *([0] if self.holds_input else [])}
        return {each: place for each, place in last.items() if each not in kept}

    def alive(self) -> list[int]:
        """Return the bytes that are alive while each step runs, its inputs and its output included."""
        free_after: dict[int, list[int]] = {}
        for each, place in self.last_uses().items():
            free_after.setdefault(place, []).append(each)
        alive, total, sizes = {0}, self.shapes[0].size, []
        for place, step in enumerate(self.steps):
            if step.output not in alive:
                alive.add(step.output)
                total += self.shapes[step.output].size
            sizes.append(total)
            for each in free_after.get(place, ()):
                alive.discard(each)
                total -= self.shapes[each].size
        return sizes


def peak(steps: Steps) -> int:
    """Return the most bytes that are alive at once."""
    return max([*steps.alive(), steps.shapes[0].size])


def multiply_adds(steps: Steps | Sequence[Step]) -> int:
    """Return the multiply-adds of all steps."""
    listed: Iterable[Step] = steps.steps if isinstance(steps, Steps) else steps
    return sum(step.work for step in listed)
