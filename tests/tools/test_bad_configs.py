"""Bad configs and checkpoints: each ends in one message that names the place, what was got, the way out."""

import contextlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from tasks import load_model
from tasks.build import build_model, load_config
from tasks.checkpoints.file import describe, write_checkpoint
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.plain import plain
from tasks.schema import check_config
from tasks.training.evaluate import evaluate
from tasks.training.optim import check_optim_wrapper, check_schedulers
from tasks.training.parts import optional_hooks
from tasks.training.train import train

CONFIG_TABLE = {
    'early_stopping.patience=abc': "early_stopping.patience must be a whole number of at least 1, got 'abc'",
    'early_stopping=5': r'early_stopping must be dict\(...\), got 5',
    'early_stopping.patiense=3': "unknown key 'early_stopping.patiense'. Did you mean patience",
    'ema.decay=abc': "ema.decay must be a number above 0 and below 1, got 'abc'",
    'ema=5': r'ema must be dict\(...\), got 5',
    'optim_wrapper.clip_grad.max_norm=abc': "clip_grad.max_norm must be a number above 0, got 'abc'",
    'optim_wrapper.clip_grad=5': r'clip_grad must be dict\(...\), got 5',
    'optim_wrapper.clip_grad.max_nrm=5': 'Did you mean max_norm',
    'optim_wrapper.paramwise_cfg.norm_decay=0': 'Did you mean norm_decay_mult',
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr=0': 'Known: lr_mult, decay_mult',
    'optim_wrapper.accumulative_counts=0': 'accumulative_counts must be a whole number of at least 1, got 0',
    'optim_wrapper.optimizer.lr=abc': "optimizer.lr must be a number, got 'abc'",
    'optim_wrapper.optimizer.momentum=abc': 'optim_wrapper: ',
    'optim_wrapper=5': r'optim_wrapper must be dict\(...\), got 5',
    'param_scheduler=5': 'param_scheduler must be a.* list, got 5',
    'param_scheduler.0.T_max=abc': "param_scheduler.0.T_max must be a whole number of at least 1, got 'abc'",
    'param_scheduler.0.eta_min=abc': "param_scheduler.0.eta_min must be a number, got 'abc'",
    'load_from=5': 'load_from must be a text, got 5',
    'data_root=5': 'data_root must be a text, got 5',
    'model.backbone.width=abc': "width must be a number above 0 and at most 8, got 'abc'",
    'model.backbone.width=400': 'width must be a number above 0 and at most 8, got 400',
    'model.backbone.frozen_stages=-1': 'frozen_stages must be a whole number of at least 0 and at most 8',
    'model.backbone=5': r'model.backbone must be dict\(...\), got 5',
    'model.head.label_smoothing=-2': 'label_smoothing must be a number of at least 0 and at most 1, got -2',
    'model.head.dropout=2': 'dropout must be a number of at least 0 and at most 1, got 2',
    'model.head.class_weights=[1,-1,1]': 'class_weights must be a list of numbers of at least 0, one a class',
    'model.head.class_weights=[1,nan,1]': 'class_weights must be a list of numbers of at least 0',
    'model.normalise=5': r'normalise must be a name or dict\(mean=, std=\), got 5',
    'model.norm_eval=5': 'model.norm_eval must be True or False, got 5',
    'train_dataloader.batch_size=0': 'batch_size must be a whole number of at least 1, got 0',
    'val_dataloader.batch_size=-1': 'val_dataloader.batch_size must be a whole number of at least 1, got -1',
    'val_dataloader.num_workers=300': 'num_workers must be a whole number .* and at most 128, got 300',
    'train_dataloader.dataset=5': r'train_dataloader.dataset must be dict\(...\), got 5',
    'train_dataloader.dataset.type=ConcatDataset': 'ConcatDataset is no data set of Kestrel',
    'train_dataloader.dataset.augment=5': 'train_dataloader.dataset',
    'train_dataloader.batch_augment=[5]': 'batch_augment must be a list of dict',
    'seed=4294967296': 'seed must be a whole number of at least 0 and at most 4294967295, got 4294967296',
    'seed=abc': "seed must be a whole number .*, got 'abc'",
    'train_cfg=5': r'train_cfg must be dict\(...\), got 5',
    'train_cfg.max_epochs=1.5': 'train_cfg.max_epochs must be a whole number of at least 1, got 1.5',
    'evaluator=5': r"evaluator must be dict\(type='Name', ...\), got 5",
    'custom_hooks=5': 'custom_hooks must be a list of dict',
    'sync_bn=5': 'sync_bn must be True or False, got 5',
    'amp=5': "amp must be 'auto' or 'off', got 5",
    'ema=dict(decay=0.9)': r'one by one, ema\.name=value',
}


