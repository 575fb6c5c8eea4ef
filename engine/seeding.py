"""Randomness that depends on a position in the run, never on what was drawn before it.

A run's weights start from the seed; every iteration draws from a state made of (seed, iteration, rank). So
there is no generator state to save, and a resumed run continues exactly, with any number of workers.
"""

import random

import numpy as np
import torch


def seed_everything(*key: int) -> None:
    """Seed Python, NumPy and torch (all devices) from a tuple of non-negative integers."""
    low, high = np.random.SeedSequence(key).generate_state(2, np.uint32).tolist()
    random.seed(low)
    np.random.seed(low)
    torch.manual_seed(high << 32 | low)
