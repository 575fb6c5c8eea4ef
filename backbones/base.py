"""What a backbone promises, and the registry that finds one by name.

A backbone turns a batch of normalised images into feature maps, finest first. It says beforehand, in
two tuples, how many channels each map has and by how much each is smaller than the image. Heads are
built from these two tuples and from nothing else, so any backbone goes under any head.

Worked shapes for a batch of two 64x64 images and `MobileNetV2(taps=('stage3', 'stage5', 'last'))`:

    channels = (32, 96, 1280)
    strides  = (8, 16, 32)
    forward((2, 3, 64, 64)) -> [(2, 32, 8, 8), (2, 96, 4, 4), (2, 1280, 2, 2)]

An image side that is no multiple of the stride is rounded up: 65 pixels at stride 32 give 3 cells.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from mmengine.registry import Registry
from torch import Tensor, nn

BACKBONES = Registry('backbone', scope='mmengine', locations=['falconet.backbones'])


class Backbone(nn.Module, ABC):
    """Base class of every backbone.

    Attributes:
        channels: channels of each returned map, finest map first.
        strides: image pixels per cell of each returned map, in the same order.
        normalise: mean and std, in units of 0..1, that pretrained weights want of the images; None when
            there are none.
        settled: options that were decided by pretrained weights rather than given, from which, with the
            given ones, the backbone can be built again without those weights.
        from_weights: of the class: options that weights decide where nothing is given, and what they are
            without weights.
        wiring: of the class: options that change what is computed but neither name nor shape of a tensor,
            with their defaults. Two backbones that differ in one cannot share weights.
        option_values: of the class: what a checkpoint may set, a type of `core.options` for each option.
            Nothing that names a file or an address. None: numbers and switches only.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    normalise: Mapping[str, Sequence[float]] | None = None
    settled: Mapping[str, Any] = MappingProxyType({})
    from_weights: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    wiring: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    option_values: ClassVar[Mapping[str, Any] | None] = None

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            images: normalised images, float, (B, 3, H, W).

        Returns:
            One (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) map per entry of `channels`.
        """
