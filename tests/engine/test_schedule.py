"""The learning-rate schedule follows the length of the run, and does to the bit what it did in epochs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from falconet.core.errors import UserError
from falconet.core.plain_values import plain
from falconet.engine.resume import changes
from falconet.engine.schedule import schedule_of, types_of
from falconet.tasks.build import load_config


def warmed(start: float, warm: int, end: int, lowest: float) -> list[dict[str, Any]]:
    return [
        {'type': 'LinearLR', 'start_factor': start, 'begin': 0, 'end': warm},
        {'type': 'CosineAnnealingLR', 'begin': warm, 'end': end, 'T_max': end - warm, 'eta_min': lowest},
    ]


def poly(end: int) -> list[dict[str, Any]]:
    return [{'type': 'PolyLR', 'power': 0.9, 'eta_min': 0, 'begin': 0, 'end': end}]


# What these configs said when their schedules were written in epochs.
IN_EPOCHS = {
    'linear_imagenet': (
        300,
        [
            {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 5},
            {'type': 'ExponentialLR', 'gamma': 0.98},
        ],
    ),
    'ssdlite_coco': (41, warmed(0.1, 1, 41, 0.0)),
    'ssdlite_overfit20': (150, warmed(0.04, 5, 150, 1e-5)),
    'deeplabv3_voc': (46, poly(46)),
    'deeplabv3_aspp_voc': (46, poly(46)),
    'deeplabv3_coco': (6, poly(6)),
    'demo/linear_demo': (10, warmed(0.04, 2, 10, 1e-5)),
    'demo/ssdlite_demo': (22, warmed(0.04, 2, 22, 1e-5)),
    'demo/deeplabv3_demo': (32, warmed(0.04, 3, 32, 1e-5)),
    'ablations/no_shortcut': (10, warmed(0.04, 2, 10, 1e-5)),
}


def rates(entries: list[dict[str, Any]], epochs: int, iterations: int) -> tuple[list[float], list[dict]]:
    """Return the learning rate of every iteration, and the state of every schedule at the end."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedules = []
    for each in entries:
        options = {key: value for key, value in each.items() if key not in ('type', 'convert_to_iter_based')}
        factory = PARAM_SCHEDULERS.module_dict[each['type']]
        if each['type'] != 'ExponentialLR' and 'by_epoch' not in options:
            schedules.append(factory.build_iter_from_epoch(optimiser, epoch_length=iterations, **options))
        else:
            schedules.append(factory(optimiser, **options))
    found = []
    for iteration in range(1, epochs * iterations + 1):
        found.append(optimiser.param_groups[0]['lr'])
        optimiser.step()
        for each in schedules:
            if not each.by_epoch or iteration % iterations == 0:
                each.step()
    return found, [each.state_dict() for each in schedules]


@pytest.mark.parametrize('name', IN_EPOCHS)
def test_a_config_of_ours_has_the_rates_it_had_when_it_was_written_in_epochs(root: Path, name: str) -> None:
    epochs, entries = IN_EPOCHS[name]
    config = plain(load_config(root / f'configs/{name}.py'))
    assert config['train_cfg']['max_epochs'] == epochs
    expected = rates(entries, epochs, 7)
    assert rates(schedule_of(config, iters_per_epoch=7), epochs, 7) == expected
    old = {**config, 'schedule': None, 'param_scheduler': entries}
    assert rates(schedule_of(old, iters_per_epoch=7), epochs, 7) == expected


def run_of(epochs: int, **written: Any) -> dict[str, Any]:
    return {'train_cfg': {'max_epochs': epochs}, **written}


def test_a_shorter_run_has_the_same_curve_in_fewer_steps() -> None:
    short = {'warmup': 0.1, 'warmup_from': 0.1, 'decay': 'cosine', 'lowest': 0.0}
    long_run, _ = rates(schedule_of(run_of(20, schedule=short), iters_per_epoch=10), 20, 10)
    short_run, _ = rates(schedule_of(run_of(2, schedule=short), iters_per_epoch=10), 2, 10)
    assert max(long_run) == pytest.approx(0.3)
    assert max(short_run) == pytest.approx(0.3)
    assert long_run.index(max(long_run)) == 19
    assert short_run.index(max(short_run)) == 1
    assert long_run[-1] < short_run[-1] < 0.01


