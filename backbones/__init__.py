"""Backbones: networks that turn images into feature maps."""

if __name__ == 'backbones':
    raise ImportError(
        'import falconet.backbones: by its bare name it would be a second copy, with registries of its own'
    )

from falconet.backbones.base import BACKBONES, Backbone
from falconet.backbones.mobilenetv2 import MobileNetV2
from falconet.backbones.timm_adapter import TimmBackbone

__all__ = ['BACKBONES', 'Backbone', 'MobileNetV2', 'TimmBackbone']