@pytest.fixture(scope='module')
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkpoint of a small model holds."""
    torch.manual_seed(0)
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.1, 'taps': ('stage2',)},
        {'type': 'LinearHead'},
        classes=('a', 'b'),
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
    )
    dataset = {'type': 'ImageFolder', 'split': 'test', 'augment': list(model.preprocess)}
    config = Config({'model': model.spec, 'data_root': 'data', 'val_dataloader': {'dataset': dataset}})
    path = tmp_path_factory.mktemp('template') / 'x.pth'
    content = {
        **describe(model, config),
        'state_dict': model.state_dict(),
        'metrics': {},
        'epoch': 1,
        'iter': 3,
    }
    write_checkpoint(content, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('option', CONFIG_TABLE)
def test_a_wrong_value_in_a_config_is_named_with_what_is_expected(
    write_config: Callable[..., Path], tmp_path: Path, option: str
) -> None:
    with pytest.raises(UserError, match=CONFIG_TABLE[option]):
        train(load_config(write_config(), [option]), work_dir=str(tmp_path / 'run'))


def test_a_module_that_cannot_be_imported_is_named(write_config: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r'cannot read .*tiny\.py: .*no_such_module'):
        load_config(write_config("custom_imports = dict(imports=['no_such_module'])"))


def test_batch_norms_shared_by_one_process_are_said_to_do_nothing(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    train(
        load_config(write_config('train_cfg = dict(max_epochs=1)'), ['sync_bn=True']),
        work_dir=str(tmp_path / 'r'),
    )
    assert 'sync_bn=True does nothing here' in (tmp_path / 'r/train.log').read_text()


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a copy with one value another; `...` takes it away."""
    content = deepcopy(content)
    *parents, last = place.split('/')
    inner: Any = content
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


WEIGHT = 'state_dict/head.fc.weight'
CHECKPOINT_TABLE = [
    ('model/backbone', ..., 'model.backbone is missing'),
    ('classes', ..., 'classes is missing'),
    ('preprocess', ..., 'preprocess is missing'),
    ('preprocess/transforms', ..., 'preprocess.transforms is missing'),
    ('classes', 5, 'classes must be a list of 1 to 100,000 names, got 5'),
    ('classes', [], 'classes must be a list of 1 to 100,000 names'),
    ('classes', ['a', 'b', 'c'], r'fit its own model: head\.fc\.weight is torch.float32 \(2, 8\)'),
    ('format', 'x', "format must be a whole number of at least 0, got 'x'"),
    ('format', 99, 'newer Kestrel'),
    ('model', 5, r'no Kestrel checkpoint|must be dict'),
    ('model/extra', 5, "unknown key 'model.extra'"),
    ('state_dict', {'a': 5}, 'state_dict must be a dict of tensors'),
    ('training', 5, r'training must be dict\(...\), got 5'),
    ('task', 'detection', 'says it is for detection, but its head is for classification'),
    (WEIGHT, torch.full((2, 8), torch.nan), r'state_dict\.head\.fc\.weight is not finite'),
    (WEIGHT, torch.zeros(2, 9), r'the model has torch.float32 \(2, 8\)'),
    (WEIGHT, torch.zeros(2, 8, dtype=torch.int64), r'head\.fc\.weight is torch\.int64'),
    (WEIGHT, ..., r'head\.fc\.weight is only in one of the two'),
    ('state_dict/more', torch.zeros(1), 'more is only in one of the two'),
    ('model/normalise', {'mean': 'abc', 'std': (1, 1, 1)}, 'mean must be 3 numbers'),
    ('model/backbone/pretrained', 'torchvision', r'pretrained=.torchvision. is not taken from a checkpoint'),
    ('model/backbone/width', 400, 'width must be a number above 0 and at most 8, got 400'),
    ('model/backbone/taps', 5, 'taps must be a sequence of names, got 5'),
    ('model/head/type', 'os.system', "no head is called 'os.system'"),
    ('model/head/checkpoint_path', '/etc/passwd', 'is not taken from a checkpoint, which may set dropout'),
    ('preprocess/transforms/0/type', 'TextImage', "'TextImage' is not taken from a checkpoint"),
    ('preprocess/transforms/0/type', 'OneOf', 'is not taken from a checkpoint'),
    ('preprocess/transforms/0/crop', 10**6, 'crop must be a number within 8192'),
    ('preprocess/transforms/0/path', '/etc/passwd', 'path must be a number within 8192'),
    *(
        (
            'model/backbone',
            {'type': 'TimmBackbone', 'model': 'resnet18', **options},
            message,
        )
        for options, message in (
            ({'pretrained': True}, 'pretrained=True is not taken from a checkpoint'),
            (
                {'options': {'pretrained_cfg_overlay': {'url': 'http://x'}}},
                "nothing else, not 'pretrained_cfg_ov",
            ),
            ({'options': {'checkpoint_path': '/etc/passwd'}}, "nothing else, not 'checkpoint_path'"),
            ({'options': {'cache_dir': '/'}}, "nothing else, not 'cache_dir'"),
            ({'options': {'act_layer': 'a.b'}}, 'act_layer must be a word'),
            ({'model': 'hf-hub:someone/model'}, "must be a model's name of timm, got 'hf-hub:someone/model'"),
            ({'model': 'local-dir:/etc'}, "must be a model's name of timm"),
            ({'out_indices': [10**9]}, 'out_indices must be a sequence'),
        )
    ),
]


