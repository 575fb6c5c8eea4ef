"""One kind of fault in a data set: how often, where, what it does to a training, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from falconet.doctor.catalogue import KINDS

SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """A fault.

    Attributes:
        kind: a key of `doctor.catalogue.KINDS`, for programs.
        text: what it is, in words.
        count: how often.
        examples: the first few places.
        consequence: what it does to a training or its scores.
        fix: what to do.
        serious: it spoils a training or its scores; else it is good to know.
        repaired: `--fix` takes care of it.
        part: of the data, where it is of one.
    """

    kind: str
    text: str
    count: int
    examples: tuple[str, ...]
    consequence: str
    fix: str
    serious: bool
    repaired: bool
    part: str = ''

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), 'examples': list(self.examples)}

    def __str__(self) -> str:
        places = ''.join(f'\n    {each}' for each in self.examples)
        more = '\n    ...' if self.count > len(self.examples) else ''
        return f'{self.count} {self.text}{places}{more}\n  -> {self.consequence}. {self.fix}.'


def finding(
    kind: str, places: Iterable[str], *, count: int | None = None, fix: str | None = None, **words: object
) -> list[Finding]:
    """Return a finding in a list, or none where there are no places.

    Args:
        kind: a key of the catalogue.
        places: all of them, or the first few.
        count: how many there are; by default as many as `places`.
        fix: what to do, instead of the catalogue's.
        **words: what the catalogue's text has in braces.
    """
    listed = list(places)
    total = len(listed) if count is None else count
    about = KINDS[kind]
    return [
        Finding(
            kind,
            about.text.format(**words),
            total,
            tuple(islice(listed, SHOWN)),
            about.consequence,
            fix or about.fix,
            about.serious,
            about.repaired,
            str(words.get('part', '')),
        )
    ] if total else []  # fmt: skip


def merged(found: Sequence[Finding]) -> list[Finding]:
    """Return findings with those of one text made one, the serious ones first."""
    by_text: dict[tuple[str, str], Finding] = {}
    for each in found:
        known = by_text.get((each.kind, each.text))
        if known is None:
            by_text[each.kind, each.text] = each
            continue
        examples = tuple(dict.fromkeys((*known.examples, *each.examples)))[:SHOWN]
        by_text[each.kind, each.text] = replace(known, count=known.count + each.count, examples=examples)
    return sorted(by_text.values(), key=lambda each: not each.serious)
