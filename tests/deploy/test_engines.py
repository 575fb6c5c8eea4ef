"""Exported files answer like the checkpoint they came from, and what is wrong with a file is said."""

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from falconet import load_model
from falconet.checkpoints.convert import convert
from falconet.core.errors import UserError
from falconet.core.names import NAME
from falconet.datasets.segmentation.dataset import VOC_CLASSES
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import export
from falconet.deploy.parity import box_differences, generated_pictures, too_large
from falconet.heads.base import HEADS
from falconet.heads.linear import LinearHead
from falconet.tasks.build import load_config

ENDINGS = ('.pt2', '.onnx', '.xml')
Exported = Callable[[str, str], Path]


def check_same(expected: list[Any], found: list[Any]) -> None:
    """Compare the results of two models, picture by picture."""
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert type(one) is type(other)
        assert (one.class_names, one.path) == (other.class_names, other.path)
        if hasattr(one, 'mask'):
            assert one.mask.shape == other.mask.shape
            assert (one.mask == other.mask).mean() >= 0.999
        elif hasattr(one, 'boxes'):
            sides = [
                {
                    'boxes': each.boxes[None],
                    'scores': each.scores[None],
                    'labels': each.labels[None],
                    'count': np.array([len(each)]),
                }
                for each in (one, other)
            ]
            assert len(one) > 0
            assert not too_large(box_differences(*sides))
        else:
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


@pytest.mark.parametrize('ending', ENDINGS)
def test_files_answer_like_the_checkpoint(exported: Exported, case: tuple[str, str], ending: str) -> None:
    folder = exported(*case)
    model, program = load_model(folder / 'best.pth'), load_model(folder / f'best{ending}')
    assert isinstance(program, ExportedModel)
    assert (program.task, program.classes) == (model.task, model.classes)
    pictures = [generated_pictures(size, count=1)[0] for size in ((96, 96), (70, 130), (240, 99))]
    check_same(model.predict(pictures), program.predict(pictures))
    check_same([model.predict(pictures[1])], [program.predict(pictures[1])])


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_files_answer_in_tiles_like_the_checkpoint(exported: Exported, task: str, ending: str) -> None:
    folder = exported(task, 'symmetric')
    (picture,) = generated_pictures((230, 310), count=1)
    model, program = load_model(folder / 'best.pth'), load_model(folder / f'best{ending}')
    for tiles in (2, 64):  # 64: fewer, for there is no tile smaller than 32 pixels
        check_same([model.predict(picture, tiles=tiles)], [program.predict(picture, tiles=tiles)])


def test_tiles_that_a_program_of_one_size_does_not_take_are_refused(resizing: Callable[[str], Path]) -> None:
    program = load_model(resizing('segmentation') / 'best.onnx')
    (picture,) = generated_pictures((72, 140), count=1)
    assert program.predict(picture).mask.shape == (72, 140)
    with pytest.raises(UserError, match=r'takes .* \(batch, 72, 140, 3\), .* --size any'):
        program.predict(picture, tiles=2)


@pytest.mark.parametrize('ending', ENDINGS)
def test_the_bare_program_takes_any_number_of_pictures(exported: Exported, ending: str) -> None:
    program = ExportedModel(exported('detection', 'same') / f'best{ending}')
    pictures = generated_pictures((96, 96), count=3)
    together = program.run(pictures)
    assert [(each.name, each.dtype) for each in program.description.outputs] == [
        (name, each.dtype) for name, each in together.items()
    ]
    alone = program.run(pictures[1:2])
    for name, each in together.items():
        np.testing.assert_allclose(each[1], alone[name][0], atol=1e-4)


@pytest.mark.parametrize('ending', ENDINGS)
def test_a_file_says_what_it_is(exported: Exported, case: tuple[str, str], ending: str) -> None:
    folder = exported(*case)
    description = ExportedModel(folder / f'best{ending}').description
    assert (description.task, description.classes) == (case[0], ('blue', 'green', 'red'))
    assert description.input.shape == ('batch', 96, 96, 3)
    assert description.metrics == {'top1': 0.5}
    assert len(description.sha256) == 64
    card = (folder / 'model_card.md').read_text()
    assert description.sha256 in card
    assert all(f'best{each}' in card for each in ENDINGS)
    assert all(each.meaning in card for each in description.outputs)


def test_files_name_no_folder_of_the_machine_that_wrote_them(exported: Exported, root: Path) -> None:
    folder = exported('detection', 'same')
    for ending in ENDINGS:
        path = folder / f'best{ending}'
        content = path.read_bytes()
        if ending == '.pt2':
            with zipfile.ZipFile(path) as archive:
                content = b''.join(archive.read(name) for name in archive.namelist())
        assert str(root).encode() not in content
        assert str(folder).encode() not in content


