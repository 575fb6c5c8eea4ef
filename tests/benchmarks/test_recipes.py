"""Every comparison of recipes can be repeated: its variants are configs, and differ."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from falconet import load_config
from falconet.core.plain_values import plain
from falconet.core.schema import check_config


@pytest.fixture(scope='module')
def recipes() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).resolve().parents[2] / 'benchmarks/recipes.py'))


def test_every_variant_is_a_config_of_its_own(root: Path, recipes: dict[str, Any]) -> None:
    for name, comparison in recipes['COMPARISONS'].items():
        seen: list[Any] = []
        for variant, options in comparison.variants.items():
            config = load_config(root / comparison.config)
            for each in (comparison.always, options):
                recipes['change'](config, each)
            if 'distill' in config:
                config.distill.teacher = 'best.pth'  # a run fills it in
            check_config(config, training=True)
            assert plain(config) not in seen, f'{name}: {variant} is what another is'
            seen.append(plain(config))


def test_the_table_shows_what_is_done(recipes: dict[str, Any], tmp_path: Path) -> None:
    for name, report in {
        'own_0': {'miou': 0.25, 'pixel_accuracy': 0.75},
        'own_1': {'miou': 0.5, 'pixel_accuracy': 0.85},
        'with_turns_0': {'miou': 0.125, 'pixel_accuracy': 0.7},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'metrics.json').write_text(json.dumps(report))
        (tmp_path / name / recipes['DONE']).write_text('12.5' if name == 'own_0' else 'null')
    lines = recipes['table'](['own', 'with turns', 'never run'], [0, 1], tmp_path).splitlines()
    assert lines[0] == '|  | seed 0 | seed 1 | mean | processor seconds | pixel accuracy |'
    assert lines[2:] == [
        '| own | 0.250 | 0.500 | 0.375 | 12 | 0.800 |',
        '| with turns | 0.125 | not run | 0.125 |  | 0.700 |',
    ]
