"""Checkpoints go on with other classes: rows follow their class's name; what cannot fit is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falconet.checkpoints.external_weights import load_weights
from falconet.checkpoints.file import describe, read_checkpoint, write_checkpoint
from falconet.checkpoints.transfer import merge_rows, transfer_weights
from falconet.core.errors import UserError
from falconet.engine.evaluate import evaluate
from falconet.engine.train import train
from falconet.heads import HEADS
from falconet.heads.base import ClassRows
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel

# A head's config entry and the taps it reads.
HEAD_OPTIONS: dict[str, dict[str, Any]] = {}
TAPS = {1: ('last',), 2: ('stage6_expand', 'last')}


def make(classes: tuple[str, ...], head: str = 'LinearHead', seed: int = 0, **backbone: Any) -> VisionModel:
    torch.manual_seed(seed)
    taps = TAPS[HEADS.module_dict[head].min_maps]
    return VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'taps': taps, **backbone},
        {'type': head, **HEAD_OPTIONS.get(head, {})},
        classes=classes,
    ).eval()


def saved(model: VisionModel, path: Path) -> Path:
    from mmengine.config import Config

    description = describe(model, Config({'model': model.spec}))
    write_checkpoint(
        {**description, 'state_dict': model.state_dict(), 'metrics': {}, 'epoch': 0, 'iter': 0}, path
    )
    return path


@pytest.mark.parametrize('head', sorted(HEADS.module_dict))
def test_rows_follow_the_names_of_their_classes(head: str, tmp_path: Path) -> None:
    theirs = make(('cat', 'dog', 'eel'), head, seed=1)
    ours = make(('eel', 'fox', 'cat'), head, seed=2)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    report = transfer_weights(ours, saved(theirs, tmp_path / 'x.pth'))
    assert (report.kept, report.new, report.dropped) == (('eel', 'cat'), ('fox',), ('dog',))
    assert 'kept by name 2 (eel, cat), new 1 (fox), only in the checkpoint 1 (dog)' in str(report)
    rows = {f'head.{key}': layout for key, layout in ours.head.class_rows().items()}
    assert rows
    after, source = ours.state_dict(), theirs.state_dict()
    for key, value in after.items():
        if key not in rows:
            assert torch.equal(value, source[key]), key
            continue
        layout = rows[key]
        shape = (layout.groups, layout.background + 3, *value.shape[1:])
        merged, old, given = value.view(shape), before[key].view(shape), source[key].view(shape)
        first = layout.background
        assert torch.equal(merged[:, :first], given[:, :first])
        assert torch.equal(merged[:, first], given[:, first + 2])  # eel
        assert torch.equal(merged[:, first + 1], old[:, first + 1])  # fox
        assert torch.equal(merged[:, first + 2], given[:, first])  # cat


@pytest.mark.parametrize('head', sorted(HEADS.module_dict))
def test_every_tensor_that_changes_with_the_classes_is_named_by_its_head(head: str) -> None:
    few, many = make(('a', 'b'), head).head, make(('a', 'b', 'c', 'd', 'e'), head).head
    sizes = {key: value.shape for key, value in few.state_dict().items()}
    different = {key for key, value in many.state_dict().items() if value.shape != sizes[key]}
    assert set(few.class_rows()) == different


def test_a_model_of_the_same_classes_takes_over_everything(tmp_path: Path) -> None:
    theirs, ours = make(('a', 'b'), seed=1), make(('a', 'b'), seed=2)
    report = transfer_weights(ours, saved(theirs, tmp_path / 'x.pth'))
    assert not report.new
    assert not report.weights.skipped
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_another_head_keeps_the_backbone_only(tmp_path: Path) -> None:
    theirs = make(('a', 'b'), 'LinearHead', seed=1)
    ours = make(('a', 'b'), 'SSDLiteHead', seed=2)
    report = transfer_weights(ours, saved(theirs, tmp_path / 'x.pth'))
    assert report.kept == ()
    assert all(key.startswith(('backbone.', 'normalise.')) for key in report.weights.loaded)
    assert 'head.fc.weight' in report.weights.unused


def test_rows_in_another_arrangement_are_left_alone() -> None:
    assert merge_rows(torch.zeros(6), torch.zeros(5), ClassRows(2, 1), ours='ab', theirs='ab') is None


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'padding': 'same'}, r'only right with padding same, the model has symmetric: set model\.backbone'),
        ({'norm_eps': 1e-3}, r'only right with norm_eps 0\.001, the model has 1e-05'),
        ({'width': 0.5}, r'does not fit: \d+ tensors of the backbone'),
    ],
)
def test_a_checkpoint_that_cannot_fit_is_refused(options: dict, message: str, tmp_path: Path) -> None:
    path = saved(make(('a', 'b'), **options), tmp_path / 'x.pth')
    with pytest.raises(UserError, match=message):
        transfer_weights(make(('a', 'b')), path)


def test_a_run_starts_from_a_checkpoint_with_other_classes(
    write_config: Callable[..., Path], tmp_path: Path, folders: Path
) -> None:
    train(load_config(write_config('train_cfg = dict(max_epochs=1)')), work_dir=str(tmp_path / 'first'))
    first = read_checkpoint(tmp_path / 'first/best.pth')
    (folders / 'train/red').rename(folders / 'train/crimson')
    (folders / 'test/red').rename(folders / 'test/crimson')
    config = write_config(
        f"""
        load_from = {str(tmp_path / 'first/best.pth')!r}
        train_cfg = dict(max_epochs=1)
        param_scheduler = []
        optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-12))
        """
    )
    train(load_config(config), work_dir=str(tmp_path / 'second'))
    second = read_checkpoint(tmp_path / 'second/best.pth')
    log = (tmp_path / 'second/train.log').read_text()
    assert 'kept by name 2 (blue, green), new 1 (crimson), only in the checkpoint 1 (red)' in log
    assert second['classes'] == ['blue', 'crimson', 'green']
    # blue and green kept their rows, though green moved.
    weight = second['state_dict']['head.fc.weight']
    torch.testing.assert_close(weight[[0, 2]], first['state_dict']['head.fc.weight'][:2])


def test_other_projects_files_are_only_right_with_their_own_padding(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2(num_classes=2, width_mult=0.35).state_dict(), tmp_path / 'x.pth')
    load_weights(make(('a', 'b')), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='only right with padding symmetric, the model has same'):
        load_weights(make(('a', 'b'), padding='same'), tmp_path / 'x.pth')


def test_1001_classes_against_1000_says_how_to_drop_the_background(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    from falconet.backbones.weights.files import write_npz
    from falconet.backbones.weights.split import join_weights, split_weights

    state = mobilenet_v2(num_classes=3, width_mult=0.35).state_dict()
    torch.save(state, tmp_path / 'x.pth')
    write_npz(join_weights(split_weights(state, source='x'), 'slim'), tmp_path / 'x.npz')
    tensorflow = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'padding': 'same', 'norm_eps': 1e-3},
        {'type': 'LinearHead'},
        classes=('a', 'b'),
        normalise='tensorflow',
    )
    with pytest.raises(UserError, match=r'knows 3 classes, the model 2: .*background\. .*--drop-background'):
        load_weights(tensorflow, tmp_path / 'x.npz')
    with pytest.raises(UserError, match=r'skipped head\.fc\.weight: file \(3, 1280\), model \(2, 1280\)'):
        load_weights(make(('a', 'b')), tmp_path / 'x.pth')  # PyTorch's have no background


def test_scoring_a_file_takes_its_padding_and_normalisation(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """A config that leaves them open is scored right with TensorFlow's weights."""
    from torchvision.models import mobilenet_v2

    from falconet.backbones.weights.files import write_npz
    from falconet.backbones.weights.split import join_weights, split_weights

    torch.manual_seed(0)
    state = mobilenet_v2(num_classes=3, width_mult=0.35).state_dict()
    weights = split_weights(state, source='x')
    write_npz(join_weights(weights, 'slim'), tmp_path / 'x.npz')
    config = write_config()
    report = evaluate(load_config(config), checkpoint=str(tmp_path / 'x.npz'))

    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'padding': 'same', 'norm_eps': 1e-3},
        {'type': 'LinearHead'},
        classes=('blue', 'green', 'red'),
        normalise='tensorflow',
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 36, 'crop': 32}],
    )
    load_weights(model, tmp_path / 'x.npz')
    results = model.predict(str(tmp_path / 'data/test'))
    assert report['top1'] == np.mean(
        [Path(str(each.path)).parent.name == each.class_name for each in results]
    )


