"""Runs side by side: what was set differently, their curves, which differences are more than chance."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic

from falconet.core.errors import UserError
from falconet.core.owned_files import check_writable
from falconet.engine.work_dir import REPORT
from falconet.report.page.document import document, read_data, write_page
from falconet.report.page.drawings import Curve, plot
from falconet.report.page.findings import Section
from falconet.report.page.markup import Html, element, joined, name, table

MOST_RUNS = 8  # as many as there are colours
NO_SETTINGS = ('work_dir', 'filename')

Run = Mapping[str, Any]
Number = Annotated[float, pydantic.Field(allow_inf_nan=True)] | None
Score = tuple[str, Number, Number, Number]  # name, value, and the ends of its interval


class _Page(pydantic.BaseModel):
    """What is read of a page, which may be anybody's."""

    task: str
    scores: list[Score] = []
    classes: list[Score] = []
    config: dict[str, str] = {}
    facts: dict[str, str] = {}
    curves: dict[str, dict[str, tuple[list[Number], list[Number]]]] = {}

    @pydantic.field_validator('curves')
    @classmethod
    def _are_points(cls, curves: Any) -> Any:
        if any(len(x) != len(y) for part in curves.values() for x, y in part.values()):
            raise ValueError('as many values as iterations are expected')
        return curves


def compare(runs: Sequence[str], out: Path, *, overwrite: bool = False) -> Path:
    """Write a page that puts runs side by side; the first is what the others are compared with.

    Args:
        runs: folders with a report.html, or such files.
        out: file to write.
        overwrite: replace a file that Falconet did not make.

    Raises:
        UserError: a run has no report, or they are of different tasks.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f'2 to {MOST_RUNS} runs can be compared, got {len(runs)}')
    if out.suffix != '.html':
        raise UserError(f'--out {out}: the page is written as HTML, give a name that ends in .html')
    check_writable([out], overwrite=overwrite, hint='Choose another --out')
    found = {title: read_run(path) for title, path in zip(_titles(runs), runs, strict=True)}
    tasks = {title: run.get('task') for title, run in found.items()}
    if len(set(tasks.values())) > 1:
        listed = ', '.join(f'{title} ({task})' for title, task in tasks.items())
        raise UserError(f'these runs are of different tasks, their scores cannot be compared: {listed}')
    first = next(iter(found))
    sections = [
        Section('Scores', _scores(found, 'scores', 'score', limit=30)),
        Section('Settings that differ', _settings(found)),
        Section('Course', _curves(found)),
        Section('Classes', _scores(_sorted_classes(found), 'classes', 'class', limit=100)),
        Section('What was run', _facts(found)),
    ]
    summary = element(
        'p',
        'Everything is compared with ',
        element('strong', name(first)),
        '. Bold: the difference is larger than both intervals together allow for (the root of the sum of '
        'their squared halves). Other differences may be the luck of these pictures.',
        class_='quiet',
    )
    data = {'runs': list(found)}
    text = document('Runs compared', summary=summary, notes=_notes(found), sections=sections, data=data)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_page(text, out)
    except OSError as error:
        raise UserError(f'cannot write {out}: {error}') from error
    return out


def read_run(source: str) -> Run:
    """Return the data of a run's page, or raise UserError."""
    path = Path(source)
    file = path / REPORT if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f'{source}: there is no {REPORT}. Give the folder of a training, or of a test '
            '(tools/test.py CHECKPOINT --out FOLDER/metrics.json)'
        )
    data = read_data(file)
    try:
        return _Page.model_validate(data, strict=False).model_dump()
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = '.'.join(map(str, first['loc'])) or 'no data of one'
        raise UserError(
            f'{file} is no report of a training or a test ({place[:80]}: {first["msg"]}): give one that '
            'Falconet wrote'
        ) from error


def exceeds(first: Sequence[Any], other: Sequence[Any]) -> bool | None:
    """Whether two scores [name, value, low, high] differ by more than their intervals; None: not known."""
    if None in (*first[1:4], *other[1:4]):
        return None
    halves = [(each[3] - each[2]) / 2 for each in (first, other)]
    return abs(other[1] - first[1]) > sum(half**2 for half in halves) ** 0.5


