"""What one unit needs on one patch, without writing its steps out: the search asks a hundred thousand times.

The numbers are those of `build.run_unit` and `steps.peak`, which a test holds them to.
"""

from itertools import pairwise

from falconet.deploy.memory.geometry import Reach, needs_copy
from falconet.deploy.memory.network import Unit
from falconet.deploy.memory.plan import Rules


def unit_peak(unit: Unit, rules: Rules, rows: Reach, columns: Reach, most_slices: int) -> list[int]:
    """Return the bytes alive inside a unit, input and output included, for 1, 2, ... `most_slices` slices."""
    spatial, values = unit.spatial, rules.value_bytes
    given, made = rows.given * columns.given * values, rows.made * columns.made * values
    padded = 0
    if spatial is not None and needs_copy(spatial, rows, columns, same_only=rules.same_only):
        height = rows.given + rows.before + rows.after
        padded = height * (columns.given + columns.before + columns.after) * values
    thin = unit.in_channels * given
    if unit.depthwise is None:
        copy = unit.in_channels * padded
        return [max(thin + copy, (copy or thin) + unit.out_channels * made)]
    out = unit.out_channels * made
    is_cropped = (rows.given, columns.given) != (rows.made, columns.made)
    keeps = unit.shortcut == 'bottleneck'
    end = 0
    if keeps:
        crop = unit.in_channels * made if is_cropped else 0
        end = max(thin + crop + out if crop else 0, (crop or thin) + 2 * out)
    peaks = []
    for slices in range(1, most_slices + 1):
        bounds = [-(-unit.hidden * each // slices) for each in range(slices + 1)]
        in_place, worst, total = rules.in_place and slices > 1, end, 0
        for first, last in pairwise(bounds):
            count, is_last = last - first, last == unit.hidden
            here = thin if keeps or not is_last else 0  # the thin input, where it is needed later
            expanded = count * given
            if unit.expand is not None or slices > 1:
                worst = max(worst, thin + expanded + total)
                if in_place:
                    total = out
                    worst = max(worst, here + expanded + total)
            else:  # the unit's input is its expanded tensor
                here = thin if keeps else 0
                expanded = 0 if keeps else thin
            inner, copy = count * made, count * padded
            joins = unit.shortcut == 'expansion'
            kept = expanded if joins else 0
            if copy:
                worst = max(worst, here + total + expanded + copy, here + total + kept + copy + inner)
            else:
                worst = max(worst, here + total + expanded + inner)
            if joins:
                crop = inner if is_cropped else 0
                if crop:
                    worst = max(worst, here + total + inner + expanded + crop)
                worst = max(worst, here + total + 2 * inner + (crop or expanded))
            if in_place:
                worst = max(worst, here + total + inner)
            else:
                worst = max(worst, here + total + inner + out, here + total + 2 * out if total else 0)
                total = out
        peaks.append(worst)
    return peaks


def unit_work(unit: Unit, given: int, made: int) -> int:
    """Return a unit's multiply-adds, for so many cells of its input and of its output."""
    if unit.depthwise is None:
        convolution = unit.project or unit.expand
        assert convolution is not None
        return made * convolution.per_cell
    assert unit.project is not None
    expand = 0 if unit.expand is None else given * unit.expand.per_cell
    return expand + made * (unit.depthwise.per_cell + unit.project.per_cell)