@pytest.mark.parametrize('options', [{'shortcut': 'none'}, {'linear_bottleneck': False}])
def test_weights_of_an_ablation_are_not_the_papers(tmp_path: Path, options: dict[str, Any]) -> None:
    """No name and no shape tells them apart."""
    path = saved(make(('a', 'b'), **options), tmp_path / 'x.pth')
    name = next(iter(options))
    for load in (load_weights, transfer_weights):
        with pytest.raises(UserError, match=f'was trained with {name}='):
            load(make(('a', 'b')), path)
    load_weights(make(('a', 'b'), **options), path)


def test_a_config_scores_its_own_checkpoint_when_its_weights_came_from_tensorflow(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """The config leaves padding and the rest to `pretrained`, which scoring does not ask for."""
    model = make(('blue', 'green', 'red'), padding='same', norm_eps=1e-3)
    path = saved(model, tmp_path / 'x.pth')
    config = load_config(write_config())
    config.model.backbone.pretrained = 'no/such/file.h5'
    assert evaluate(config, checkpoint=str(path))['images'] == 12
    assert set(config.model.backbone) == {'type', 'width', 'pretrained'}  # the caller's is left alone
    assert 'normalise' not in config.model
    config.merge_from_dict({'load_from': str(path), 'train_cfg.max_epochs': 1})
    train(config, work_dir=str(tmp_path / 'run'))
    assert read_checkpoint(tmp_path / 'run/best.pth')['model']['backbone']['padding'] == 'same'
    path.unlink()  # going on needs the run's own checkpoint only
    again = load_config(write_config())
    again.merge_from_dict({'load_from': str(path), 'train_cfg.max_epochs': 1})
    train(again, work_dir=str(tmp_path / 'run'), resume=True)


def test_a_head_that_names_no_rows_starts_anew_with_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HEADS.module_dict['LinearHead'], 'class_rows', lambda self: {})
    path = saved(make(('a', 'b'), seed=1), tmp_path / 'x.pth')
    ours = make(('b', 'a'), seed=2)
    before = ours.state_dict()['head.fc.weight'].clone()
    report = transfer_weights(ours, path)
    assert torch.equal(ours.state_dict()['head.fc.weight'], before)
    assert report.kept == ()
    assert transfer_weights(make(('a', 'b'), seed=2), path).kept == ('a', 'b')
