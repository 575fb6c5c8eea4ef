"""Lists of class names: read, written, counted and compared. An index means nothing without its name."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from falconet.core.errors import UserError, listing
from falconet.report.text import shown

SHOWN = 10  # names of a list in a message


def match_classes(
    found: Sequence[str],
    expected: Sequence[str] | None,
    *,
    source: Path | str,
    other: str = 'the model',
    ordered: bool = True,
    hint: str = '',
) -> tuple[str, ...]:
    """Return the class names in the order expected.

    Args:
        found: the names that were found.
        expected: the names they must be; None takes what was found.
        source: where they were found.
        other: who expects.
        ordered: their order must agree too, as where labels are indices.
        hint: a sentence for the end of the message.

    Raises:
        UserError: they differ; it says how many there are, which are in one of the two only, which of these
            look like one name misspelt, and whether only the order differs.
    """
    if expected is None:
        return tuple(found)
    if list(found) == list(expected) or (not ordered and Counter(found) == Counter(expected)):
        return tuple(expected)
    ours = [name for name in found if name not in expected]
    theirs = [name for name in expected if name not in found]
    parts = [f'{source} has {len(found)} classes, {other} {len(expected)}.']
    if ours or theirs:
        parts.append(f'Only in {Path(source).name}: {listing(ours, SHOWN) or "none"}.')
        parts.append(f'Only in {other}: {listing(theirs, SHOWN) or "none"}.')
        parts += _misspelt(ours[:3], theirs)
    elif len(found) == len(expected):
        parts.append('The names agree, their order does not:')
        parts.append(f'{listing(found, SHOWN)} and {listing(expected, SHOWN)}.')
    raise UserError(' '.join([*parts, hint]).rstrip())


def _misspelt(names: Iterable[str], known: Sequence[str]) -> list[str]:
    folded = {name.lower(): name for name in known}
    near = ((name, key) for name in names for key in difflib.get_close_matches(name.lower(), folded, 1))
    return [f'Is {name} meant to be {folded[key]}?' for name, key in near]


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names of a list, one a line; UserError when it is empty or repeats one.

    UserError also as `read_names`.
    """
    names = read_names(path)
    if not names or len(set(names)) < len(names):
        raise UserError(f'{path}: expected one class name a line, each once, found {list(names)[:10]}')
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a list, with any line ends and with or without a byte-order mark; no empty ones.

    Raises:
        UserError: it cannot be read, or is no UTF-8.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').split('\n')
    except OSError as error:
        raise UserError(f'cannot read the class names in {path}: {error}') from error
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}: expected class names in UTF-8, byte {error.start:,} is none '
            f'({error.object[error.start : error.start + 4]!r}). Save the list as UTF-8'
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def write_classes(path: Path, names: Iterable[str]) -> None:
    """Write a list that `read_classes` reads."""
    path.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')


def counted(classes: Sequence[str], counts: Iterable[int], limit: int = 20) -> str:
    """Return ': cat 3, dog 4' for a line about a data set, nothing where there are more than `limit`."""
    if len(classes) > limit:
        return ''
    return ': ' + ', '.join(f'{shown(name)} {count}' for name, count in zip(classes, counts, strict=True))
