"""Counting a network: parameters, multiply-adds, and the memory its activations need.

Multiply-adds come from torch's FlopCounterMode, which counts two operations for each. Memory follows the
paper (arXiv 1801.04381, section 5.1): an operator needs its inputs and outputs at once, and the network needs
as much as its neediest operator; a bottleneck can be one operator, or a sum over slices of its inner tensor.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from falconet.backbones.mobilenetv2 import InvertedResidual, MobileNetV2


def parameters(*modules: nn.Module, norms: bool = True) -> int:
    """Return how many parameters the modules have; `norms=False` leaves batch norms out, as slim does."""
    return sum(
        value.numel()
        for module in modules
        for part in module.modules()
        if norms or not isinstance(part, nn.BatchNorm2d)
        for value in part.parameters(recurse=False)
    )


def multiply_adds(run: Callable[[], Any]) -> int:
    """Return the multiply-adds of everything that `run` computes; tensors may be on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def atrous_surplus(run: Callable[[], Any], *modules: nn.Module) -> int:
    """Return the multiply-adds that TensorFlow 1 added to those of `multiply_adds` in dilated convolutions.

    It ran a convolution of rate r as r * r plain ones over every r-th row and column (`space_to_batch`), for
    which it padded the map's sides to a multiple of r.

    Args:
        run: computes something with the modules, at stride 1 wherever they dilate.
        modules: whose convolutions are looked at.
    """
    surplus = 0

    def note(layer: nn.Module, _: Any, made: Tensor) -> None:
        nonlocal surplus
        assert isinstance(layer, nn.Conv2d)
        rate = layer.dilation[0]
        height, width = made.shape[2:]
        padded = (-(-height // rate) * rate) * (-(-width // rate) * rate)
        surplus += (padded - height * width) * layer.weight.numel() * len(made)

    layers = [each for module in modules for each in module.modules() if isinstance(each, nn.Conv2d)]
    hooks = [each.register_forward_hook(note) for each in layers if each.dilation[0] > 1]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return surplus


def peak_memory(backbone: MobileNetV2, side: int, *, slices: int | None = None, value_bytes: int = 2) -> int:
    """Return the bytes that the activations of one picture need at the worst moment.

    Args:
        backbone: the network, on any device.
        side: of the square picture, in pixels.
        slices: None runs every convolution by itself; 1 makes each bottleneck one operator whose inner tensor
            is never stored; t above 1 computes it as a sum over t slices of the inner tensor.
        value_bytes: of one number; 2 is the paper's 16 bit.
    """
    needs = plain_needs(backbone, side) if slices is None else block_needs(backbone, side, slices)
    return max(needs) * value_bytes


def plain_needs(backbone: MobileNetV2, side: int) -> Iterator[int]:
    """Yield the numbers each convolution needs: its input, its output, and a shortcut that waits."""
    for layer, given, _ in shapes(backbone, side, nn.Conv2d, InvertedResidual):
        if not isinstance(layer, InvertedResidual):
            continue
        waiting = given.numel() if layer.has_shortcut else 0
        for convolution, inner, outer in shapes(layer, given, nn.Conv2d):
            # The first reads the very tensor that waits.
            extra = 0 if inner.shape == given.shape and convolution is first_convolution(layer) else waiting
            yield inner.numel() + outer.numel() + extra
    ends = [backbone.features[0]]
    if not isinstance(backbone.features[-1], InvertedResidual):
        ends.append(backbone.features[-1])
    for layer, given, made in shapes(backbone, side, type(ends[0])):
        if layer in ends:
            yield given.numel() + made.numel()


def block_needs(backbone: MobileNetV2, side: int, slices: int) -> Iterator[int]:
    """Yield the numbers each layer needs when a bottleneck is one operator, or a sum over slices."""
    outer = (type(backbone.features[0]), InvertedResidual)
    for layer, given, made in shapes(backbone, side, *outer):
        if layer not in set(backbone.features):
            continue
        inner = 0
        if isinstance(layer, InvertedResidual) and slices > 1:
            hidden = next(each for each in layer.modules() if isinstance(each, nn.Conv2d) and each.groups > 1)
            channels = math.ceil(hidden.in_channels / slices)
            # A slice of the expanded tensor, and of what the depthwise convolution makes of it.
            inner = channels * (given.shape[2] * given.shape[3] + made.shape[2] * made.shape[3])
        yield given.numel() + made.numel() + inner


def first_convolution(layer: nn.Module) -> nn.Module:
    """Return the first convolution inside a layer."""
    return next(each for each in layer.modules() if isinstance(each, nn.Conv2d))


def shapes(
    module: nn.Module, images: int | Tensor, *kinds: type[nn.Module]
) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Run a module and return (layer, input, output) of every layer of some kinds, in order."""
    found: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        found.append((layer, given[0], made))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, kinds)]
    device = next(module.parameters()).device
    with torch.no_grad():
        module(torch.zeros(1, 3, images, images, device=device) if isinstance(images, int) else images)
    for hook in hooks:
        hook.remove()
    return found
