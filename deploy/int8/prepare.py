"""Weights made ready for eight bits, in float32: the program computes the same, in better ranges.

Two steps of Nagel et al., Data-Free Quantization (arXiv 1906.04721), with means and maxima that are measured:

- Equalisation. A channel between a convolution and the depthwise one after it is multiplied, and the weights
  after it divided, so that it fills the range that all channels of the map share. Weights have a scale for
  each output channel, so this costs them nothing. A cap (ReLU6) must stay out of reach: a channel that
  reached it stays as it is, others grow no further than to just below it.
- Bias correction. Rounded weights move the mean of a channel by their error times the mean input; the bias
  takes that back.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from falconet.deploy.formats import Traced

ATEN = torch.ops.aten
CONVOLUTIONS = (ATEN.conv2d.default, ATEN.convolution.default)
RELU = (ATEN.relu.default, ATEN.relu_.default)
RELU6 = (ATEN.relu6.default, ATEN.relu6_.default)
BETWEEN = (ATEN.hardtanh.default, ATEN.hardtanh_.default)  # with its limits; torch makes this of nn.ReLU6
BELOW = 0.98  # of the cap: pictures yet to come may have larger values
LARGEST = 32.0  # factor; a channel that never says anything would get any
WEIGHTS = 127  # the largest weight, in steps


class Edge(NamedTuple):
    """A convolution, its activation's cap, and the depthwise convolution that alone reads it."""

    first: fx.Node
    cap: float
    second: fx.Node


def prepare(traced: Traced, pictures: Iterable[np.ndarray]) -> None:
    """Change the weights of a traced program in place; what it answers stays, up to the corrected biases.

    Args:
        pictures: batches as it takes them, RGB uint8 (B, H, W, 3).
    """
    module = traced.program.module()
    assert isinstance(module, fx.GraphModule)
    seen = _Seen(module)
    with torch.no_grad():
        for batch in pictures:
            seen.run(torch.from_numpy(batch))
        for edge in edges(module):
            _equalise(module, edge, seen)
        for node in module.graph.nodes:
            if node.name in seen.means:
                _correct(module, node, seen.means[node.name] / seen.count)


def edges(module: fx.GraphModule) -> list[Edge]:
    """Return where channels can be equalised at no cost."""
    found = []
    for node in module.graph.nodes:
        if node.target not in CONVOLUTIONS or _parameters(module, node) is None:
            continue
        activation = _only_user(node)
        cap = None if activation is None else _cap(activation)
        if activation is None or cap is None:
            continue
        after = _only_user(activation)
        if after is not None and after.target is ATEN.pad.default:
            after = _only_user(after)
        if after is None or after.target not in CONVOLUTIONS or _parameters(module, after) is None:
            continue
        if _groups(after) == _tensor(module, node.args[1]).shape[0] > 1:
            found.append(Edge(node, cap, after))
    return found


class _Seen(fx.Interpreter):
    """Runs the program and notes each channel's largest value after convolutions and mean before them."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}
        self.count = 0

    def run(self, *arguments: Any, **options: Any) -> Any:
        self.count += 1
        return super().run(*arguments, **options)

    def run_node(self, n: fx.Node) -> Any:
        convolution = n.target in CONVOLUTIONS
        if not (convolution or n.target is ATEN.linear.default):
            return super().run_node(n)
        given = self.env[n.args[0]]  # type: ignore[index]  # a node
        others = [axis for axis in range(given.ndim) if axis != (1 if convolution else given.ndim - 1)]
        self.means[n.name] = self.means.get(n.name, 0) + given.mean(dim=others)
        found = super().run_node(n)
        if convolution:
            largest = found.amax(dim=(0, 2, 3))
            before = self.largest.get(n.name)
            self.largest[n.name] = largest if before is None else torch.maximum(largest, before)
        return found


def _equalise(module: fx.GraphModule, edge: Edge, seen: _Seen) -> None:
    largest = seen.largest[edge.first.name].clamp(min=1e-6)
    after = largest.clamp(max=edge.cap)
    factor = (after.max() / after).minimum(edge.cap * BELOW / largest).clamp(1.0, LARGEST)
    found = _parameters(module, edge.first)
    assert found is not None  # or it were no edge
    weight, bias = found
    weight.mul_(factor.view(-1, 1, 1, 1))
    if bias is not None:
        bias.mul_(factor)
    _tensor(module, edge.second.args[1]).div_(factor.view(-1, 1, 1, 1))
    seen.means[edge.second.name] = seen.means[edge.second.name] * factor


def _correct(module: fx.GraphModule, node: fx.Node, mean: Tensor) -> None:
    found = _parameters(module, node)
    if found is None or found[1] is None:
        return
    weight, bias = found
    rows = weight.flatten(1)
    step = (rows.abs().amax(dim=1, keepdim=True) / WEIGHTS).clamp(min=1e-12)
    error = ((rows / step).round() * step - rows).view(*weight.shape[:2], -1).sum(dim=2)  # (out, in)
    groups = _groups(node) if node.target in CONVOLUTIONS else 1
    inputs = mean.view(groups, 1, -1).expand(groups, len(error) // groups, -1).reshape(error.shape)
    assert bias is not None
    bias.sub_((error * inputs).sum(dim=1))


def _cap(activation: fx.Node) -> float | None:
    """Return where an activation that begins at 0 ends; None of others."""
    if activation.target in RELU:
        return float('inf')
    if activation.target in RELU6:
        return 6.0
    limits = activation.args[1:3]
    return float(limits[1]) if activation.target in BETWEEN and len(limits) == 2 and not limits[0] else None  # type: ignore[arg-type]


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _groups(node: fx.Node) -> int:
    place = 6 if node.target is ATEN.conv2d.default else 8
    return int(node.args[place]) if len(node.args) > place else 1  # type: ignore[arg-type]


def _parameters(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor | None] | None:
    """Return weight and bias of a layer; None unless it has them for itself."""
    nodes = [each for each in node.args[1:3] if isinstance(each, fx.Node)]
    if not nodes or any(each.op != 'get_attr' or len(each.users) != 1 for each in nodes):
        return None
    tensors = [_tensor(module, each) for each in nodes]
    return tensors[0], tensors[1] if len(tensors) > 1 else None


def _tensor(module: fx.GraphModule, node: Any) -> Tensor:
    found: Any = module
    for part in str(node.target).split('.'):
        found = getattr(found, part)
    return found
