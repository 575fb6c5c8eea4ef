"""Lists in every format say what predictions.json says, and a second run may replace them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from falconet.core.errors import UserError
from falconet.engine.predict.files import predict_files
from falconet.engine.predict.listing import FORMULAS, write_listing
from falconet.tasks.model import VisionModel

PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'classification': ({}, {'type': 'LinearHead'}),
    'detection': ({'taps': ('stage6_expand', 'last')}, {'type': 'SSDLiteHead', 'limit': 7}),
    'segmentation': ({'taps': ('stage7',)}, {'type': 'DeepLabV3Head', 'hidden_channels': 16}),
}


def make_model(task: str) -> VisionModel:
    backbone, head = PARTS[task]
    torch.manual_seed(0)
    resize = {'type': 'Resize', 'height': 64, 'width': 64}
    if task == 'segmentation':
        resize = {'type': 'ResizePad', 'size': 64}
    return VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, **backbone},
        head,
        classes=('back', 'cat', 'dog'),
        preprocess=[resize],
    ).eval()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate([(60, 80), (90, 50)], 1):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f'{number}.png')
    return folder


def run(task: str, pictures: Path, out: Path, form: str) -> str:
    options = {'score_threshold': 0.0} if task == 'detection' else {}
    return predict_files(make_model(task), [pictures], out, form=form, **options).listing.read_text()


@pytest.mark.parametrize('task', PARTS)
def test_a_table_has_a_row_for_every_answer(task: str, pictures: Path, tmp_path: Path) -> None:
    entries = json.loads(run(task, pictures, tmp_path / 'json', 'json'))['predictions']
    rows = list(csv.DictReader(run(task, pictures, tmp_path / 'csv', 'csv').splitlines()))
    answers = {
        'classification': lambda each: [each['class_name']],
        'detection': lambda each: [one['class_name'] for one in each['detections']],
        'segmentation': lambda each: list(each['shares']),
    }[task]
    assert len(rows) >= 2
    assert [row['class_name'] for row in rows] == [name for each in entries for name in answers(each)]


@pytest.mark.parametrize('task', PARTS)
def test_lines_are_the_entries_of_the_list(task: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    entries = json.loads(run(task, pictures, out, 'json'))['predictions']
    first, *lines = run(task, pictures, out, 'jsonl').splitlines()
    assert [json.loads(line) for line in lines] == entries
    assert json.loads(first)['complete'] is True


def test_cocos_tool_reads_the_boxes(pictures: Path, tmp_path: Path) -> None:
    entries = json.loads(run('detection', pictures, tmp_path / 'json', 'json'))['predictions']
    text = run('detection', pictures, tmp_path / 'out', 'coco')
    assert run('detection', pictures, tmp_path / 'out', 'coco') == text  # our own file may be replaced
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {
        'images': [{'id': 1}, {'id': 2}],
        'categories': [{'id': 1}, {'id': 2}, {'id': 3}],
        'annotations': [],
    }
    truth.createIndex()
    found = truth.loadRes(json.loads(text))  # type: ignore[arg-type]
    assert len(found.anns) == sum(len(each['detections']) for each in entries) == 14


def test_an_empty_list_of_ours_may_be_replaced(pictures: Path, tmp_path: Path) -> None:
    for _ in range(2):
        predict_files(make_model('detection'), [pictures], tmp_path, form='coco', score_threshold=1.0)
    assert json.loads((tmp_path / 'predictions.coco.json').read_text()) == []


def test_what_a_format_cannot_say_is_refused_before_anything_is_written(
    pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match='coco cannot say the answers of classification'):
        run('classification', pictures, tmp_path / 'out', 'coco')
    assert not (tmp_path / 'out').exists()


NAMES = (
    '=1+1',
    '+49',
    '-',
    '@SUM(A1)',
    '\tx',
    '\r=1',
    '\n=1',
    '\uff1d1',
    "'=1",
    "''-",
    "'t Hooft",
    'cat=dog',
    'a-b',
)


def test_a_spreadsheet_computes_nothing_and_a_reader_gets_the_names_back(
    pictures: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(NAMES):
        model = VisionModel(
            {'type': 'MobileNetV2', 'width': 0.1, 'taps': ('stage2',)},
            {'type': 'LinearHead'},
            classes=(name, 'other'),
            preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
        ).eval()
        with torch.no_grad():
            list(model.head.parameters())[-1].copy_(torch.tensor([99.0, 0.0]))
        done = predict_files(model, [pictures], tmp_path / str(number), form='csv')
        with done.listing.open(newline='', encoding='utf-8') as file:
            (cell, *_) = [row['class_name'] for row in csv.DictReader(file)]
        assert not cell.startswith(FORMULAS)
        assert (cell != name) is name.lstrip("'").startswith(FORMULAS)
        assert (cell[1:] if cell.lstrip("'").startswith(FORMULAS) else cell) == name
        again = predict_files(model, [pictures], tmp_path / str(number), form='json')
        assert json.loads(again.listing.read_text())['predictions'][0]['class_name'] == name


def test_a_files_name_is_no_formula_and_a_number_stays_one(tmp_path: Path) -> None:
    lines, target = tmp_path / 'lines', tmp_path / 'list.csv'
    found = [{'box': [-1.5, 2, 3, 4], 'score': 0.5, 'label': 0, 'class_name': 'cat'}]
    lines.write_text('{}\n' + json.dumps({'path': '=cmd.png', 'detections': found}) + '\n')
    write_listing(lines, target, 'csv', 'detection', {})
    ((path, *numbers, label, name, _),) = list(csv.reader(target.read_text().splitlines()))[1:]
    assert (path, label, name) == ("'=cmd.png", '0', 'cat')
    assert [float(each) for each in numbers] == [-1.5, 2, 3, 4, 0.5]
