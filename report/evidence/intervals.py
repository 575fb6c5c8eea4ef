"""How much a score would change with other pictures: the bootstrap over pictures.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 10 (bias) and 13 (percentiles).
Pictures are drawn, not objects or pixels: those of one picture stand or fall together. An average precision
is a little higher in sets with repetitions (its envelope takes the best of what chance offers), so the draws
are moved until their mean is the score itself; shares are not moved by that.
"""

from collections.abc import Callable, Iterator

import numpy as np

DRAWS = 400
FEWEST = 5  # pictures that an interval needs


def resampled(pictures: int, draws: int = DRAWS, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each picture is in a set drawn with replacement: int64 (N,), `draws` times."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(generator.integers(0, pictures, pictures), minlength=pictures)


def intervals(
    scores: Callable[[np.ndarray], np.ndarray], pictures: int, *, draws: int = DRAWS, share: float = 0.95
) -> np.ndarray:
    """Return the lower and upper end of the interval of several scores.

    Args:
        scores: (how often each picture counts, (N,)) -> scores (S,), NaN where there is nothing to score.
        pictures: N.
        draws: sets of pictures that are drawn.
        share: of the draws inside.

    Returns:
        float64 (2, S); NaN for all with fewer than `FEWEST` pictures, and for a score that most draws lack.
    """
    if pictures < FEWEST:
        count = len(scores(np.ones(pictures, dtype=np.int64)))
        return np.full((2, count), np.nan)
    drawn = np.stack([scores(weights) for weights in resampled(pictures, draws)])  # (draws, S)
    ends = np.full((2, drawn.shape[1]), np.nan)
    value = scores(np.ones(pictures, dtype=np.int64))
    known = (np.isfinite(drawn).sum(axis=0) > draws // 2) & np.isfinite(value)
    if known.any():
        tail = (1 - share) / 2
        ends[:, known] = np.nanquantile(drawn[:, known], [tail, 1 - tail], axis=0)
        ends[:, known] += value[known] - np.nanmean(drawn[:, known], axis=0)
    return np.clip(ends, 0.0, 1.0)


def ends_of(ends: np.ndarray, index: int) -> tuple[float | None, float | None]:
    """Return the interval of one score out of `intervals`, None for NaN."""
    low, high = ends[:, index].tolist()
    return (None, None) if np.isnan(low) else (low, high)
