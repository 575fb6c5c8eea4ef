"""HTML that is escaped by its type: what is not `Html` yet is text, and is escaped where it is put in.

Class names are anybody's: `<script>`, quotes, halves of letters, text that runs from right to left.
"""

import html
from collections.abc import Iterable, Sequence

from falconet.report.text import JOINERS, NAME_LIMIT, REPLACEMENT, shown

VOID = ('img', 'meta', 'br', 'rect', 'line', 'path', 'circle')  # elements that hold nothing
TABLE_LIMIT = 100  # rows of a table


class Html(str):
    """Markup, safe to put into a page as it is."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """Return anything as markup that shows it; markup stays as it is."""
    if isinstance(text, Html):
        return text
    letters = (
        each if each.isprintable() or each in '\n\t' or each in JOINERS else REPLACEMENT for each in str(text)
    )
    return Html(html.escape(''.join(letters)))


def joined(parts: Iterable[object], between: str = '') -> Html:
    """Return parts one after the other, text among them escaped."""
    return Html(escaped(between).join(escaped(part) for part in parts))


def element(kind: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        kind: of element.
        children: markup or text.
        attributes: `class_` is written class, `stroke_width` stroke-width; those that are None are left out.
    """
    given = ''.join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if kind in VOID and not children:
        return Html(f'<{kind}{given}/>')
    return Html(f'<{kind}{given}>{joined(children)}</{kind}>')


def name(text: str, *, limit: int = NAME_LIMIT) -> Html:
    """Return a class name or another of the user's words, kept from turning the text around it."""
    short = shown(text, limit=limit)
    return element('bdi', short, title=None if short == text else text[:1000])


def bar(share: float | None, low: float | None = None, high: float | None = None) -> Html:
    """Return a bar as long as a share of 1, with a whisker from `low` to `high`."""
    if share is None:
        return Html('')
    inside = [element('i', style=f'width:{100 * min(max(share, 0.0), 1.0):.1f}%')]
    if low is not None and high is not None:
        inside.append(element('b', style=f'left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%'))
    return element('div', *inside, class_='bar')


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    words: Sequence[str] = (),
    caption: str = '',
    limit: int = TABLE_LIMIT,
    total: int | None = None,
) -> Html:
    """Return a table that scrolls sideways on a narrow screen.

    Args:
        columns: headings; the first column is the name of a row.
        rows: cells, markup or text.
        words: columns that hold words; the others but the first hold numbers, set flush right.
        caption: a line above it.
        limit: rows shown; a line below says how many are left out.
        total: rows that there are, where `rows` are the first of them only.
    """
    wordy = [index == 0 or column in words for index, column in enumerate(columns)]
    styles = [('words' if index else None) if each else 'number' for index, each in enumerate(wordy)]
    head = element(
        'tr', *(element('th', each, class_=style) for each, style in zip(columns, styles, strict=True))
    )
    body = [
        element('tr', *(element('td', cell, class_=style) for cell, style in zip(row, styles, strict=True)))
        for row in rows[:limit]
    ]
    parts: list[Html] = [element('caption', caption)] if caption else []
    whole = element('table', *parts, element('thead', head), element('tbody', *body))
    left = (len(rows) if total is None else total) - limit
    rest = element('p', f'{left:,} more rows are left out here.', class_='quiet') if left > 0 else ''
    return joined([element('div', whole, class_='scroll'), rest])


def folded(title: object, *content: object) -> Html:
    """Return something that opens on a touch of its title."""
    return element('details', element('summary', title), *content)
