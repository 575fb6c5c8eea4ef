"""Weights of MobileNetV2 wherever they come from: files, layouts, published names."""
