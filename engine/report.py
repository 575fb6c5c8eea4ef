"""The page that every training and test leaves: what was run, how it went, what the network gets wrong."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from falconet.core.errors import UserError
from falconet.core.plain_values import plain, text_of
from falconet.engine.hooks.saving import BEST, LAST
from falconet.engine.run_info import facts_of
from falconet.engine.scalars import Series, plain_series, read_scalars
from falconet.engine.work_dir import REPORT, make_folder
from falconet.report.page.document import document, write_page
from falconet.report.page.drawings import curves_of, plot
from falconet.report.page.findings import Findings, Section, score_tiles
from falconet.report.page.markup import Html, element, folded, joined, table
from falconet.tasks.model import VisionModel

MOST_SKIPPED = 50  # unreadable files that are named


def write_training_page(
    runner: Any, folder: Path, *, seconds: float, stopped: str | None = None
) -> Path | None:
    """Write the page of a training; return the file, None in other processes than the main one.

    Args:
        runner: a `FalconetRunner` that has trained.
        folder: of the run.
        seconds: that this took.
        stopped: why it ended early.
    """
    if not is_main_process():
        return None
    loop = runner.training_loop
    notes = [] if stopped is None else [f'This run did not come to its end: {stopped}']
    findings = _findings(runner)
    if findings is None:
        notes.append('There has been no validation, so there are no scores.')
    elif loop.validated_iter != loop.iter:
        notes.append(f'The scores are those of iteration {loop.validated_iter:,} of {loop.iter:,}.')
    training, validation = read_scalars(folder)
    config = runner.cfg.filename
    commands = _commands(folder / (BEST if (folder / BEST).exists() else LAST), runner.metric)
    if stopped is not None and config:
        commands = {
            'Go on': f'tools/train.py {_quoted(config)} --work-dir {_quoted(folder)} --resume',
            **commands,
        }
    return _write(
        runner, folder / REPORT, f'{folder.name}: training', findings, notes=notes, commands=commands,
        facts=facts_of(runner, seconds=seconds), curves=(training, validation),
    )  # fmt: skip


def write_test_page(runner: Any, path: Path, *, seconds: float, checkpoint: str | None) -> Path | None:
    """Write the page of a test; return the file, None in other processes than the main one."""
    if not is_main_process():
        return None
    name = 'test' if checkpoint is None else '/'.join(Path(checkpoint).parts[-2:])
    commands = {} if checkpoint is None else _commands(Path(checkpoint), runner.metric)
    facts = facts_of(runner, seconds=seconds, checkpoint=checkpoint)
    return _write(runner, path, f'{name}: test', _findings(runner), notes=[], commands=commands, facts=facts)


def _findings(runner: Any) -> Findings | None:
    metric, loop = runner.metric, runner.evaluation_loop
    if not metric.report:
        return None
    model, training = runner.model_to_use, runner.training_loop
    # What it looked at is only of interest in the network that gave the answers.
    same = training is None or training.validated_iter == training.iter
    own = loop.network is None or getattr(loop.network, 'is_the_model', False)
    usable = same and isinstance(model, VisionModel) and own
    if usable:
        model.eval()
    return metric.findings(loop.dataloader.dataset, model if usable else None)


def _write(
    runner: Any,
    path: Path,
    title: str,
    findings: Findings | None,
    *,
    notes: Sequence[str],
    commands: Mapping[str, str],
    facts: Mapping[str, str],
    curves: tuple[Series, Series] | None = None,
) -> Path:
    sections = [] if findings is None else list(findings.sections)
    notes = [*notes, *([] if findings is None else findings.notes)]
    if curves is not None:
        sections.append(_curve_section(*curves, runner.metric))
    skips = runner.evaluation_loop.skips.files
    if skips:
        notes.append(f'{len(skips):,} files could not be read and are not in the scores.')
    sections += [_facts_section(facts, skips, runner.cfg), _command_section(commands)]
    summary: list[Html] = [] if findings is None else [score_tiles(findings.scores)]
    if findings is not None and any(each.low is not None for each in findings.scores):
        text = 'Below each score: where it would lie for 95 of 100 other sets of such pictures (bootstrap).'
        summary.append(element('p', text, class_='quiet'))
    content = {
        'title': title,
        'task': runner.metric.__class__.__name__,
        'facts': dict(facts),
        'config': flat(plain(runner.cfg)),
        'curves': {
            name: plain_series(part)
            for name, part in zip(('training', 'validation'), curves or (), strict=False)
        },
        **({} if findings is None else findings.plain()),
    }
    text = document(title, summary=joined(summary), notes=notes, sections=sections, data=content)
    try:
        make_folder(path.parent)
        write_page(text, path)
    except OSError as error:
        raise UserError(f'cannot write to {path.parent}: {error}') from error
    return path


def flat(value: Any, prefix: str = '') -> dict[str, str]:
    """Return a config's settings by dotted key, as text."""
    pairs = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    entries = {f'{prefix}.{key}' if prefix else str(key): each for key, each in pairs}
    if not entries:
        return {prefix: repr(value)}
    return {key: text for name, each in entries.items() for key, text in flat(each, name).items()}


def _curve_section(training: Series, validation: Series, metric: Any) -> Section:
    scores = {name: points for name, points in validation.items() if name in metric.scores}
    scores = dict(sorted(scores.items(), key=lambda each: each[0] != metric.primary))
    groups = {
        'losses': {name: points for name, points in training.items() if 'loss' in name},
        'scores of validation': scores,
        'learning rate': {name: points for name, points in training.items() if 'lr' in name},
    }
    known = {name for group in groups.values() for name in group}
    groups |= {
        f'{name} (training batches)': {name: points} for name, points in training.items() if name not in known
    }
    plots = [plot(title, curves_of(group), x_label='iteration') for title, group in groups.items()]
    return Section('Course', element('div', *plots, class_='plots'))


def _facts_section(facts: Mapping[str, str], skips: Mapping[str, str], config: Any) -> Section:
    body = [table(('what', 'which'), list(facts.items()), words=['which'])]
    if skips:
        files = list(skips.items())
        title = f'{len(files):,} files that could not be read'
        body.append(folded(title, table(('file', 'why'), files, words=['why'], limit=MOST_SKIPPED)))
    body.append(folded('the whole config', element('pre', text_of(config))))
    return Section('What was run', joined(body))


def _commands(checkpoint: Path, metric: Any) -> dict[str, str]:
    file, scores = _quoted(checkpoint), _quoted(checkpoint.parent / 'test' / 'metrics.json')
    return {
        'Answers for pictures': f'tools/predict.py {file} photo.jpg a_folder --out predictions',
        'Score it again, on other data': f'tools/test.py {file} --data-root DIR --out {scores}',
        'For phones, servers and browsers': f'tools/export.py {file} --to onnx,openvino',
        'Side by side with another run': f'tools/compare.py {_quoted(checkpoint.parent)} ANOTHER_RUN',
        'From Python': f'from falconet import load_model\nmodel = load_model({str(checkpoint)!r})\n'
        "model.predict('photo.jpg').draw().save('out.png')",
    }


def _command_section(commands: Mapping[str, str]) -> Section:
    parts = []
    for title, text in commands.items():
        line = text if title == 'From Python' else f'python {text}'
        parts += [element('h3', title), element('pre', line)]
    return Section('What next', joined(parts))


def _quoted(path: Any) -> str:
    return shlex.quote(str(path))
