"""Layers that backbones and heads share. Torch only."""

from layers.conv import ConvNormActivation, LenientBatchNorm2d, SamePadConv2d

__all__ = ['ConvNormActivation', 'LenientBatchNorm2d', 'SamePadConv2d']
