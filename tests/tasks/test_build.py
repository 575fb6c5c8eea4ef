"""What `--cfg-options` can do to a config: set, replace, take away; and what it says when it cannot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from falconet.core.errors import UserError
from falconet.core.plain_values import plain
from falconet.tasks.build import build_dataset, load_config


def test_the_small_voc_has_the_recipe_of_a_folder_of_masks(root: Path) -> None:
    """They differ in where the pictures come from, which `--cfg-options` can change as well."""
    recipes = [plain(load_config(root / f'configs/deeplabv3_{name}.py')) for name in ('folder', 'voc_small')]
    for recipe in recipes:
        recipe.pop('data_root')
        for stage in ('train_dataloader', 'val_dataloader'):
            recipe[stage]['dataset'] = recipe[stage]['dataset']['augment']
    assert recipes[0] == recipes[1]


def test_a_changed_type_builds_what_it_names(write_config: Callable[..., Path], folders: Path) -> None:
    config = load_config(write_config(), ['val_dataloader.dataset.type=ImageNet'])
    with pytest.raises(UserError, match='no ImageNet-1k wnid'):
        build_dataset(config, 'val_dataloader', root=folders, classes=None, seed=0)


def test_options_that_the_new_type_does_not_take_are_named_with_the_way_out(
    write_config: Callable[..., Path],
) -> None:
    key, way = 'val_dataloader.dataset.type=MaskFolder', 'val_dataloader.dataset.split=_delete_'
    with pytest.raises(UserError) as caught:
        load_config(write_config(), [key])
    assert str(caught.value) == (
        f'--cfg-options {key}: it takes no split, which the config gives to ImageFolder. '
        f'Take them away: {way}'
    )
    changed = plain(load_config(write_config(), [key, way, 'val_dataloader.dataset.holdout=0.5']))
    assert changed['val_dataloader']['dataset'] == {
        'type': 'MaskFolder',
        'holdout': 0.5,
        'augment': [{'type': 'ResizeCenterCrop', 'resize': 36, 'crop': 32}],
    }


def test_what_was_taken_away_can_be_given_anew(write_config: Callable[..., Path]) -> None:
    key = 'optim_wrapper.optimizer'
    config = load_config(write_config(), [f'{key}.lr=0.1', f'{key}=_delete_', f'{key}.type=AdamW'])
    assert plain(config.optim_wrapper.optimizer) == {'type': 'AdamW', 'lr': 0.1}


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'val_dataloader.dataset.holdot=_delete_',
            'has no val_dataloader.dataset.holdot. Known',
        ),
        ('train_cfg.max_epoch=_delete_', 'the config has no train_cfg.max_epoch. Did you mean max_epochs'),
        ('nothing.at.all=_delete_', 'the config has no nothing.at.all'),
        ('model=_delete_', 'model is missing'),
        ('val_dataloader.dataset.type=ImageFoldr', 'Did you mean ImageFolder'),
        ('val_dataloader.dataset.type=os.system', "no dataset is called 'os.system'"),
        ('val_dataloader.dataset=dict(type="ImageNet")', 'one by one'),
    ],
)
def test_what_cannot_be_done_is_said(write_config: Callable[..., Path], option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write_config(), [option])
