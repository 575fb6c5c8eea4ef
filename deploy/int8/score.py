"""What INT8 cost: the score of a checkpoint and of its program, on the data that tools/test.py uses."""

from collections.abc import Mapping
from pathlib import Path

from falconet.core.errors import UserError

POINTS = 100  # a score of 1


def points_lost(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return by how many points the first score of `before` is above that of `after`."""
    name = next(iter(before))
    # One picture of a hundred is one point, and not a last bit more.
    return round(POINTS * (before[name] - after[name]), 6)


def check_drop(
    path: Path, before: Mapping[str, float], after: Mapping[str, float], *, most: float, pictures: int
) -> float:
    """Return the points that a program in INT8 lost, or raise UserError where they are more than `most`."""
    lost = points_lost(before, after)
    if not lost <= most:  # nor where one is not a number
        name = next(iter(before))
        raise UserError(
            f'{path.name}: in INT8 {name} is {after[name]:.4f}, {lost:.2f} points below the '
            f"checkpoint's {before[name]:.4f}; at most {most:g} may be lost. Nothing was written: calibrate "
            f'on more pictures (--calibration, {pictures} now) or ones more like those that it is scored on '
            '(--calibrate-on), fine-tune it in eight bits (--qat EPOCHS), try another format, or allow more '
            'with --max-drop'
        )
    return lost