@pytest.mark.parametrize(
    ('name', 'pictures'),
    [
        ('classification', 'imagenet/val/*/*'),
        ('detection', 'coco/val2017/*.jpg'),
        ('segmentation', 'VOCdevkit/VOC2012/JPEGImages/*.jpg'),
    ],
)
def test_real_weights_answer_alike_on_real_photographs(
    real_data: Path, root: Path, tmp_path: Path, name: str, pictures: str
) -> None:
    options = ['width=0.5', 'channel_divisor=1', 'output_stride=8']
    sources: dict[str, tuple[str, dict[str, Any]]] = {
        'classification': ('mobilenetv2_100_imagenet_torchvision.pth', {}),
        'detection': (
            'ssdlite_mobilenetv2_person_tf_variables.npz',
            {'classes': ['person'], 'config': load_config(root / 'configs/ssdlite_tf_person.py')},
        ),
        'segmentation': (
            'deeplabv3_mobilenetv2_050_voc_tf_folded.npz',
            {
                'classes': VOC_CLASSES,
                'config': load_config(
                    root / 'configs/deeplabv3_voc.py',
                    [f'model.backbone.{each}' for each in options]
                    + ['val_dataloader.dataset.augment.0.size=257'],
                ),
            },
        ),
    }
    file, given = sources[name]
    convert(str(real_data / 'weights' / file), tmp_path / 'real.pth', **given)
    files = sorted(real_data.glob(pictures))[:20]
    export(tmp_path / 'real.pth', ['torch', 'onnx', 'openvino'], out=tmp_path, check=files[:4])
    model = load_model(tmp_path / 'real.pth')
    # All detections, also those that predict leaves out by itself.
    options = {'score_threshold': 0.0} if model.task.name == 'detection' else {}
    expected = model.predict(files, **options)
    for ending in ENDINGS:
        check_same(expected, load_model(tmp_path / f'real{ending}').predict(files, **options))


@pytest.mark.parametrize('ending', ENDINGS)
def test_a_damaged_file_is_named(exported: Exported, tmp_path: Path, ending: str) -> None:
    folder = exported('classification', 'symmetric')
    shutil.copytree(folder, tmp_path / 'copy')
    path = tmp_path / 'copy' / f'best{ending}'
    weights = path.with_suffix('.bin') if ending == '.xml' else path
    whole = path.read_bytes()
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(UserError, match=rf'best{ending} cannot be opened as .*export the checkpoint again'):
        load_model(path)
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match=rf'best{ending} cannot be opened as'):
        load_model(path)
    path.write_bytes(b'')
    with pytest.raises(UserError, match=f'best{ending}'):
        load_model(path)
    path.unlink()
    with pytest.raises(UserError, match=rf'there is no exported program .*best{ending}'):
        load_model(path)


def test_weights_that_stayed_behind_are_missed(exported: Exported, tmp_path: Path) -> None:
    shutil.copy(exported('classification', 'symmetric') / 'best.xml', tmp_path)
    with pytest.raises(UserError, match=r'best\.xml cannot be opened as openvino'):
        load_model(tmp_path / 'best.xml')


