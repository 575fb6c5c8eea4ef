"""MobileNetV2: inverted residuals with linear bottlenecks.

Paper: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381, Table 2 and section 3.
Dilation follows the authors' `slim/nets/mobilenet/mobilenet.py` (`mobilenet_base`, `output_stride`).
State-dict keys follow `torchvision.models.mobilenet_v2` (`features.N...`), so its weights, and the many
files that copy its layout, load without a map. slim's `layer_k` is `features[k - 1]` here.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from falconet.backbones.base import BACKBONES, Backbone
from falconet.backbones.table2 import OUTPUT_STRIDES, STAGES, TAP_NAMES, plan_network
from falconet.backbones.weights.load import load_pretrained, read_weights, settle
from falconet.core.options import SHARE, SWITCH, TEXT, check_options, number, one_of, sequence, whole
from falconet.layers import ConvNormActivation, LenientBatchNorm2d
from falconet.layers.conv import PADDINGS, in_turn

SHORTCUTS = ('bottleneck', 'expansion', 'none')


class InvertedResidual(nn.Module):
    """Section 3.3's block: 1x1 expand, 3x3 depthwise, linear 1x1 projection, shortcut between thin ends.

    Args:
        in_channels: channels of the thin input.
        out_channels: channels of the thin output.
        stride: stride of the depthwise convolution.
        dilation: dilation of the depthwise convolution.
        expansion: t of Table 2; 1 leaves the expansion out.
        stop_at_expansion: build the expansion only, for a network whose highest tap it is.
        linear, shortcut, padding, norm_eps, norm_momentum: as in `MobileNetV2`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        expansion: int,
        stop_at_expansion: bool = False,
        linear: bool = True,
        shortcut: str = 'bottleneck',
        padding: str = 'symmetric',
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        norm: dict[str, Any] = {'norm_eps': norm_eps, 'norm_momentum': norm_momentum}
        # Section 3.3, Table 1: shortcut only where stride and channels leave the shape unchanged.
        self.has_shortcut = shortcut == 'bottleneck' and stride == 1 and in_channels == out_channels
        self.joins_expansions = shortcut == 'expansion' and stride == 1
        self.has_expansion = expansion != 1

        layers: list[nn.Module] = []
        if self.has_expansion:
            layers.append(ConvNormActivation(in_channels, hidden, **norm))
        if not stop_at_expansion:
            layers += [
                ConvNormActivation(
                    hidden,
                    hidden,
                    kernel_size=3,
                    stride=stride,
                    dilation=dilation,
                    groups=hidden,
                    padding=padding,
                    **norm,
                ),
                nn.Conv2d(hidden, out_channels, 1, bias=False),
                # Linear bottleneck (section 3.2): no activation after the projection.
                LenientBatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum),
            ]
            if not linear:
                layers.append(nn.ReLU6(inplace=True))
        self.conv = nn.Sequential(*layers)

    def expand(self, thin: Tensor) -> Tensor:
        """Return the expanded tensor, (B, in, H, W) -> (B, in * expansion, H, W)."""
        return self.conv[0](thin) if self.has_expansion else thin

    def project(self, thin: Tensor, expanded: Tensor) -> Tensor:
        """Finish the block from its expanded tensor; `thin` is the block's input, for the shortcut."""
        depthwise = self.conv[1] if self.has_expansion else self.conv[0]
        tensor = depthwise(expanded)
        if self.joins_expansions:
            tensor = tensor + expanded
        return self._finish(thin, tensor)

    def _finish(self, thin: Tensor, tensor: Tensor) -> Tensor:
        for layer in self.conv[2:] if self.has_expansion else self.conv[1:]:
            tensor = layer(tensor)
        return thin + tensor if self.has_shortcut else tensor

    def forward(self, thin: Tensor) -> Tensor:
        if self.has_expansion and not self.joins_expansions:
            return self._finish(thin, in_turn(self.conv[0], self.conv[1], thin))  # type: ignore[arg-type]
        return self.project(thin, self.expand(thin))


