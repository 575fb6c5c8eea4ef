"""What the three tasks say of an evaluation, with names that anybody may have given, as whole pages."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from falconet.datasets.annotations import Annotations
from falconet.datasets.packed_strings import PackedStrings
from falconet.report.page.confusions import commonest, confusion_section, listed
from falconet.report.page.document import DATA, document
from falconet.report.page.findings import Findings, score_tiles
from falconet.tasks.classification.metric import ClassificationMetric
from falconet.tasks.classification.result import ClassificationResult
from falconet.tasks.detection.metric import DetectionMetric
from falconet.tasks.detection.result import DetectionResult
from falconet.tasks.segmentation.metric import SegmentationMetric
from falconet.tasks.segmentation.result import SegmentationResult

NAMES = (
    '<script>alert(1)</script>',
    'a & "b" \'c\'',
    'x' * 200,
    'שלום עולם\u202e',
    '</style><b>',
    '\ud800\x1b',
)
PICTURES = 30


def classified(names: Sequence[str]) -> Findings:
    """A third of the pictures is right."""
    metric, generator = ClassificationMetric(), np.random.default_rng(0)
    metric.dataset_meta = {'classes': list(names)}
    for index in range(PICTURES):
        scores = generator.random(len(names)).astype(np.float32)
        label = int(scores.argmax())
        target = label if index % 3 == 0 else index % len(names)
        batch: Any = {'targets': torch.tensor([target]), 'infos': [SimpleNamespace(index=index)]}
        metric.process(batch, [ClassificationResult(scores / scores.sum(), label, tuple(names))])
    metric.evaluate(PICTURES)
    return metric.findings()


def detected(names: Sequence[str]) -> Findings:
    """Two objects a picture, one found as what it is, one as something else or badly placed."""
    generator = np.random.default_rng(0)
    corners = generator.random((2 * PICTURES, 2)) * 60
    boxes = np.concatenate([corners, corners + 30], axis=1).astype(np.float32)
    labels = generator.integers(len(names), size=2 * PICTURES)
    metric = DetectionMetric()
    annotations = Annotations(
        paths=PackedStrings(f'{index}.jpg' for index in range(PICTURES)),
        image_ids=np.arange(PICTURES) + 1,
        sizes=np.full((PICTURES, 2), 100, np.int32),
        starts=np.arange(0, 2 * PICTURES + 1, 2),
        boxes=boxes,
        labels=labels.astype(np.int32),
        crowd=np.zeros(2 * PICTURES, bool),
        areas=np.full(2 * PICTURES, 900.0),
        object_ids=np.arange(2 * PICTURES) + 1,
        original_boxes=boxes.astype(np.float64),
        class_names=tuple(names),
        category_ids=tuple(range(1, len(names) + 1)),
    )
    metric.dataset_meta = {'classes': list(names), 'annotations': annotations}
    for index in range(PICTURES):
        own = slice(2 * index, 2 * index + 2)
        found = labels[own].copy()
        found[1] = (found[1] + index) % len(names)
        moved = boxes[own] + np.array([[0], [index % 15]], np.float32)
        result = DetectionResult(moved, np.array([0.9, 0.6], np.float32), found, tuple(names))
        metric.process({'infos': [SimpleNamespace(index=index)]}, [result])  # type: ignore[typeddict-item]
    metric.evaluate(PICTURES)
    return metric.findings()


def segmented(names: Sequence[str]) -> Findings:
    """Two thirds of the pixels are right."""
    metric, generator = SegmentationMetric(), np.random.default_rng(0)
    metric.dataset_meta = {'classes': list(names)}
    for index in range(PICTURES):
        truth, other = generator.integers(len(names), size=(2, 12, 16)).astype(np.uint8)
        answer = np.where(generator.random(truth.shape) < 0.6, truth, other)
        batch: Any = {'targets': [torch.from_numpy(truth)], 'infos': [SimpleNamespace(index=index)]}
        metric.process(batch, [SegmentationResult(answer, tuple(names))])
    metric.evaluate(PICTURES)
    return metric.findings()


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag == 'script':
            self.scripts.append(dict(attrs))


def page_of(found: Findings) -> str:
    return document(
        'A test', summary=score_tiles(found.scores), notes=found.notes, sections=found.sections,
        data=found.plain(),
    )  # fmt: skip


@pytest.mark.parametrize('evaluated', [classified, detected, segmented])
@pytest.mark.parametrize('count', [1, len(NAMES)])
def test_whatever_the_classes_are_called_the_page_holds_no_markup_of_theirs(
    evaluated: Any, count: int
) -> None:
    plain = page_of(evaluated([f'class {index}' for index in range(count)]))
    page = page_of(evaluated(NAMES[:count]))
    assert Tags(page).scripts == [{'type': 'application/json', 'id': 'falconet'}]
    assert set(Tags(page).names) <= {*Tags(plain).names}
    assert not re.search('[\ud800-\udfff\x00\x1b\u202e]', page.split('<script')[0])
    data = DATA.search(page)
    assert data is not None
    assert {title for title, *_ in json.loads(data[1])['classes']} == set(NAMES[:count])


def test_thousands_of_classes_stay_a_small_page() -> None:
    names = [f'{index} & {"<b>" * 60}' for index in range(5000)]
    page = page_of(classified(names))
    assert '5,000 classes are too many for a matrix' in page
    assert '4,900 more rows are left out' in page
    assert len(page.encode()) < 1_000_000
    assert len(page_of(detected(names[:300])).encode()) < 1_000_000


def test_classes_that_tie_are_all_named() -> None:
    row = np.array([9, 2, 0, 2, 1])
    assert commonest(row, own=0) == [1, 3]
    assert commonest(row, own=1) == [0]
    assert commonest(np.array([0, 7]), own=1) == []
    assert [listed('abcdef'[:count]) for count in (0, 1, 2, 3, 4, 6)] == [
        '', 'a', 'a and b', 'a, b and c', 'a, b, c and 1 other', 'a, b, c and 3 others',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('by_share', 'first'), [(False, ('b', 'a', '9', '4.5%')), (True, ('a', 'b', '50.0%'))]
)
def test_the_commonest_confusions_come_first(by_share: bool, first: tuple[str, ...]) -> None:
    confusion = np.array([[1, 1, 0], [9, 190, 1], [0, 0, 0]])
    body = confusion_section(confusion, ['a', 'b', 'c'], unit='pictures', by_share=by_share).body
    table = body.split('<tbody>')[-1]
    assert [re.sub('<.*?>', '', each) for each in table.split('</td>')][: len(first)] == [*first]
