"""No class name, whatever it is made of, ends a run or changes what a table, a plot or a picture says."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from falconet.datasets.classes import counted
from falconet.report.drawing import contact_sheet
from falconet.report.plots import draw_precision_recall
from falconet.report.text import shown
from falconet.tasks.classification.metric import ClassificationMetric
from falconet.tasks.classification.metric import summarise as summarise_classes
from falconet.tasks.classification.result import ClassificationResult
from falconet.tasks.detection.metric import COCO_NAMES, DetectionMetric
from falconet.tasks.detection.result import DetectionResult
from falconet.tasks.segmentation.metric import SegmentationMetric
from falconet.tasks.segmentation.metric import summarise as summarise_pixels
from falconet.tasks.segmentation.result import SegmentationResult

NAMES = {
    'closing tag': '[/b]',
    'left': 'car [left]',
    'right': 'car [right]',
    'maths': '$x^{$',
    'markup': '<script>alert(1)</script>',
    'long': 'very ' * 40,
    'Hebrew': 'כלב \u202e cat',
    'no letters of the font': '猫 🐈',
    'terminal': 'a\x1b[31mred\x07\0',
    'lines': 'one\ntwo\r\nthree\u2028four',
    'no UTF-8': 'caf\udce9',
    'nothing': '',
    'blank': ' \t ',
    'underscore': '_hidden',
    'emoji code': ':cat: \\[b]',
}


def metric_of(task: str, names: list[str]) -> Any:
    """A finished metric whose classes have these names, each taken for the next."""
    confusion = np.roll(np.eye(len(names), dtype=np.int64), 1, axis=1)
    confusion[0] = confusion[-1] = 0
    if task == 'detection':
        metric: Any = DetectionMetric()
        row = {'objects': 1, 'AP': 0.0, 'AP50': 0.0, 'AP75': 0.0}
        metric.report = {
            'objects': 3, **dict.fromkeys(COCO_NAMES, 0.5),
            'per_class': dict.fromkeys(names, row), 'never_found': names,
        }  # fmt: skip
        metric._precision = np.full((10, 101, len(names)), 0.5)
        metric.dataset_meta = {'annotations': type('Annotations', (), {'class_names': names})}
    elif task == 'classification':
        metric = ClassificationMetric()
        metric.report = summarise_classes(confusion, 1, names)
    else:
        metric = SegmentationMetric()
        metric.report = summarise_pixels(confusion, 1, names)
    if task != 'detection':
        metric.dataset_meta = {'classes': names}
    return metric


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
@pytest.mark.parametrize('names', [*([name, f'{name}2'] for name in NAMES.values()), [*NAMES.values()]])
def test_a_finished_evaluation_is_shown_whatever_its_classes_are_called(
    tmp_path: Path, task: str, names: list[str]
) -> None:
    metric = metric_of(task, names)
    console = Console(file=io.StringIO(), width=400, color_system='truecolor', force_terminal=True)
    console.print(metric.table())
    table = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(shown(name) in table for name in names)
    assert '\x1b[31mred' not in table
    for note in metric.notes():
        assert '\n' not in note
        note.encode()
    assert all(file.stat().st_size for file in metric.draw(tmp_path))
    assert '\n' not in counted(names, [1] * len(names))


@pytest.mark.parametrize('name', NAMES.values(), ids=NAMES)
def test_a_result_is_drawn_whatever_its_class_is_called(name: str) -> None:
    image, names = np.zeros((40, 60, 3), np.uint8), (name, 'other')
    boxes, labels = np.array([[2, 3, 30, 30]], np.float32), np.array([0])
    for result in (
        ClassificationResult(np.array([0.9, 0.1], np.float32), 0, names, image),
        DetectionResult(boxes, np.array([0.9], np.float32), labels, names, image),
        SegmentationResult(np.zeros((40, 60), np.uint8), names, image),
    ):
        assert isinstance(result.title(), str)
        assert result.draw().width
        assert contact_sheet([(result.draw(), result.title())]).width


def test_names_that_differ_in_brackets_stay_apart_and_dollars_are_no_maths(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(metric_of('classification', ['car [left]', 'car [right]']).table())
    table = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r'car \[left\].*\n.*car \[right\]', table)
    sizes = []
    for name in ('$x$', 'SxS', 'x'):
        draw_precision_recall(np.linspace(0, 1, 5), {}, {name: np.ones(5)}, tmp_path / 'x.png')
        sizes.append((np.asarray(Image.open(tmp_path / 'x.png').convert('L')) < 80).sum())
    assert abs(sizes[0] - sizes[1]) < abs(sizes[0] - sizes[2])  # as much ink as three letters


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('dining table', 'dining table'),
        ('chaise à dossier', 'chaise à dossier'),
        ('', "''"),
        (' \t', ' \N{REPLACEMENT CHARACTER}'),
        ('  ', "'  '"),
        ('a\nb', 'a\N{REPLACEMENT CHARACTER}b'),
        ('a\xa0b', 'a b'),
        ('x' * 60, 'x' * 60),
        ('a' * 50 + 'b' * 50, 'a' * 39 + '…' + 'b' * 20),
    ],
)
def test_a_name_is_shown_as_one_line_of_visible_letters(name: str, expected: str) -> None:
    assert shown(name) == expected
