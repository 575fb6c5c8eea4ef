"""What a task has to say of an evaluation: scores with intervals, and sections for the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from falconet.report.page.markup import Html, bar, element, name, table

MOST_CLASSES = 1000  # whose scores go into the page's data
NOTE_LIMIT = 120  # letters of a note in a table


@dataclass(frozen=True)
class Score:
    """A score with its interval.

    Attributes:
        title: name, as in metrics.json; or a class.
        value: 0 to 1, or None where there is nothing to score.
        low, high: where 95 % of resampled sets of pictures lie; None where there are too few pictures.
        count: pictures, objects or pixels behind it.
        note: what else a table says of it.
    """

    title: str
    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    note: str = ''

    def interval(self) -> str:
        """Return the interval as text."""
        return '' if self.low is None or self.high is None else f'{self.low:.3f} to {self.high:.3f}'

    def plain(self) -> list[Any]:
        """Return [title, value, low, high], rounded."""
        numbers = (None if each is None else round(each, 5) for each in (self.value, self.low, self.high))
        return [self.title, *numbers]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: heading.
        body: markup.
    """

    title: str
    body: Html

    @property
    def anchor(self) -> str:
        """Where links to it go."""
        return ''.join(each if each.isalnum() else '-' for each in self.title.lower())


@dataclass
class Findings:
    """An evaluation, as a page shows it.

    Attributes:
        scores: the whole set's; the first is the primary one.
        classes: one a class, weakest first.
        sections: the task's own, in the order of the page.
        notes: what the reader must know first.
    """

    scores: list[Score]
    classes: list[Score] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return the numbers, for the data that a page carries."""
        return {
            'scores': [each.plain() for each in self.scores],
            'classes': [each.plain() for each in self.classes[:MOST_CLASSES]],
        }


def weakest_first(classes: Sequence[Score]) -> list[Score]:
    """Return classes by score, among equals the largest first, those without one last."""
    return sorted(classes, key=lambda each: (2.0 if each.value is None else each.value, -(each.count or 0)))


def class_section(
    classes: Sequence[Score], *, score: str, count: str, note: str = '', limit: int = 100
) -> Section:
    """Return the table of the classes, weakest first.

    Args:
        classes: weakest first.
        score, count, note: headings of what their fields are.
        limit: classes shown.
    """
    rows = [
        (
            name(each.title),
            'none' if not each.count else f'{each.count:,}',
            '-' if each.value is None else f'{each.value:.3f}',
            # Before what a phone has no room for.
            *([name(each.note, limit=NOTE_LIMIT) if each.note else ''] if note else []),
            each.interval(),
            bar(each.value, each.low, each.high),
        )
        for each in classes[:limit]
    ]
    columns = ['class', count, score, *([note] if note else []), '95 % interval', ' ']
    body = table(columns, rows, words=(' ', note), caption='weakest first', limit=limit, total=len(classes))
    return Section('Classes', body)


def score_tiles(scores: Sequence[Score]) -> Html:
    """Return scores in large figures."""
    return element(
        'div',
        *(
            element(
                'div',
                element('span', each.title),
                element('strong', '-' if each.value is None else f'{each.value:.3f}'),
                element('span', each.interval()),
            )
            for each in scores
        ),
        class_='big',
    )
