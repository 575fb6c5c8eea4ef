"""Wrong values in checkpoints, a stranger's among them: each is named with its file, nothing is loaded."""

import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from falconet import load_model
from falconet.core.errors import UserError
from falconet.engine.evaluate import evaluate


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
    ('format', 99, 'newer Falconet'),
    ('model', 5, r'no Falconet checkpoint|must be dict'),
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
    ('config/val_dataloader/dataset/type', 'ConcatDataset', 'is no data set of Falconet'),
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
    from falconet.heads import LinearHead

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
