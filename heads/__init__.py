"""Heads: what turns feature maps into a task's answer."""

if __name__ == 'heads':
    raise ImportError(
        'import falconet.heads: by its bare name it would be a second copy, with registries of its own'
    )

from falconet.heads.base import HEADS, ClassRows, Enlarges, Head
from falconet.heads.deeplabv3 import DeepLabV3Head
from falconet.heads.linear import LinearHead
from falconet.heads.ssdlite import SSDLiteHead

__all__ = ['HEADS', 'ClassRows', 'DeepLabV3Head', 'Enlarges', 'Head', 'LinearHead', 'SSDLiteHead']
