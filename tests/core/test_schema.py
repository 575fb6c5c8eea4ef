"""The schema of configs and checkpoints: what is there passes, what is not names the closest key."""

from pathlib import Path

import pytest
from mmengine.config import Config

from falconet.core.errors import UserError
from falconet.core.schema import CheckpointSchema, ConfigSchema, Loader, check_config, check_schema
from falconet.tasks.build import load_config


def test_every_config_of_ours_is_one(root: Path) -> None:
    paths = [path for path in (root / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(paths) > 10
    for path in paths:
        check_config(load_config(path), source=str(path))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({}, 'x: model is missing'),
        ({'model': {'backbone': {}}}, 'x: model.head is missing'),
        ({'model': {'backbone': {}, 'head': {}}, 'sed': 1}, "x: unknown key 'sed'. Did you mean seed"),
        ({'model': {'backbone': {}, 'hed': {}, 'head': {}}}, "unknown key 'model.hed'. Did you mean head"),
        (
            {'model': {'backbone': {}, 'head': {}}, 'param_scheduler': [{}, {'end': 'a'}]},
            'param_scheduler.1.end',
        ),
    ],
)
def test_a_wrong_key_is_named_by_its_whole_place(content: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_schema(ConfigSchema, content, source='x')


def test_training_needs_more_than_scoring() -> None:
    config = Config({'model': {'backbone': {}, 'head': {}}})
    check_config(config)
    with pytest.raises(UserError, match=r'training needs train_dataloader=dict\(\.\.\.\), got None'):
        check_config(config, training=True)


def test_what_is_no_plain_value_cannot_be_in_a_config() -> None:
    config = Config({'model': {'backbone': {}, 'head': {}}, 'custom_hooks': [{'type': object()}]})
    with pytest.raises(UserError, match=r'config\.custom_hooks\[0\]\.type is a object'):
        check_config(config)


def test_what_is_no_dict_is_said() -> None:
    with pytest.raises(UserError, match=r'x: it must be dict\(...\), got 5'):
        check_schema(CheckpointSchema, 5, source='x')
    with pytest.raises(UserError, match='x: dataset is missing'):
        check_schema(Loader, {}, source='x')