@pytest.mark.parametrize(('place', 'value', 'message'), CHECKPOINT_TABLE)
def test_a_wrong_value_in_a_checkpoint_is_named_with_its_file(
    template: dict[str, Any], tmp_path: Path, place: str, value: Any, message: str
) -> None:
    torch.save(changed(template, place, value), tmp_path / 'bad.pth')
    with pytest.raises(UserError, match=message) as caught:
        load_model(tmp_path / 'bad.pth')
    assert 'bad.pth' in str(caught.value) or 'normalise' in place


DATA_TABLE = [
    ('config', ..., 'does not say what data it is scored on; score it with a config'),
    ('config/val_dataloader/num_workers', 300, 'num_workers must be a whole number .* at most 128, got 300'),
    ('config/val_dataloader/batch_size', 10**6, 'batch_size 1000000 is more than is taken from a checkpoint'),
    ('config/val_dataloader/dataset/type', 'ConcatDataset', 'is no data set of Kestrel'),
    ('config/val_dataloader/dataset/type', 'os.system', "no dataset is called 'os.system'"),
    (
        'config/val_dataloader/dataset/augment',
        [{'type': 'TextImage', 'font_path': '/x'}],
        'is not taken from',
    ),
    ('config/evaluator', {'type': 'DumpResults', 'out_file_path': 'x.pkl'}, 'no metric of classification'),
    ('config/data_root', 5, 'data_root must be a text, got 5'),
]


@pytest.mark.parametrize(('place', 'value', 'message'), DATA_TABLE)
def test_what_a_checkpoint_says_of_its_data_is_checked_before_it_is_scored(
    template: dict[str, Any], folders: Path, tmp_path: Path, place: str, value: Any, message: str
) -> None:
    for name in ('green', 'red'):
        (folders / 'test' / name).rename(folders / 'test' / {'green': 'a', 'red': 'b'}[name])
    for each in (folders / 'test/blue').iterdir():
        each.unlink()
    (folders / 'test/blue').rmdir()
    torch.save(changed(template, place, value), tmp_path / 'bad.pth')
    with pytest.raises(UserError, match=message):
        evaluate(None, checkpoint=str(tmp_path / 'bad.pth'), root=str(folders))


