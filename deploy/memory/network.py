"""What a plan needs to know of a backbone: its layers one after the other, their shapes and their maps."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from falconet.core.errors import UserError
from falconet.layers.conv import SamePadConv2d


@dataclass(frozen=True)
class Convolution:
    """One convolution, its norm folded in and its activation part of it.

    Attributes:
        layer, place: it is `features[layer][place]`, or `features[layer].conv[place]`, or the first module in
            there.
        in_channels, out_channels, kernel, stride, dilation, depthwise: as usual; all square.
        same: padded as TensorFlow does, instead of symmetrically.
        relu6: a ReLU6 follows.
    """

    layer: int
    place: int
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    dilation: int
    depthwise: bool
    same: bool
    relu6: bool

    @property
    def per_cell(self) -> int:
        """Multiply-adds of one cell of its output."""
        inputs = 1 if self.depthwise else self.in_channels
        return self.kernel**2 * inputs * self.out_channels


@dataclass(frozen=True)
class Unit:
    """One layer of the network: a convolution, or a bottleneck.

    Attributes:
        project: the only convolution of a plain layer, or a bottleneck's last one.
        expand, depthwise: a bottleneck's others; None where there are none.
        shortcut: 'bottleneck' adds the input, 'expansion' adds the expanded tensor to the depthwise output.
        taps: maps to return: 'expanded', 'output', in this order.
        ends_expanded: the network ends with the expanded tensor.
    """

    index: int
    expand: Convolution | None
    depthwise: Convolution | None
    project: Convolution | None
    shortcut: str = 'none'
    taps: tuple[str, ...] = ()
    ends_expanded: bool = False

    @property
    def spatial(self) -> Convolution | None:
        """The convolution that looks at neighbours, if any."""
        return self.depthwise if self.depthwise is not None else self.project

    @property
    def hidden(self) -> int:
        """Channels that can be sliced; 1 where nothing can."""
        return 1 if self.depthwise is None else self.depthwise.in_channels

    @property
    def in_channels(self) -> int:
        """Channels of its input."""
        first = self.expand or self.depthwise or self.project
        assert first is not None
        return first.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of its output."""
        last = self.expand if self.ends_expanded else self.project
        assert last is not None
        return last.out_channels


def read_network(backbone: nn.Module) -> tuple[Unit, ...]:
    """Return the layers of a MobileNetV2, with batch norms or without.

    Raises:
        UserError: it is another network.
    """
    features = getattr(backbone, 'features', None)
    wanted = getattr(backbone, '_wanted', None)
    if not isinstance(features, nn.Sequential) or wanted is None:
        raise UserError(
            f'memory plans are for MobileNetV2, got the backbone {type(backbone).__name__}: leave --memory '
            'out'
        )
    units = []
    for index, layer in enumerate(features):
        taps = tuple(
            name for name, inside in (('expanded', True), ('output', False)) if (index, inside) in wanted
        )
        is_block = hasattr(layer, 'has_expansion')
        found = _convolutions(index, getattr(layer, 'conv', layer) if is_block else layer)
        if not is_block:
            units.append(Unit(index, None, None, found[0], taps=taps))
            continue
        expand = found.pop(0) if layer.has_expansion else None
        shortcut = 'bottleneck' if layer.has_shortcut else 'expansion' if layer.joins_expansions else 'none'
        if not found:
            units.append(Unit(index, expand, None, None, taps=taps, ends_expanded=True))
        else:
            units.append(Unit(index, expand, found[0], found[1], shortcut=shortcut, taps=taps))
    return (*units,)


def _convolutions(index: int, layers: nn.Module) -> list[Convolution]:
    found = []
    for place, layer in enumerate(layers.children()):
        inner = [each for each in layer.modules() if isinstance(each, nn.Conv2d)]
        if not inner:
            if isinstance(layer, nn.ReLU6) and found:
                found[-1] = Convolution(**{**found[-1].__dict__, 'relu6': True})
            continue
        (each,) = inner
        found.append(
            Convolution(
                layer=index,
                place=place,
                in_channels=each.in_channels,
                out_channels=each.out_channels,
                kernel=each.kernel_size[0],
                stride=each.stride[0],
                dilation=each.dilation[0],
                depthwise=each.groups > 1,
                same=isinstance(each, SamePadConv2d),
                relu6=any(isinstance(part, nn.ReLU6) for part in layer.modules()),
            )
        )
    return found


def sides(units: Sequence[Unit], size: int) -> list[int]:
    """Return the side of the input of every unit, and of the last output, for a picture's side."""
    found = [size]
    for unit in units:
        stride = 1 if unit.spatial is None else unit.spatial.stride
        found.append(-(-found[-1] // stride))
    return found
