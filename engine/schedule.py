"""The learning-rate schedule of a run of a known length: shares of it become iterations.

A config writes it in short, `schedule=dict(warmup=0.1, decay='cosine')`, or as mmengine's list,
`param_scheduler=[dict(type=..., begin=, end=)]`, whose `begin` and `end` are epochs or, below 1, shares of
the run; without an `end` an entry lasts to the run's. Either way the schedule ends where the run ends: one
that ends elsewhere is what is left when somebody shortened a run, and an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from falconet.core.errors import UserError
from falconet.core.plain_values import plain
from falconet.engine.optim import PER_ITERATION, check_schedulers

# Of one iteration mmengine's LinearLR never reaches its end.
SHORTEST_WARMUP = 2
# What an entry does where it does not say.
DEFAULTS = {'begin': 0, 'eta_min': 0.0, 'power': 1.0, 'start_factor': 1 / 3, 'end_factor': 1.0}


def schedule_of(config: Mapping[str, Any], *, iters_per_epoch: int) -> list[dict[str, Any]]:
    """Return the schedule of a config as entries that mmengine builds.

    Args:
        config: with `train_cfg.max_epochs`, and `schedule`, `param_scheduler` or neither.
        iters_per_epoch: iterations of an epoch.

    Raises:
        UserError: both are given, an entry is wrong, or the schedule ends elsewhere than the run.
    """
    content = plain(config)
    short, entries = content.get('schedule'), content.get('param_scheduler')
    epochs = int(content['train_cfg']['max_epochs'])
    if short is not None and entries:
        raise UserError(
            'the config has schedule=dict(...) and param_scheduler=[...]: set one of them to None, with '
            '--cfg-options schedule=None or param_scheduler=None'
        )
    if short is not None:
        return from_short(short, total=epochs * iters_per_epoch)
    resolved = [
        _resolved(entry, f'param_scheduler[{index}]', epochs, iters_per_epoch)
        for index, entry in enumerate(check_schedulers(entries or []))
    ]
    _check_ends(resolved, epochs, iters_per_epoch)
    return resolved


def from_short(short: Mapping[str, Any], *, total: int) -> list[dict[str, Any]]:
    """Return mmengine's entries of a short form over `total` iterations.

    Args:
        short: `warmup` (iterations, or below 1 a share of the run), `warmup_from` (share of the rate that it
            begins with), `decay` ('cosine', 'poly' or 'constant', from there to the end of the run),
            `lowest` (rate at the end) and `power` (of 'poly').
        total: iterations of the run.
    """
    warmup = short.get('warmup', 0)
    iterations = round(warmup * total) if isinstance(warmup, float) else warmup
    if iterations >= total:
        raise UserError(
            f'schedule.warmup={warmup}: {iterations} iterations of warm-up do not fit into a run of {total}. '
            'Give a share of the run (0.1), or train longer'
        )
    steps = {'by_epoch': False}
    entries: list[dict[str, Any]] = []
    if iterations >= SHORTEST_WARMUP:
        start = float(short.get('warmup_from', 0.1))
        entries.append({'type': 'LinearLR', 'start_factor': start, 'begin': 0, 'end': iterations, **steps})
    else:
        iterations = 0
    place = {'eta_min': float(short.get('lowest', 0.0)), 'begin': iterations, 'end': total, **steps}
    decay = short.get('decay', 'cosine')
    if decay == 'cosine':
        entries.append({'type': 'CosineAnnealingLR', 'T_max': total - iterations, **place})
    elif decay == 'poly':
        entries.append({'type': 'PolyLR', 'power': float(short.get('power', 0.9)), **place})
    return entries


def _resolved(entry: dict[str, Any], where: str, epochs: int, iters_per_epoch: int) -> dict[str, Any]:
    """Return an entry with its `begin`, `end` and `T_max` in iterations where it can step in iterations."""
    shares = [key for key in ('begin', 'end') if isinstance(entry.get(key), float)]
    if entry['type'] not in PER_ITERATION:
        if shares:
            raise UserError(
                f'{where} ({entry["type"]}): {shares[0]}={entry[shares[0]]} would be a share of the run, '
                f'which only {", ".join(PER_ITERATION)} take: give whole epochs'
            )
        return entry
    entry = dict(entry)
    converts = entry.pop('convert_to_iter_based', False)
    unit = iters_per_epoch if converts else 1
    if converts or shares:
        total = epochs * iters_per_epoch
        for key in ('begin', 'end', 'T_max', 'total_steps'):
            value = entry.get(key)
            if isinstance(value, float):
                entry[key] = round(value * total)
            elif value is not None:
                entry[key] = value * unit
        entry['by_epoch'] = False
    total = epochs if entry.get('by_epoch') else epochs * iters_per_epoch
    entry.setdefault('begin', 0)
    if entry.get('end') is None:
        length = entry.get('T_max') or entry.get('total_steps')
        entry['end'] = total if length is None else entry['begin'] + length
    if entry['begin'] >= entry['end']:
        raise UserError(
            f'{where} ({entry["type"]}): begins at {_place(entry["begin"], entry, iters_per_epoch)} and ends '
            f'at {_place(entry["end"], entry, iters_per_epoch)}; the run has {epochs} epochs'
        )
    if entry['type'] == 'CosineAnnealingLR':
        entry['T_max'] = entry.get('T_max') or entry['end'] - entry['begin']
    return entry


def _check_ends(entries: Sequence[Mapping[str, Any]], epochs: int, iters_per_epoch: int) -> None:
    ends: list[float] = []
    for index, entry in enumerate(entries):
        where, unit = f'param_scheduler[{index}]', 1 if entry.get('by_epoch', True) else iters_per_epoch
        if entry['type'] == 'MultiStepLR':
            late = [each for each in entry.get('milestones', ()) if each >= epochs * unit]
            if late:
                raise UserError(
                    f'{where} (MultiStepLR): the milestone {late[0]} lies behind the end of the run, '
                    f'{epochs} epochs: give milestones within it, or train_cfg.max_epochs that reaches it'
                )
        if entry['type'] not in PER_ITERATION:
            continue
        span = entry['end'] - entry['begin']
        if entry['type'] == 'CosineAnnealingLR' and entry['T_max'] != span:
            raise UserError(
                f'{where} (CosineAnnealingLR): T_max is {_place(entry["T_max"], entry, iters_per_epoch)}, '
                f'from begin to end there are {_place(span, entry, iters_per_epoch)}: leave T_max and end '
                'away, and it falls to the end of the run'
            )
        is_warmup = entry['type'] == 'LinearLR' and entry.get('end_factor', 1.0) == 1.0
        if not is_warmup or entry['end'] / unit > epochs:
            ends.append(entry['end'] / unit)
    if ends and max(ends) != epochs:
        raise UserError(
            f'param_scheduler ends after {max(ends):g} epochs, the run after {epochs}: leave `end` and '
            "`T_max` away, and the schedule follows the run's length (--epochs, train_cfg.max_epochs), or "
            "write schedule=dict(warmup=0.1, decay='cosine')"
        )


def _place(steps: int, entry: Mapping[str, Any], iters_per_epoch: int) -> str:
    return f'{steps if entry.get("by_epoch") else steps / iters_per_epoch:g} epochs'


def same_schedule(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, iters_per_epoch: int) -> bool:
    """Whether two configs, as plain values, mean the same schedule, however it is written."""
    try:
        first, second = (
            [
                {
                    **DEFAULTS,
                    'by_epoch': True,
                    **{key: each for key, each in entry.items() if each is not None},
                }
                for entry in schedule_of(config, iters_per_epoch=iters_per_epoch)
            ]
            for config in (ours, theirs)
        )
    except (UserError, KeyError, TypeError, ValueError):  # theirs may come from a time without these rules
        return False
    return first == second


def types_of(config: Mapping[str, Any], *, iters_per_epoch: int) -> list[Any]:
    """Return the types of a config's schedule, in order."""
    if config.get('schedule') is not None and not config.get('param_scheduler'):
        return [entry['type'] for entry in schedule_of(config, iters_per_epoch=iters_per_epoch)]
    entries = config.get('param_scheduler') or []
    return [entry.get('type') for entry in ([entries] if isinstance(entries, Mapping) else entries)]