def test_a_changed_byte_is_found_by_the_archives_own_checksum(
    template: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / 'x.pth'
    torch.save(template, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = next(
            each for each in archive.infolist() if '/data/' in each.filename and each.file_size > 100
        )
    place = data.index(member.filename.encode()) + 300
    data[place] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)  # torch does not see it
    with pytest.raises(UserError, match=r'x\.pth: the bytes of .* have changed since it was written'):
        load_model(path)


def test_a_compressed_archive_is_not_unpacked(template: dict[str, Any], tmp_path: Path) -> None:
    torch.save(template, tmp_path / 'x.pth')
    with (
        zipfile.ZipFile(tmp_path / 'x.pth') as archive,
        zipfile.ZipFile(tmp_path / 'y.pth', 'w', zipfile.ZIP_DEFLATED) as packed,
    ):
        for each in archive.namelist():
            packed.writestr(each, archive.read(each))
    with pytest.raises(UserError, match='is compressed, so torch did not write it'):
        load_model(tmp_path / 'y.pth')


def test_a_strangers_checkpoint_reaches_neither_network_nor_files(
    template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError('a connection')

    monkeypatch.setattr('socket.socket.connect', refuse)
    monkeypatch.setattr('socket.getaddrinfo', refuse)
    (tmp_path / 'secret').mkdir()
    for options in (
        {'type': 'MobileNetV2', 'pretrained': 'torchvision'},
        {'type': 'TimmBackbone', 'pretrained': True},
        {'type': 'TimmBackbone', 'pretrained': str(tmp_path / 'secret')},
        {'type': 'TimmBackbone', 'options': {'pretrained_cfg': {'hf_hub_id': 'a/b'}}},
        {'type': 'TimmBackbone', 'options': {'checkpoint_path': str(tmp_path / 'secret')}},
    ):
        torch.save(changed(template, 'model/backbone', options), tmp_path / 'x.pth')
        with pytest.raises(UserError, match=r'is not taken from a checkpoint|and nothing else, not'):
            load_model(tmp_path / 'x.pth')


def test_an_unlisted_head_takes_numbers_and_switches_only(
    template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heads import LinearHead

    monkeypatch.setattr(LinearHead, 'option_values', None)
    torch.save(changed(template, 'model/head/dropout', 0.5), tmp_path / 'x.pth')
    assert load_model(tmp_path / 'x.pth').classes == ('a', 'b')
    torch.save(changed(template, 'model/head/dropout', '/etc/passwd'), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='dropout must be a number within 8192, True, False or None'):
        load_model(tmp_path / 'x.pth')


@pytest.mark.parametrize('source', [None, 5, [], b'x'])
def test_what_is_no_path_is_said(source: Any) -> None:
    with pytest.raises(UserError, match='path of a checkpoint or a config, got'):
        load_model(source)


def test_a_folder_and_a_device_that_is_none_are_said(template: dict[str, Any], tmp_path: Path) -> None:
    torch.save(template, tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'is a folder: name the checkpoint in it'):
        load_model(tmp_path)
    for device in ('foo', 'cuda:99', 5.5):
        with pytest.raises(UserError, match=r"device=.* cannot be used: .*'cpu' always can"):
            load_model(tmp_path / 'x.pth', device=device)  # type: ignore[arg-type]


@pytest.mark.parametrize('version', [1, None])
def test_checkpoints_of_earlier_formats_load(
    template: dict[str, Any], tmp_path: Path, version: int | None
) -> None:
    torch.save(changed(template, 'format', ... if version is None else version), tmp_path / 'x.pth')
    assert load_model(tmp_path / 'x.pth').classes == ('a', 'b')


def test_the_command_lines_end_with_code_2_and_no_traceback(
    root: Path, template: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    torch.save(changed(template, 'model/backbone/pretrained', 'torchvision'), tmp_path / 'bad.pth')
    for arguments, message in (
        (['train.py', write_config(), '--cfg-options', 'ema.decay=abc'], 'ema.decay must be a number'),
        (['predict.py', tmp_path / 'bad.pth', tmp_path], "pretrained='torchvision' is not taken"),
    ):
        command = [sys.executable, str(root / 'tools' / arguments[0]), *map(str, arguments[1:])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert 'Traceback' not in done.stderr


# Values of every kind where others are expected.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_subnormal=False)
    | st.text(max_size=5)
    | st.sampled_from(['last', 'SGD', 'LinearHead', 'MobileNetV2', 'os.system', '/etc/passwd', 0.5, 2, 8]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.just('type'), inner, max_size=3)
    ),
    max_leaves=4,
)


def places_of(value: Any, place: tuple = ()) -> list[tuple]:
    """Return every place in nested dicts and lists that is not a tensor."""
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    inner = [each for key, child in items for each in places_of(child, (*place, key))]
    return [*([place] if place else []), *inner]


def put(content: Any, place: tuple, value: Any) -> Any:
    """Return a copy with the value at one place another."""
    content = deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


@pytest.mark.slow
def test_2000_random_values_in_configs_and_checkpoints_give_no_traceback(
    template: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = plain(load_config(write_config('ema = dict(decay=0.9)\nearly_stopping = dict(patience=3)')))
    small = {key: value for key, value in template.items() if key not in ('versions', 'config_text')}

    def try_config(place: tuple, value: Any) -> None:
        changed_config = Config(put(config, place, value))
        check_config(changed_config, training=True)
        build_model(changed_config, classes=('a', 'b', 'c'))
        check_optim_wrapper(plain(changed_config.optim_wrapper))
        check_schedulers(plain(changed_config.get('param_scheduler') or []))
        optional_hooks(changed_config)

    def try_checkpoint(place: tuple, value: Any) -> None:
        try:
            write_checkpoint(put(small, place, value), tmp_path / 'x.pth')
        except (TypeError, UserError, RuntimeError, UnicodeError, OverflowError):
            return  # torch itself does not write such a thing
        load_model(tmp_path / 'x.pth')

    for content, attempt in ((config, try_config), (small, try_checkpoint)):
        places = st.sampled_from(places_of(content))

        @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(place=places, value=ANYTHING)
        def no_traceback(place: tuple, value: Any) -> None:
            with contextlib.suppress(UserError):
                attempt(place, value)  # noqa: B023 (it is called before the loop goes on)

        no_traceback()
