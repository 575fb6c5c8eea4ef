"""One kind of fault in a data set: how often, where, what it does to a training, and what to do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """A fault.

    Attributes:
        kind: a short name that stays the same, for programs.
        text: what it is, in words.
        count: how often.
        examples: the first few places.
        consequence: what it does to a training or its scores.
        fix: what to do.
    """

    kind: str
    text: str
    count: int
    examples: tuple[str, ...]
    consequence: str
    fix: str

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), 'examples': list(self.examples)}

    def __str__(self) -> str:
        places = ''.join(f'\n    {each}' for each in self.examples)
        more = '\n    ...' if self.count > len(self.examples) else ''
        return f'{self.count} {self.text}{places}{more}\n  -> {self.consequence}. {self.fix}.'


def finding(
    kind: str, text: str, places: Iterable[str], *, consequence: str, fix: str, count: int | None = None
) -> list[Finding]:
    """Return a finding in a list, or none where there are no places.

    Args:
        kind, text, consequence, fix: as in `Finding`.
        places: all of them, or the first few.
        count: how many there are; by default as many as `places`.
    """
    listed = list(places)
    total = len(listed) if count is None else count
    return [Finding(kind, text, total, tuple(islice(listed, SHOWN)), consequence, fix)] if total else []
