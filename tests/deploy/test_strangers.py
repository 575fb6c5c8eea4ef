"""Programs that say of themselves what is not so, or more than a file may: refused by name."""

import json
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import pytest

from falconet import load_model
from falconet.core.errors import UserError
from falconet.core.names import NAME
from falconet.deploy.parity import generated_pictures

Exported = Callable[[str, str], Path]
TEXT = {'type': 'TextImage', 'font_path': '/etc/passwd'}
LIES = [
    ('preprocess', [TEXT], "transform 1: 'TextImage' is not taken from a checkpoint"),
    ('preprocess', [{'type': 'OneOf', 'transforms': [TEXT]}], "'OneOf' is not taken from a checkpoint"),
    ('preprocess', [{'type': 'ResizeCenterCrop', 'resize': 10**9, 'crop': 8}], 'a number within 8192'),
    ('preprocess', [{}], 'None is not taken from a checkpoint'),
    (
        'model/head',
        {'type': 'LinearHead', 'checkpoint_path': '/etc/passwd'},
        'is not taken from a checkpoint',
    ),
    ('model/head', {'type': 'LinearHead', 'dropout': 5}, 'dropout must be a number'),
    ('model/head', 5, 'head must be dict'),
    ('task', 'detection', 'says it is for detection, but its head is for classification'),
    ('task', 'training.train', 'says it is for training.train'),
    ('input/shape', [], r'input: .*expected \(batch, height, width, 3\)'),
    ('input/shape', ['batch', 96, 96, 4], r'expected \(batch, height, width, 3\)'),
    ('input/shape', [0, 96, 96, 3], r'expected \(batch, height, width, 3\)'),
    ('input/shape', [10**9, 96, 96, 3], r'expected \(batch, height, width, 3\)'),
    ('picture', [0, 96], 'picture.0: Input should be greater than or equal to 1'),
    ('network', [96, 10**12], 'network.1: Input should be less than'),
    ('channels', [-1], 'channels.0: Input should be greater'),
    ('channels', [], 'a head needs one stride per map'),
    ('classes', ['a', 'b'], 'does not answer as it says of itself.*: it knows other classes than its 2'),
    ('classes', ['a'] * 5, 'does not answer as it says of itself.*: it knows other classes than its 5'),
    ('raw', 'tensor', 'does not answer as it says of itself'),
]


def said_by(source: Path, target: Path, place: str, value: Any) -> Path:
    """Copy an ONNX file, one value of its description another."""
    model = onnx.load(source)
    content = deepcopy(json.loads(next(each.value for each in model.metadata_props)))
    *parents, last = place.split('/')
    inner: Any = content
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[last] = value
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {NAME: json.dumps(content)})
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(('place', 'value', 'message'), LIES)
def test_a_description_is_taken_by_value_and_range_and_held_to(
    exported: Exported, tmp_path: Path, place: str, value: Any, message: str
) -> None:
    source = exported('classification', 'same') / 'best.onnx'
    path = said_by(source, tmp_path / 'strange.onnx', place, value)
    with pytest.raises(UserError, match=message) as caught:
        load_model(path).predict(generated_pictures((96, 96), count=1)[0])
    assert 'strange.onnx' in str(caught.value)


def test_weights_in_other_files_are_not_read(exported: Exported, tmp_path: Path) -> None:
    """Neither those of the same folder nor those that a path leads out to."""
    secret = tmp_path / 'secret'
    secret.write_bytes(bytes(4096))
    for location in ('../secret', str(secret), 'secret'):
        model = onnx.load(exported('classification', 'same') / 'best.onnx')
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        tensor.ClearField('raw_data')
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = 'location', location
        path = tmp_path / 'inner' / 'strange.onnx'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(UserError, match=r'strange\.onnx cannot be opened as onnx'):
            load_model(path)


def test_a_compressed_program_is_refused_unread(exported: Exported, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported('classification', 'same') / 'best.pt2') as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / 'strange.pt2', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r'strange\.pt2: .* is compressed'):
        load_model(tmp_path / 'strange.pt2')


def test_names_for_a_file_that_has_its_own_are_an_error(exported: Exported) -> None:
    folder = exported('classification', 'same')
    for name in ('best.onnx', 'best.pth'):
        with pytest.raises(UserError, match=r'has classes of its own: leave classes out'):
            load_model(folder / name, classes=['a', 'b', 'c'])
