"""What SSDLite is built from: the maps it adds, and what predicts from a map. MobileNetV2, section 6.2."""

from typing import Any

from torch import nn


def extra_map(in_channels: int, out_channels: int, *, separable: bool, layer: Any) -> nn.Sequential:
    """1x1 to half the channels, then a 3x3 at stride 2: depthwise and 1x1, or full."""
    thin = out_channels // 2
    if not separable:
        return nn.Sequential(layer(in_channels, thin), layer(thin, out_channels, 3, stride=2))
    return nn.Sequential(
        layer(in_channels, thin),
        layer(thin, thin, 3, stride=2, groups=thin),
        layer(thin, out_channels),
    )


def map_predictor(in_channels: int, out_channels: int, *, separable: bool, layer: Any) -> nn.Sequential:
    """3x3 depthwise, then 1x1 with bias; or one full 3x3 with bias."""
    if not separable:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1))
    return nn.Sequential(
        layer(in_channels, in_channels, 3, groups=in_channels), nn.Conv2d(in_channels, out_channels, 1)
    )
