"""A top-down path over maps of falling resolution: what the coarse ones understand reaches the fine ones.

Feature pyramid networks, arXiv 1612.03144, section 3, with the separable convolutions of the TensorFlow
Object Detection API's FPNLite (`ssd_mobilenet_v2_fpn_feature_extractor`, `use_depthwise`).
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Bring maps to one number of channels, and add to each the next coarser one.

    Args:
        channels: of the maps, finest first.
        width: channels of the maps returned.
        separable: smooth the sums by depthwise-separable convolutions; False by full ones.
        layer: makes a convolution with norm and activation, as `layers.ConvNormActivation`.
    """

    def __init__(self, channels: Sequence[int], width: int, *, separable: bool, layer: Any) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(layer(each, width, activation=nn.Identity) for each in channels)
        self.outputs = nn.ModuleList(
            nn.Sequential(layer(width, width, 3, groups=width), layer(width, width))
            if separable
            else layer(width, width, 3)
            for _ in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return as many maps (B, width, H_i, W_i) as were given, (B, C_i, H_i, W_i), finest first."""
        merged = [lateral(each) for lateral, each in zip(self.laterals, maps, strict=True)]
        for finer in range(len(merged) - 2, -1, -1):
            merged[finer] = merged[finer] + enlarged(merged[finer + 1], merged[finer])
        return [output(each) for output, each in zip(self.outputs, merged, strict=True)]


def enlarged(coarse: Tensor, fine: Tensor) -> Tensor:
    """Repeat the cells of a map (B, C, h, w) until it covers one of (B, C, H, W), and cut off the rest.

    A whole factor means the same to every engine; to a size that is none of its multiples, as 7 to 13, LiteRT
    picks other cells than torch.
    """
    height, width = fine.shape[2:]
    factors = [-(-height // coarse.shape[2]), -(-width // coarse.shape[3])]
    if factors != [1, 1]:
        coarse = F.interpolate(coarse, scale_factor=[float(each) for each in factors], mode='nearest')
    return coarse[:, :, :height, :width]
