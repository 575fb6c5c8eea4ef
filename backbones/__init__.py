"""Backbones: networks that turn images into feature maps."""

from backbones.base import BACKBONES, Backbone
from backbones.mobilenetv2 import MobileNetV2
from backbones.timm_adapter import TimmBackbone

__all__ = ['BACKBONES', 'Backbone', 'MobileNetV2', 'TimmBackbone']
