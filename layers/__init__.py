"""Layers that backbones and heads share. Torch only."""

from layers.conv import PADDINGS, ConvNormActivation, LenientBatchNorm2d, SamePadConv2d

__all__ = ['PADDINGS', 'ConvNormActivation', 'LenientBatchNorm2d', 'SamePadConv2d']
