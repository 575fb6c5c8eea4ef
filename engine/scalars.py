"""The numbers of a run over its course, from what mmengine logs into the run's folder.

Every session, the first and each that resumed, has a folder of its own, named by its time, with
`vis_data/scalars.json`: one object a line, of an iteration or of a validation.
"""

import json
from pathlib import Path
from typing import Any

from falconet.report.page.drawings import thinned

NO_CURVES = ('iter', 'epoch', 'step', 'time', 'data_time', 'memory')

Series = dict[str, tuple[list[float], list[float]]]


def read_scalars(folder: Path) -> tuple[Series, Series]:
    """Return what was logged in training and in validation: name -> (iterations, values).

    Where sessions overlap, the later one counts. Lines that a killed process left half are passed over.
    """
    training: dict[int, dict[str, float]] = {}
    validation: dict[int, dict[str, float]] = {}
    latest = 0
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8', errors='replace').splitlines():
            entry = _numbers(line)
            if 'iter' in entry:
                latest = int(entry['iter'])
                training[latest] = entry
            elif entry:
                validation[latest] = entry
    return _series(training), _series(validation)


def plain_series(series: Series) -> dict[str, list[list[float]]]:
    """Return series as plain values, thinned and rounded, for the data that a page carries."""
    return {
        name: [[float(f'{value:.5g}') for value in part] for part in thinned(*points)]
        for name, points in series.items()
    }


def _numbers(line: str) -> dict[str, float]:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(entry, dict):
        return {}
    return {str(key): float(value) for key, value in entry.items() if isinstance(value, (int, float))}


def _series(entries: dict[int, dict[str, float]]) -> Series:
    series: Series = {}
    for place in sorted(entries):
        for name, value in entries[place].items():
            if name not in NO_CURVES:
                xs, ys = series.setdefault(name, ([], []))
                xs.append(place)
                ys.append(value)
    return series
