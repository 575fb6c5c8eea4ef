"""Which operators of a graph are the network, whatever the format calls them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One operator of a graph.

    Attributes:
        name: that no other has.
        kind: 'convolution', 'product' (with weights, as of a linear layer), or ''.
        inputs, outputs: names of tensors.
    """

    name: str
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def network_of(steps: Iterable[Step]) -> list[str]:
    """Return the names of the operators from the first convolution to the last product, in order.

    Those on the way: what no convolution comes before (resizing, normalisation, sizes) and what neither
    convolution nor product comes after (softmax, decoding, suppression, enlarging) is left out.

    Args:
        steps: in an order in which tensors are computed before they are used.
    """
    steps = list(steps)
    after: set[str] = set()  # tensors that a convolution comes before
    behind = set()
    for step in steps:
        if step.kind == 'convolution' or not after.isdisjoint(step.inputs):
            after.update(step.outputs)
            behind.add(step.name)
    before: set[str] = set()  # tensors that go into a convolution or product, at once or later
    ahead = set()
    for step in reversed(steps):
        if step.kind or not before.isdisjoint(step.outputs):
            before.update(step.inputs)
            ahead.add(step.name)
    return [step.name for step in steps if step.name in behind & ahead]


def last_of(steps: Iterable[Step]) -> set[str]:
    """Return the convolutions and products that no other comes after: what they say is not rounded.

    Rounding the logits of a MobileNetV2 to eight bits alone took as much as all the rest of it together.
    """
    before: set[str] = set()
    last = set()
    for step in reversed(list(steps)):
        leads = not before.isdisjoint(step.outputs)
        if step.kind and not leads:
            last.add(step.name)
        if step.kind or leads:
            before.update(step.inputs)
    return last
