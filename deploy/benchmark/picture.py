"""The benchmark as one picture: a bar for each file in each column."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from falconet.core.names import MARK
from falconet.report.text import shown

BARS = '#4c78a8'
FIRST = '#9aa5b1'  # the checkpoint, which the others are compared with


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of what `deploy.benchmark.benchmark` returned."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = found['rows']
    panels = panels_of(found)
    wide = -(-len(panels) // 2)
    figure = Figure(figsize=(3.4 * wide, 2 * (1.1 + 0.36 * len(rows))), layout='constrained')
    FigureCanvasAgg(figure)
    names = [shown(row['file']) for row in rows]
    grid: Any = figure.subplots(2, wide, sharey=True, squeeze=False)
    for axes, (title, values) in zip(grid.flat, panels, strict=False):
        lengths = [0.0 if value is None else value for value in values]
        axes.barh(range(len(rows)), lengths, color=[FIRST, *[BARS] * (len(rows) - 1)], height=0.7)
        most = max(lengths, default=0) or 1
        for place, value in enumerate(values):
            axes.text(lengths[place] + most * 0.02, place, label(value, rows[place]), va='center', fontsize=8)
        axes.set(title=title, xlim=(0, most * 1.35), xticks=[])
        axes.title.set_fontsize(10)
        axes.set_yticks(range(len(rows)), names, parse_math=False)
        axes.spines[['top', 'right', 'bottom']].set_visible(False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    grid[0, 0].invert_yaxis()
    figure.suptitle(f'{shown(found["checkpoint"])}: {rows[0]["task"]}', parse_math=False)
    figure.savefig(path, dpi=130, metadata={'Software': MARK})


def panels_of(found: Mapping[str, Any]) -> list[tuple[str, Sequence[float | None]]]:
    """Return each panel's title, and its value for each row."""
    rows, most = found['rows'], found['threads']
    panels = [
        ('file, MB', [row['bytes'] / 1e6 for row in rows]),
        ('loading, s', [row.get('load_s') for row in rows]),
        (f'one picture, ms, {most} threads', [scaled(row['median_s'], 1e3) for row in rows]),
        ('one picture, ms, 1 thread', [scaled(row['one_thread_median_s'], 1e3) for row in rows]),
        ('from the file, ms', [scaled(row['from_file_s'], 1e3) for row in rows]),
        (f'images/s, batches of {found["batch"]}', [row['images_per_s'] for row in rows]),
        ('peak of the process, MB', [row.get('peak_mb') for row in rows]),
    ]
    if most == 1:
        del panels[3]
    names = [name for row in rows for name in row.get('score') or {}]
    if names:
        panels.append((names[0], [(row.get('score') or {}).get(names[0]) for row in rows]))
    return panels


def scaled(value: float | None, factor: float) -> float | None:
    """Return a value in another unit; None stays None."""
    return None if value is None else value * factor


def label(value: float | None, row: Mapping[str, Any]) -> str:
    """Return what stands at the end of a bar."""
    if value is None:
        return 'not installed' if row['missing'] else '-'
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'
