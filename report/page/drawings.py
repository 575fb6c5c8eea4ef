"""Curves and diagrams as inline SVG: a few kilobytes each, in the colours of the page, light or dark.

(matplotlib's SVG of the same curve has 30 kB, letters as outlines and the colours of a white page.)
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from falconet.report.page.markup import Html, element, joined, name

WIDTH, HEIGHT = 400, 240  # as on a phone, so that letters keep their size there
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 34
MOST_POINTS = 300  # of a curve
MOST_CURVES = 8


class Curve(NamedTuple):
    """A named line through points."""

    title: str
    x: Sequence[float]
    y: Sequence[float]


class Frame(NamedTuple):
    """What the corners of a diagram stand for."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return where on the drawing a value lies."""
        return LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return where on the drawing a value lies, counted from the top."""
        share = (value - self.y_low) / ((self.y_high - self.y_low) or 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def plot(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str = '',
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Html:
    """Return curves in one diagram, the first `MOST_CURVES` of them; values that are not finite are gaps."""
    curves = [Curve(each.title, *thinned(each.x, each.y)) for each in curves]
    left_out = len(curves) - MOST_CURVES
    curves = [each for each in curves[:MOST_CURVES] if len(each.x)]
    if not curves:
        return element('figure', element('figcaption', f'{title}: nothing was logged'))
    frame = Frame(
        *(x_range or _limits([each.x for each in curves], padded=False)),
        *(y_range or _limits([each.y for each in curves], padded=True)),
    )
    parts = [_axes(frame, x_label)]
    for index, curve in enumerate(curves):
        points = [f'{frame.x(x):.1f},{frame.y(y):.1f}' for x, y in zip(curve.x, curve.y, strict=True)]
        colour = f'stroke:var(--c{index})'
        if len(points) == 1:
            x, y = points[0].split(',')
            parts.append(element('circle', cx=x, cy=y, r=4, style=f'fill:var(--c{index})'))
        else:
            parts.append(element('path', d='M' + 'L'.join(points), class_='curve', style=colour))
    legend = [
        legend_entry(f'var(--c{index})', each.title) for index, each in enumerate(curves) if len(curves) > 1
    ]
    more = [f' (and {left_out} more)'] if left_out > 0 else []
    return element('figure', element('figcaption', title, *legend, *more), _drawing(title, parts))


def legend_entry(colour: str, title: str) -> Html:
    """Return a square of a colour, in CSS, and what it stands for, on one line."""
    key = element('span', class_='key', style=f'background:{colour}')
    return element('span', key, name(title), class_='entry')


def reliability(title: str, confidence: np.ndarray, right: np.ndarray, counts: np.ndarray) -> Html:
    """Return a reliability diagram: how often answers of a confidence are right, against the diagonal.

    Args:
        title: of it.
        confidence, right, counts: mean confidence, share of right answers and answers in every bin, (B,).
    """
    frame = Frame(0, 1, 0, 1)
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    most = max(1, int(counts.max(initial=0)))
    parts = [_axes(frame, 'score')]
    parts.append(
        element('path', d=f'M{frame.x(0)},{frame.y(0)}L{frame.x(1)},{frame.y(1)}', class_='curve',
                style='stroke:var(--quiet);stroke-dasharray:4 4')
    )  # fmt: skip
    for index in np.flatnonzero(counts).tolist():
        top = frame.y(float(right[index]))
        opacity = 0.25 + 0.6 * math.sqrt(counts[index] / most)
        text = f'{counts[index]:,} answers, mean score {confidence[index]:.2f}, right {right[index]:.2f}'
        parts.append(
            element(
                'rect',
                element('title', text),
                x=f'{LEFT + index * width + 1:.1f}',
                y=f'{top:.1f}',
                width=f'{width - 2:.1f}',
                height=f'{frame.y(0) - top:.1f}',
                style=f'fill:var(--c0);opacity:{opacity:.2f}',
            )
        )
    return element('figure', element('figcaption', title), _drawing(title, parts))


def heat_map(counts: np.ndarray, names: Sequence[str], *, percent: bool) -> Html:
    """Return a confusion matrix as a table: rows are the true class, columns the predicted one, by number."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = element(
        'tr', element('th', 'true \\ predicted'), *(element('th', i + 1) for i in range(len(names)))
    )
    rows = []
    for i, title in enumerate(names):
        cells = []
        for j in range(len(names)):
            colour = 'c2' if i == j else 'c1'
            strength = round(75 * float(shares[i, j]) ** 0.7)
            style = (
                f'background:color-mix(in srgb,var(--{colour}) {strength}%,transparent)' if strength else None
            )
            text = '' if not counts[i, j] else f'{100 * shares[i, j]:.0f}' if percent else f'{counts[i, j]:,}'
            cells.append(element('td', text, style=style, title=f'{shares[i, j]:.1%}' if text else None))
        rows.append(element('tr', element('th', f'{i + 1} ', name(title, limit=24)), *cells))
    return element('div', element('table', head, *rows, class_='cells'), class_='scroll')


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return finite points, at most `MOST_POINTS`: means of neighbours where there are more."""
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[keep], ys[keep]
    if len(xs) > MOST_POINTS:
        parts = np.array_split(np.arange(len(xs)), MOST_POINTS)
        xs = np.array([xs[part].mean() for part in parts])
        ys = np.array([ys[part].mean() for part in parts])
    return xs.tolist(), ys.tolist()


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [each * step for each in range(first, math.floor(high / step + 1e-9) + 1)]


def _limits(values: Sequence[Sequence[float]], *, padded: bool) -> tuple[float, float]:
    low = min(min(each) for each in values)
    high = max(max(each) for each in values)
    if low == high:
        return low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    pad = 0.04 * (high - low) if padded else 0.0
    return low - (0.0 if 0 <= low <= pad else pad), high + pad


def _axes(frame: Frame, x_label: str) -> Html:
    parts = []
    for value in ticks(frame.y_low, frame.y_high):
        y = f'{frame.y(value):.1f}'
        parts.append(element('line', x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_='grid'))
        parts.append(element('text', _number(value), x=LEFT - 5, y=y, dy=4, text_anchor='end'))
    for value in ticks(frame.x_low, frame.x_high):
        place = frame.x(value)
        anchor = 'end' if place > WIDTH - 24 else 'middle'
        parts.append(
            element('text', _number(value), x=f'{place:.1f}', y=HEIGHT - BOTTOM + 14, text_anchor=anchor)
        )
    label = element('text', x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor='middle')
    return joined([*parts, label])


def _number(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f'{value:.0e}'.replace('e-0', 'e-')
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'


def _drawing(title: str, parts: Sequence[Html]) -> Html:
    return element('svg', *parts, viewBox=f'0 0 {WIDTH} {HEIGHT}', role='img', aria_label=title)


def curves_of(series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> list[Curve]:
    """Return named series as curves."""
    return [Curve(title, x, y) for title, (x, y) in series.items()]
