"""Whether scores can be read as probabilities: the expected calibration error and what it is made of.

Source: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599, section 2 (15 equal bins).
"""

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Answers by their score.

    Attributes:
        confidence, right: mean score and share of right answers in every bin, float64 (B,); 0 where empty.
        counts: answers in every bin, int64 (B,).
    """

    confidence: np.ndarray
    right: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float | None:
        """The expected calibration error, 0 to 1; None without answers."""
        total = self.counts.sum()
        if not total:
            return None
        return float((np.abs(self.confidence - self.right) * self.counts).sum() / total)

    @property
    def too_sure(self) -> float:
        """Mean score less the share of right answers: above 0 it promises too much."""
        total = max(1, int(self.counts.sum()))
        return float(((self.confidence - self.right) * self.counts).sum() / total)


def calibrate(scores: np.ndarray, right: np.ndarray, *, bins: int = BINS) -> Calibration:
    """Sort answers into bins of equal width.

    Args:
        scores: of the answers, 0 to 1, (K,).
        right: whether each is, bool (K,).
        bins: B.
    """
    place = np.clip(np.ceil(scores.astype(np.float64) * bins).astype(np.intp) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    divisor = np.maximum(counts, 1)
    return Calibration(
        np.bincount(place, weights=scores, minlength=bins) / divisor,
        np.bincount(place, weights=right, minlength=bins) / divisor,
        counts,
    )
