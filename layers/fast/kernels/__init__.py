"""Loops in Numba for training on CPUs. Importing this package imports Numba: do it at the first use."""
