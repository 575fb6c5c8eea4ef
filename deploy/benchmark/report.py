"""The benchmark's table: for programs as JSON, for people as Markdown."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from falconet.core.names import MARK
from falconet.core.owned_files import check_writable, write_json
from falconet.deploy.benchmark.picture import draw

NAMES = ('benchmark.json', 'benchmark.md', 'benchmark.png')
NOTHING = '-'


def files_in(folder: Path) -> list[Path]:
    """Return what `write` writes there."""
    return [folder / name for name in NAMES]


def check(folder: Path, *, overwrite: bool) -> None:
    """Raise UserError if files that Falconet did not make are in the way."""
    check_writable(files_in(folder), overwrite=overwrite, hint='Choose another --out')


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write what `deploy.benchmark.benchmark` returned as JSON, Markdown and PNG; return the files."""
    data, page, picture = files_in(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(dict(found), data)
    page.write_text(f'<!-- {MARK} -->\n{markdown(found)}', encoding='utf-8')
    draw(found, picture)
    return [data, page, picture]


def number(value: float | None, digits: int = 1, *, times: float = 1) -> str:
    """Return a number for a cell."""
    return NOTHING if value is None else f'{value * times:.{digits}f}'


def score_name(found: Mapping[str, Any]) -> str | None:
    """Return the name of the score, if there are any."""
    return next((name for row in found['rows'] for name in row.get('score') or {}), None)


def columns(found: Mapping[str, Any]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Return the table's columns: heading -> the cell of a row."""
    most, name = found['threads'], score_name(found)
    of = {
        'file': lambda row: f'`{row["file"]}`',
        'numbers': lambda row: row.get('precision', NOTHING),
        'MB': lambda row: number(row['bytes'], times=1e-6),
        'load s': lambda row: number(row.get('load_s'), 2),
        f'ms, {most} thread{"s" * (most > 1)}': lambda row: _both(row, 'median_s', 'p90_s'),
        'ms, 1 thread': lambda row: _both(row, 'one_thread_median_s', 'one_thread_p90_s'),
        'ms from the file': lambda row: number(row['from_file_s'], times=1e3),
        f'images/s at {found["batch"]}': lambda row: number(row['images_per_s']),
        'peak MB': lambda row: number(row.get('peak_mb'), 0),
        'opening MB': lambda row: number(row.get('opening_mb'), 0),
    }
    if name is not None:
        first = found['rows'][0]['score'][name]

        def score(row: Mapping[str, Any]) -> float | None:
            return (row.get('score') or {}).get(name)

        of[name] = lambda row: number(score(row), 4)
        of['difference'] = lambda row: NOTHING if (got := score(row)) is None else f'{got - first:+.4f}'
    return of


def _both(row: Mapping[str, Any], median: str, late: str) -> str:
    return (
        NOTHING
        if row[median] is None
        else f'{number(row[median], times=1e3)} / {number(row[late], times=1e3)}'
    )


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table and what its columns mean."""
    of, rows = columns(found), found['rows']
    lines = [
        f'# {found["checkpoint"]}: {rows[0]["task"]}',
        '',
        '| ' + ' | '.join(of) + ' |',
        '|---' * len(of) + '|',
        *('| ' + ' | '.join(cell(row) for cell in of.values()) + ' |' for row in rows),
        '',
    ]
    lines += [f'- `{row["file"]}` was not run: {row["missing"]}' for row in rows if row['missing']]
    lines += [
        f'- `{row["file"]}` was not made from {found["checkpoint"]} as it is now'
        for row in rows
        if not row['of_this_checkpoint']
    ]
    lines += [
        '',
        'Each file in a process of its own, all taking turns. Times: median / 90th percentile of one '
        'prepared picture, from its pixels to the result; "from the file" is the median of the whole '
        '`predict` of a photograph. Loading is from the file to a model that answers, the import of its '
        f'engine included. Peak memory is that of the whole Python process, at batch {found["batch"]} where '
        'the file takes it; opening is what it grew by until the first answer. "-": the file does not take '
        'that, or its engine cannot be told.',
    ]
    return '\n'.join(lines) + '\n'