def with_description(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Copy an ONNX file with another description; None takes it away."""
    model = onnx.load(source)
    content = json.loads(next(each.value for each in model.metadata_props))
    del model.metadata_props[:]
    if (changed := change(content)) is not None:
        onnx.helper.set_model_props(
            model, {NAME: changed if isinstance(changed, str) else json.dumps(changed)}
        )
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: None, r'not written by tools/export\.py'),
        (lambda content: '{"task": ', r'description is damaged'),
        (lambda content: {**content, 'classes': 3}, r'description is damaged \(classes: '),
        (lambda content: {**content, 'format': 99}, r'newer Falconet \(format 99\)'),
        (lambda content: {**content, 'task': 'os'}, r'says it is for os, but its head is for classification'),
        (
            lambda content: {**content, 'model': {'head': {'type': 'os.system'}}},
            r"no head is called 'os\.system'",
        ),
        (lambda content: {**content, 'model': {}}, r'head'),
        (lambda content: {**content, 'preprocess': [{'type': 'Rezise'}]}, r"'Rezise' is not taken from"),
    ],
)
def test_a_description_that_is_missing_or_wrong_is_said(
    exported: Exported, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    source = exported('classification', 'symmetric') / 'best.onnx'
    with pytest.raises(UserError, match=message):
        load_model(with_description(source, tmp_path / 'x.onnx', change)).predict(
            np.zeros((9, 9, 3), np.uint8)
        )


@pytest.mark.parametrize(
    'pictures',
    [
        np.zeros((1, 95, 96, 3), np.uint8),
        np.zeros((1, 96, 96, 3), np.float32),
        np.zeros((96, 96, 3), np.uint8),
        np.zeros((1, 3, 96, 96), np.uint8),
    ],
    ids=['size', 'dtype', 'no batch', 'layout'],
)
def test_pictures_that_do_not_fit_are_explained(exported: Exported, pictures: np.ndarray) -> None:
    program = ExportedModel(exported('classification', 'symmetric') / 'best.onnx')
    with pytest.raises(UserError, match=r'takes RGB uint8 pictures \(batch, 96, 96, 3\), got'):
        program.run(pictures)


@pytest.mark.parametrize('name', ['onnx', 'openvino'])
def test_a_missing_extra_is_named(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    folder, real = exported('classification', 'symmetric'), importlib.util.find_spec
    gone = {'onnx': 'onnxruntime', 'openvino': 'openvino'}[name]
    monkeypatch.setattr(importlib.util, 'find_spec', lambda each: None if each == gone else real(each))
    with pytest.raises(UserError, match=rf"running the format {name} needs {gone}.*'\.\[{name}\]'"):
        load_model(folder / f'best{".onnx" if name == "onnx" else ".xml"}')
    with pytest.raises(UserError, match=rf"writing the format {name} needs {gone}.*'\.\[{name}\]'"):
        export(folder / 'best.pth', [name], out=tmp_path)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (b'torch.ops.aten.softmax.int', b'torch.hub.load_state_dict_from_url'),
        (b'torch.ops.aten.softmax.int', b'torch.ops.aten.softmax.__class__'),
        (b'"use_pickle": false', b'"use_pickle": true'),
        (b'"name": "pictures"', b'"name": "pictures; import os"'),
        (b'"guards_code": []', b'"guards_code": ["print(1)"]'),
        (b"Symbol('s", b"exec('s"),
    ],
)
def test_a_strangers_pt2_with_more_than_operators_is_refused(
    exported: Exported, tmp_path: Path, old: bytes, new: bytes
) -> None:
    source, path, seen = exported('classification', 'symmetric') / 'best.pt2', tmp_path / 'best.pt2', False
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, 'w') as other:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith('.json'):
                seen = seen or old in content
                content = content.replace(old, new)
            other.writestr(name, content)
    assert seen
    with pytest.raises(UserError, match=r'best\.pt2 refused: it holds .*could run code'):
        load_model(path)


@pytest.mark.parametrize('name', ['data/aotinductor/model/x.so', 'data/sample_inputs/model.pt', 'x.pkl'])
def test_a_strangers_pt2_with_other_entries_is_refused(exported: Exported, tmp_path: Path, name: str) -> None:
    source = exported('classification', 'symmetric') / 'best.pt2'
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / 'best.pt2', 'w') as new:
        for each in old.namelist():
            if not each.endswith(name):
                new.writestr(each, old.read(each))
        new.writestr(f'best/{name}', b'anything')
    with pytest.raises(UserError, match='refused'):
        load_model(tmp_path / 'best.pt2')


def test_a_users_own_head_leaves_raw_and_comes_back_where_it_is_known(
    small_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PairHead(LinearHead):
        def forward(self, features: Any) -> Any:
            logits = super().forward(features)
            return logits, logits.softmax(dim=1)

        def predict(self, outputs: Any, image_sizes: Any, **where: Any) -> Any:
            return self.place({'scores': outputs[1]}, image_sizes)

    monkeypatch.setitem(HEADS.module_dict, 'PairHead', PairHead)
    path = small_checkpoint(head={'type': 'PairHead'})
    (written,) = export(path, ['onnx'], out=tmp_path, raw=True)
    picture = generated_pictures((80, 90), count=1)[0]
    check_same([load_model(path).predict(picture)], [load_model(written.path).predict(picture)])
    monkeypatch.delitem(HEADS.module_dict, 'PairHead')
    with pytest.raises(UserError, match="no head is called 'PairHead'"):
        load_model(written.path)


def test_a_fixed_batch_answers_any_number_of_pictures(
    small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = small_checkpoint('detection')
    export(path, ['onnx', 'openvino'], out=tmp_path, batch=2)
    pictures = list(generated_pictures((96, 96), count=5))
    for ending in ('.onnx', '.xml'):
        program = ExportedModel(tmp_path / f'best{ending}')
        assert program.description.input.shape == (2, 96, 96, 3)
        check_same(load_model(path).predict(pictures), program.predict(pictures))


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_a_program_that_resizes_answers_for_whole_pictures(
    resizing: Callable[[str], Path], task: str
) -> None:
    folder = resizing(task)
    program, model = ExportedModel(folder / 'best.onnx'), load_model(folder / 'best.pth')
    pictures = generated_pictures((72, 140), count=2)
    results, bare = program.predict(list(pictures)), program.run(pictures)
    for row, (result, expected) in enumerate(zip(results, model.predict(list(pictures)), strict=True)):
        if task == 'segmentation':
            assert (result.mask == bare['mask'][row]).mean() > 0.999
            assert (result.mask == expected.mask).mean() > 0.98  # OpenCV's greys, rounded elsewhere
        elif task == 'detection':
            np.testing.assert_allclose(result.boxes, bare['boxes'][row, : len(result)], atol=1e-3)
            np.testing.assert_allclose(result.boxes[0], expected.boxes[0], atol=1.5)
        else:
            np.testing.assert_allclose(result.scores, expected.scores, atol=0.02)
    with pytest.raises(UserError, match=r'takes RGB uint8 pictures \(batch, 72, 140, 3\)'):
        program.predict(np.zeros((72, 141, 3), np.uint8))
