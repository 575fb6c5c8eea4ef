"""Layers that backbones and heads share. Torch only."""

if __name__ == 'layers':
    raise ImportError(
        'import falconet.layers: by its bare name it would be a second copy, with registries of its own'
    )

from falconet.layers.conv import ConvNormActivation, LenientBatchNorm2d, SamePadConv2d

__all__ = ['ConvNormActivation', 'LenientBatchNorm2d', 'SamePadConv2d']