@BACKBONES.register_module()
class MobileNetV2(Backbone):
    """MobileNetV2's convolutional part, returning the maps a head asks for.

    Layers above the highest tap are not built. Convolutions start from Kaiming's normal distribution
    over the fan-out, norms from one and zero, as torchvision does; slim drew from a normal of standard
    deviation 0.09 truncated at two deviations.

    Args:
        width: multiplier of every channel count (the paper's width multiplier), above 0.
        depth: multiplier of the blocks in stages 2 to 6, rounded up (timm's 110d is 1.2, its 120d 1.4).
        output_stride: 8, 16 or 32. Once the running stride reaches it, a layer of stride 2 keeps its
            resolution and the layers after it are dilated by 2 instead (as in the authors' code).
        taps: names of the maps to return, finest first: 'stem'; 'stage1' to 'stage7', the seven rows
            of Table 2 (16, 24, 32, 64, 96, 160, 320 channels at width 1); 'stage2_expand' to
            'stage7_expand', the expanded tensor inside the first block of that stage, before its
            stride; 'last', the 1x1 convolution to 1280 channels.
        padding: 'symmetric' for weights born in PyTorch, 'same' for TensorFlow's. Weights are only
            right under the padding they were trained with: by default what `pretrained` wants, or
            'symmetric' without it.
        stem_channels: channels of the first convolution. By default 32 * width.
        last_channels: channels of 'last'. By default 1280 * max(1, width): a width below 1 does not
            shrink it (section 5, "Memory"; the Object Detection API does shrink it).
        channel_divisor: every channel count is a multiple of it.
        linear_bottleneck: False puts a ReLU6 after every projection (Figure 6a).
        shortcut: 'bottleneck' joins the thin ends of a block; 'expansion' joins its two expanded tensors
            instead, before and after the depthwise convolution, where its stride is 1; 'none' joins
            nothing (Figure 6b).
        norm_eps: epsilon of the batch norms. torchvision 1e-5, TensorFlow 1e-3; by default what
            `pretrained` wants, or 1e-5 without it.
        norm_momentum: share of the new batch in the running statistics. torchvision 0.1;
            TensorFlow's decay 0.997 is 0.003 here.
        pretrained: a name of `backbones.weights.published.NAMED`, or a file in any layout of
            `backbones.weights.layouts`.
        frozen_stages: 0 trains everything; n keeps the stem and stages 1 to n as they are (no
            gradients, norms in evaluation mode); 8 freezes 'last' too.

    Attributes:
        normalise: mean and std (units of 0..1) that the pretrained weights want; None without any.
        settled: padding and norm_eps as they were decided, from which a checkpoint rebuilds the network.
        load_report: what became of the pretrained file's tensors; only with `pretrained`.

    Raises:
        ValueError: an argument is outside what is named above; `taps` is empty, repeats a name or is not
            finest first; `padding` or `norm_eps` contradicts the weights; the weights do not fit.
        FileNotFoundError, ConnectionError: see `backbones.weights.load.read_weights`.
    """

    from_weights = MappingProxyType({'padding': 'symmetric', 'norm_eps': 1e-5})
    wiring = MappingProxyType({'linear_bottleneck': True, 'shortcut': 'bottleneck'})
    option_values = MappingProxyType(
        {
            'width': number(above=0, most=8),
            'depth': number(above=0, most=8),
            'output_stride': one_of(*OUTPUT_STRIDES),
            'taps': sequence(TEXT, 'a sequence of names', most=len(TAP_NAMES)),
            'padding': one_of(*PADDINGS) | None,
            'stem_channels': whole(least=1, most=4096) | None,
            'last_channels': whole(least=1, most=16384) | None,
            'channel_divisor': whole(least=1, most=1024),
            'linear_bottleneck': SWITCH,
            'shortcut': one_of(*SHORTCUTS),
            'norm_eps': number(above=0, most=1) | None,
            'norm_momentum': SHARE,
            'frozen_stages': whole(least=0, most=len(STAGES) + 1),
        }
    )

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        output_stride: int = 32,
        taps: Sequence[str] = ('last',),
        padding: str | None = None,
        stem_channels: int | None = None,
        last_channels: int | None = None,
        channel_divisor: int = 8,
        linear_bottleneck: bool = True,
        shortcut: str = 'bottleneck',
        norm_eps: float | None = None,
        norm_momentum: float = 0.1,
        pretrained: str | None = None,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        check_options(self.option_values, locals())
        layers, maps = plan_network(
            width=width,
            depth=depth,
            output_stride=output_stride,
            taps=taps,
            stem_channels=stem_channels,
            last_channels=last_channels,
            channel_divisor=channel_divisor,
        )
        weights = None if pretrained is None else read_weights(pretrained)
        facts = None if weights is None else weights.facts
        self.normalise = None if facts is None else facts.normalise
        given = {'padding': padding, 'norm_eps': norm_eps}
        self.settled = settle(given, facts, source=pretrained, defaults=self.from_weights)
        options: dict[str, Any] = {**self.settled, 'norm_momentum': norm_momentum}
        self.features = nn.Sequential()
        for layer in layers:
            channels = (layer.in_channels, layer.out_channels)
            if layer.stage in (0, len(STAGES) + 1):
                kernel_size = 3 if layer.stage == 0 else 1
                block = ConvNormActivation(*channels, kernel_size, stride=layer.stride, **options)
            else:
                block = InvertedResidual(
                    *channels,
                    stride=layer.stride,
                    dilation=layer.dilation,
                    expansion=layer.expansion,
                    stop_at_expansion=layer.stops_at_expansion,
                    linear=linear_bottleneck,
                    shortcut=shortcut,
                    **options,
                )
            self.features.append(block)
        self.channels = tuple(each.channels for each in maps)
        self.strides = tuple(each.stride for each in maps)
        self._wanted = {(each.layer, each.is_expanded) for each in maps}
        self._stops_at_expansion = layers[-1].stops_at_expansion
        self._frozen_layers = sum(frozen_stages > 0 and layer.stage <= frozen_stages for layer in layers)

        self._initialise()
        if pretrained is not None:
            self.load_report = load_pretrained(self, pretrained, weights)
        for layer in self.features[: self._frozen_layers]:
            layer.requires_grad_(False)
        self.train()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        tensor = images
        for index, layer in enumerate(self.features):
            if (index, True) in self._wanted:
                assert isinstance(layer, InvertedResidual)
                expanded = layer.expand(tensor)
                maps.append(expanded)
                if index == len(self.features) - 1 and self._stops_at_expansion:
                    break
                tensor = layer.project(tensor, expanded)
            else:
                tensor = layer(tensor)
            if (index, False) in self._wanted:
                maps.append(tensor)
        return maps

    def train(self, mode: bool = True) -> 'MobileNetV2':
        """Switch to training, except in the frozen layers, whose running statistics stay as they are."""
        super().train(mode)
        for layer in self.features[: self._frozen_layers]:
            layer.eval()
        return self