def _titles(runs: Sequence[str]) -> list[str]:
    paths = [Path(run).parent if Path(run).suffix == '.html' else Path(run) for run in runs]
    for depth in (1, 2, 3):
        titles = ['/'.join(Path(os.path.realpath(path)).parts[-depth:]) for path in paths]
        if len(set(titles)) == len(titles):
            return titles
    return [f'{index + 1}: {title}' for index, title in enumerate(titles)]


def _notes(runs: Mapping[str, Run]) -> list[str]:
    notes = [
        f'{title} has no scores: it was not validated' for title, run in runs.items() if not run.get('scores')
    ]
    data = {run.get('facts', {}).get('evaluation data') for run in runs.values()}
    if len(data) > 1:
        notes.append('these runs were scored on different data: their scores are not of the same pictures')
    return notes


def _sorted_classes(runs: Mapping[str, Run]) -> dict[str, Run]:
    """Runs with the first one's classes sorted by what the others gained or lost, the largest first."""
    first, *others = runs.values()
    tables = [{each[0]: each[1] for each in run.get('classes', [])} for run in others]

    def change(entry: Sequence[Any]) -> float:
        values = [values.get(entry[0]) for values in tables]
        return max((abs(value - entry[1]) for value in values if None not in (value, entry[1])), default=-1.0)

    ordered = sorted(first.get('classes', []), key=change, reverse=True)
    return {**runs, next(iter(runs)): {**first, 'classes': ordered}}


def _scores(runs: Mapping[str, Run], kind: str, heading: str, *, limit: int) -> Html:
    first, *others = runs.values()
    entries = first.get(kind) or next((run[kind] for run in others if run.get(kind)), [])
    tables = [{each[0]: each for each in run.get(kind, [])} for run in runs.values()]
    rows = []
    for title in (entry[0] for entry in entries):
        values = [each.get(title) or [title, None, None, None] for each in tables]
        cells: list[object] = [name(title)]
        for place, value in enumerate(values):
            cells.append(_cell(value))
            if place:
                cells.append(_difference(values[0], value))
        rows.append(cells)
    columns = [heading]
    for place, title in enumerate(runs):
        columns += [title] if not place else [title, 'difference']
    return table(columns, rows, limit=limit)


def _cell(score: Sequence[Any]) -> Html:
    _, value, low, high = score
    if value is None:
        return element('span', '-')
    interval = '' if low is None else element('div', f'{low:.3f} to {high:.3f}', class_='quiet')
    return joined([f'{value:.3f}', interval])


def _difference(first: Sequence[Any], other: Sequence[Any]) -> Html:
    if first[1] is None or other[1] is None:
        return element('span', '-')
    text = f'{other[1] - first[1]:+.3f}'
    if exceeds(first, other):
        return element('strong', text, class_='good' if other[1] > first[1] else 'bad')
    return element('span', text, class_='quiet')


def _settings(runs: Mapping[str, Run]) -> Html:
    configs = [run.get('config', {}) for run in runs.values()]
    keys = dict.fromkeys(key for config in configs for key in config if key.split('.')[0] not in NO_SETTINGS)
    rows = []
    for key in keys:
        values = [config.get(key, 'not set') for config in configs]
        if len(set(values)) > 1:
            rows.append((key, *(each[:300] for each in values)))
    if not rows:
        return element('p', 'The configs are the same.')
    return table(('setting', *runs), rows, words=list(runs), limit=200)


def _curves(runs: Mapping[str, Run]) -> Html:
    plots = []
    for stage in ('training', 'validation'):
        parts = {title: run.get('curves', {}).get(stage, {}) for title, run in runs.items()}
        scores = {each[0] for run in runs.values() for each in run.get('scores', [])}
        for key in dict.fromkeys(key for part in parts.values() for key in part):
            if stage == 'validation' and key not in scores:
                continue
            curves = [Curve(title, *part[key]) for title, part in parts.items() if key in part]
            plots.append(plot(f'{key} ({stage})', curves, x_label='iteration'))
    if not plots:
        return element('p', 'Tests have no course; give the folders of trainings to see their curves.')
    return element('div', *plots, class_='plots')


def _facts(runs: Mapping[str, Run]) -> Html:
    keys = dict.fromkeys(key for run in runs.values() for key in run.get('facts', {}))
    rows = [(key, *(run.get('facts', {}).get(key, '') for run in runs.values())) for key in keys]
    return table(('what', *runs), rows, words=list(runs))
