"""Heads: what turns feature maps into a task's answer."""

from heads.base import HEADS, ClassRows, Enlarges, Head
from heads.deeplabv3 import DeepLabV3Head
from heads.linear import LinearHead
from heads.ssdlite import SSDLiteHead

__all__ = ['HEADS', 'ClassRows', 'DeepLabV3Head', 'Enlarges', 'Head', 'LinearHead', 'SSDLiteHead']
