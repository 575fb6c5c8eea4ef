"""Faster training on CPUs: compiled kernels, fused norms, recomputed maps."""
