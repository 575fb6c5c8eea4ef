"""Layers that backbones and heads share. Torch only."""