def test_a_warm_up_may_be_in_iterations_and_a_decay_be_absent() -> None:
    entries = schedule_of(run_of(2, schedule={'warmup': 5, 'decay': 'constant'}), iters_per_epoch=10)
    found, _ = rates(entries, 2, 10)
    assert found[4:] == pytest.approx([0.3] * 16)
    assert found[0] == pytest.approx(0.03)


def test_a_warm_up_of_less_than_two_iterations_is_left_out() -> None:
    entries = schedule_of(run_of(1, schedule={'warmup': 0.1, 'decay': 'poly'}), iters_per_epoch=10)
    assert [entry['type'] for entry in entries] == ['PolyLR']
    assert entries[0]['end'] == 10


def test_an_entry_without_an_end_lasts_to_the_end_and_shares_are_of_the_run() -> None:
    entries = [
        {'type': 'LinearLR', 'start_factor': 0.1, 'end': 0.25},
        {'type': 'CosineAnnealingLR', 'begin': 0.25},
    ]
    found = schedule_of(run_of(4, param_scheduler=entries), iters_per_epoch=8)
    assert [(each['begin'], each['end'], each['by_epoch']) for each in found] == [
        (0, 8, False),
        (8, 32, False),
    ]
    assert found[1]['T_max'] == 24


@pytest.mark.parametrize(
    ('written', 'message'),
    [
        (
            {'param_scheduler': warmed(0.1, 1, 8, 0.0)},
            r'ends after 8 epochs, the run after 3: leave `end` and `T_max` away',
        ),
        ({'param_scheduler': poly(2)}, 'ends after 2 epochs, the run after 3'),
        (
            {'param_scheduler': [{'type': 'CosineAnnealingLR', 'T_max': 2, 'end': 3}]},
            'T_max is 2 epochs, from begin to end there are 3 epochs',
        ),
        (
            {'param_scheduler': [{'type': 'LinearLR', 'begin': 0, 'end': 5}]},
            'ends after 5 epochs, the run after 3',
        ),
        (
            {'param_scheduler': [{'type': 'MultiStepLR', 'milestones': [2, 9]}]},
            'the milestone 9 lies behind the end of the run, 3 epochs',
        ),
        (
            {'param_scheduler': [{'type': 'StepLR', 'step_size': 1, 'begin': 0.5}]},
            'begin=0.5 would be a share of the run, which only LinearLR',
        ),
        (
            {'param_scheduler': [{'type': 'CosineAnnealingLR', 'begin': 3}]},
            'begins at 3 epochs and ends at 3 epochs; the run has 3 epochs',
        ),
        (
            {'param_scheduler': poly(3), 'schedule': {'decay': 'poly'}},
            r'schedule=dict\(\.\.\.\) and param_scheduler=\[\.\.\.\]: set one of them to None',
        ),
        ({'schedule': {'warmup': 500}}, '500 iterations of warm-up do not fit into a run of 30'),
    ],
)
def test_a_schedule_that_ends_elsewhere_than_the_run_is_an_error_that_says_so(
    written: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        schedule_of(run_of(3, **written), iters_per_epoch=10)


def test_a_checkpoint_of_the_older_spelling_goes_on_without_a_word() -> None:
    ours = run_of(10, schedule={'warmup': 0.2, 'warmup_from': 0.04, 'decay': 'cosine', 'lowest': 1e-5})
    theirs = run_of(10, param_scheduler=warmed(0.04, 2, 10, 1e-5))
    assert types_of(ours, iters_per_epoch=7) == types_of(theirs, iters_per_epoch=7)
    content = {'config': theirs, 'training': {'iters_per_epoch': 7}}
    assert list(changes(ours, content)) == []
    ours['schedule']['lowest'] = 0.0
    assert any('schedule.lowest' in line for line in changes(ours, content))
