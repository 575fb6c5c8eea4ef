"""What a classifier's report says: right in every case of the data, however odd."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from falconet.report.page.markup import joined
from falconet.tasks.classification.attention import laid_over, where_it_looked
from falconet.tasks.classification.metric import ClassificationMetric
from falconet.tasks.classification.result import ClassificationResult
from falconet.tasks.model import VisionModel


def metric_of(names: list[str], rows: list[tuple[int, int, float]]) -> ClassificationMetric:
    """Return a metric that has seen (true class, predicted class, score) of every picture."""
    metric = ClassificationMetric()
    metric.dataset_meta = {'classes': names}
    for index, (target, label, score) in enumerate(rows):
        scores = np.full(len(names), (1 - score) / max(1, len(names) - 1), dtype=np.float32)
        scores[label] = score
        batch: Any = {'targets': torch.tensor([target]), 'infos': [SimpleNamespace(index=index)]}
        metric.process(batch, [ClassificationResult(scores, label, tuple(names))])
    metric.evaluate(len(rows))
    return metric


def text_of(metric: ClassificationMetric) -> str:
    return joined(section.body for section in metric.findings().sections)


def test_the_scores_are_the_metrics_own_and_inside_their_intervals() -> None:
    generator = np.random.default_rng(0)
    rows = [(int(true), int(true if generator.random() < 0.7 else generator.integers(3)), 0.8)
            for true in generator.integers(3, size=200)]  # fmt: skip
    metric = metric_of(['a', 'b', 'c'], rows)
    found = metric.findings()
    assert {each.title: each.value for each in found.scores} == {
        key: metric.report[key] for key in ('top1', 'mean_class')
    }
    for each in (*found.scores, *found.classes):
        assert each.low < each.value < each.high  # type: ignore[operator]
    assert [each.title for each in found.classes] == sorted(
        'abc', key=lambda name: metric.report['per_class'][name]['accuracy']
    )


def test_the_weakest_class_comes_first_with_its_commonest_confusion() -> None:
    rows = [(0, 0, 0.9)] * 8 + [(1, 2, 0.9)] * 3 + [(1, 0, 0.9)] * 2 + [(1, 1, 0.9)] * 2 + [(2, 2, 0.9)] * 8
    section = metric_of(['car', 'cat', 'dog'], rows).findings().sections[0]
    assert section.title == 'Weakest class'
    assert '<bdi>cat</bdi>' in section.body
    assert '<bdi>dog</bdi></strong>: 3 of 7 pictures' in section.body


def test_classes_that_tie_for_the_commonest_confusion_are_all_named() -> None:
    rows = [(1, 2, 0.9)] * 2 + [(1, 0, 0.8)] * 2 + [(1, 1, 0.9)] * 2 + [(0, 0, 0.9), (2, 2, 0.9)]
    found = metric_of(['car', 'cat', 'dog'], rows).findings()
    assert 'car and dog</bdi></strong>: 2 of 6 pictures each.' in found.sections[0].body
    assert found.classes[0].note == 'car and dog'


@pytest.mark.parametrize(
    ('rows', 'names', 'said'),
    [
        ([], ['a', 'b'], 'no picture could be looked at'),
        ([(0, 1, 0.9)] * 6, ['a', 'b'], 'not one picture is right'),
        ([(0, 0, 1.0)] * 6, ['a'], 'there is one class only'),
    ],
)
def test_odd_data_still_have_a_report_that_says_so(rows: list, names: list[str], said: str) -> None:
    metric = metric_of(names, rows)
    assert any(said in note for note in metric.findings().notes)
    assert text_of(metric)


def test_a_thousand_classes_stay_a_small_page() -> None:
    count = 1200
    rows = [(index, (index * 7) % count, 0.5) for index in range(count)]
    metric = metric_of([f'{index} <b>{"x" * 190}' for index in range(count)], rows)
    text = text_of(metric)
    assert 'more rows are left out' in text
    assert '<b>x' not in text
    assert len(text) < 200_000
    assert len(metric.findings().plain()['classes']) == 1000


@pytest.fixture
def model() -> VisionModel:
    torch.manual_seed(0)
    found = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35},
        {'type': 'LinearHead', 'dropout': 0.5},
        classes=['a', 'b', 'c'],
    )
    return found.eval()


def test_where_a_linear_head_looked_is_its_class_activation_map(model: VisionModel) -> None:
    """Of a mean over places and one linear layer, Grad-CAM's weights are the layer's own."""
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    labels = torch.tensor([2, 0])
    found = where_it_looked(model, images, labels)
    assert found.shape == (2, 64, 64)
    with torch.no_grad():
        maps = model.backbone(model.normalise(images))[-1]
        heat = torch.einsum('bchw,bc->bhw', maps, model.head.fc.weight[labels]).relu()[:, None]
        heat = torch.nn.functional.interpolate(heat, (64, 64), mode='bilinear')[:, 0]
    expected = heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_where_it_looked_is_what_pytorch_grad_cam_says(model: VisionModel) -> None:
    library = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed')
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = torch.randint(0, 255, (1, 3, 96, 96), dtype=torch.uint8)
    mine = where_it_looked(model, images, torch.tensor([1]))[0]

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = model.backbone, model.head

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.backbone(images))

    with library.GradCAM(Whole(), [model.backbone.features[-1]]) as cam:
        theirs = cam(model.normalise(images).float(), [ClassifierOutputTarget(1)])[0]
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.98  # it enlarges with OpenCV


def test_a_heat_map_lies_over_its_picture() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[:, 3:] = 1
    found = laid_over(image, heat)
    assert found.dtype == np.uint8
    assert len(np.unique(found[0, 0])) == 1
    assert found[0, 5, 0] > found[0, 5, 2] + 50
