"""Plots of scores: confusion matrices and precision-recall curves."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from falconet.core.names import MARK
from falconet.report.boxes import COLOURS
from falconet.report.text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_confusion(confusion: np.ndarray, names: Sequence[str], path: Path, *, percent: bool = False) -> None:
    """Draw a confusion matrix, each row scaled to shares of its true class, as a PNG.

    Args:
        confusion: (C, C) counts, rows are the true class.
        names: class names.
        path: file to write.
        percent: write shares into the cells, in percent, instead of counts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(names)
    labelled = count <= 40
    side = min(12.0, 2.5 + 0.6 * count) if labelled else 9.0
    figure = Figure(figsize=(side + 1, side), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axes.set(xlabel='predicted', ylabel='true', title='Confusion matrix (share of the true class)')
    if labelled:
        titles = [shown(name) for name in names]
        axes.set_xticks(
            range(count), titles, rotation=45, ha='right', rotation_mode='anchor', parse_math=False
        )
        axes.set_yticks(range(count), titles, parse_math=False)
    if count <= 20:
        for row, column in np.ndindex(count, count):
            if confusion[row, column]:
                axes.text(
                    column,
                    row,
                    f'{100 * shares[row, column]:.0f}' if percent else str(confusion[row, column]),
                    ha='center',
                    va='center',
                    color='white' if shares[row, column] > 0.5 else 'black',
                )
    figure.colorbar(picture, shrink=0.8)
    _save(figure, path)


def draw_precision_recall(
    recall: np.ndarray, curves: Mapping[str, np.ndarray], per_class: Mapping[str, np.ndarray], path: Path
) -> None:
    """Draw precision over recall, mean over classes at several IoUs and each class at IoU 0.5, as a PNG.

    Args:
        recall: (R,), 0 to 1.
        curves: title -> precision (R,).
        per_class: class -> precision (R,) at IoU 0.5; drawn with a legend up to 20 classes.
        path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for title, precision in curves.items():
        left.plot(recall, precision, label=f'{title} (AP {precision.mean():.3f})')
    left.set_title('mean over classes')
    few = len(per_class) <= 20
    for index, (name, precision) in enumerate(per_class.items()):
        colour = [channel / 255 for channel in COLOURS[index % len(COLOURS)]]
        style = '-' if index < len(COLOURS) else '--'
        if few:
            title = f'{shown(name)} (AP {precision.mean():.3f})'
            title = f' {title}' if title.startswith('_') else title  # which legends leave out
            right.plot(recall, precision, style, color=colour, label=title)
        else:
            right.plot(recall, precision, color='0.6', linewidth=0.7)
    right.set_title('each class, IoU 0.5')
    for axes, has_legend in ((left, bool(curves)), (right, few and bool(per_class))):
        axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if has_legend:
            for text in axes.legend(loc='best', fontsize='small').get_texts():
                text.set_parse_math(False)
    _save(figure, path)


def _save(figure: 'Figure', path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Letters that the font lacks become boxes, names too long for the figure stick out of it.
        warnings.filterwarnings('ignore', 'Glyph .* missing from|constrained_layout not applied')
        figure.savefig(path, dpi=110, metadata={'Software': MARK})
