"""The range of each tensor that eight bits are spread over: the one with the least squared error.

Ranges that are wide enough for every value waste levels on a few; averages of what single pictures have cut
off too much: of a MobileNetV2 they cost a quarter of its answers.
"""

from collections.abc import Mapping

import numpy as np

KEPT = 4000  # values of a tensor that are kept of each picture
LEVELS = 255
SHARES = np.linspace(0.3, 1.0, 29)  # of the whole range, that are tried


class Ranges:
    """Values seen in tensors, and what range to give each."""

    def __init__(self, *, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._kept: dict[str, list[np.ndarray]] = {}
        self._whole: dict[str, tuple[float, float]] = {}

    def see(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Add the values of one picture's tensors, by name."""
        for name, each in tensors.items():
            values = each.ravel()
            low, high = self._whole.get(name, (0.0, 0.0))
            self._whole[name] = (min(low, float(values.min())), max(high, float(values.max())))
            if values.size > KEPT:
                values = values[self._random.integers(0, values.size, KEPT)]
            self._kept.setdefault(name, []).append(values.copy())

    def best(self) -> dict[str, tuple[float, float]]:
        """Return (low, high) of each tensor; 0 is within."""
        return {
            name: best_range(np.concatenate(self._kept[name]), *whole) for name, whole in self._whole.items()
        }


def best_range(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Return the part of a range, 0 within, whose levels are nearest to the values (least squares).

    Args:
        values: some of the tensor, any shape.
        low, high: the smallest and largest of all of them; at most and at least 0.
    """
    if not high > low:
        return 0.0, 1.0  # nothing but zeros
    errors = []
    for share in SHARES:
        step = (high - low) * share / LEVELS
        zero = np.round(-low * share / step)
        levels = np.clip(np.round(values / step) + zero, 0, LEVELS)
        errors.append(float(np.square((levels - zero) * step - values).mean()))
    share = float(SHARES[int(np.argmin(errors))])
    return low * share, high * share
