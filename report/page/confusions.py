"""What is taken for what: a classifier's pictures, a segmentation network's pixels."""

from collections.abc import Sequence

import numpy as np

from falconet.report.page.drawings import heat_map
from falconet.report.page.findings import Section
from falconet.report.page.markup import Html, element, joined, name, table
from falconet.report.text import shown

MATRIX_CLASSES = 30  # in a matrix
ROWS = 20  # of the table below it
NAMED = 3  # classes of a tie


def commonest(row: np.ndarray, own: int) -> list[int]:
    """Return which other classes a class is most often taken for: several that tie, none if it never is.

    Args:
        row: how often it is taken for each class, (C,).
        own: its own index.
    """
    wrong = row.copy()
    wrong[own] = 0
    return np.flatnonzero(wrong == wrong.max()).tolist() if wrong.any() else []


def listed(names: Sequence[str]) -> str:
    """Return class names in a line: 'cat', 'cat and dog', 'cat, dog, cow and 4 others'."""
    parts = [shown(each, limit=24) for each in names[:NAMED]]
    left = len(names) - NAMED
    if left > 0:
        parts.append(f'{left:,} {"other" if left == 1 else "others"}')
    return ' and '.join(filter(None, [', '.join(parts[:-1]), *parts[-1:]]))


def confusion_section(confusion: np.ndarray, names: Sequence[str], *, unit: str, by_share: bool) -> Section:
    """Return the confusion matrix, up to `MATRIX_CLASSES`, and a table of the commonest confusions.

    Args:
        confusion: (C, C) counts, rows are the true class.
        names: class names.
        unit: what is counted: 'pictures'.
        by_share: say shares of the true class and sort by them, and no counts.
    """
    totals = np.maximum(confusion.sum(axis=1), 1)
    places = np.argwhere(confusion)
    true, taken = places[places[:, 0] != places[:, 1]].T
    counts = confusion[true, taken]
    shares = np.divide(counts, totals[true])
    order = np.argsort(-(shares if by_share else counts), kind='stable')[:ROWS]
    rows = [
        (
            name(names[int(true[place])]),
            name(names[int(taken[place])]),
            *([] if by_share else [f'{counts[place]:,}']),
            f'{shares[place]:.1%}',
        )
        for place in order.tolist()
    ]
    parts: list[Html] = []
    if len(names) <= MATRIX_CLASSES:
        parts.append(heat_map(confusion, names, percent=by_share))
        if by_share:
            parts.append(element('p', 'In percent of the true class.', class_='quiet'))
    else:
        words = f'{len(names):,} classes are too many for a matrix; metrics.json has it.'
        parts.append(element('p', words, class_='quiet'))
    columns = ('true class', 'taken for', *([] if by_share else [unit]), 'share')
    caption = f'the commonest confusions, and the share of the {unit} of the true class'
    parts.append(table(columns, rows, words=['taken for'], caption=caption))
    return Section('Confusions', joined(parts))
