"""Results as others' types, and back: pandas, supervision, torchvision, Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from falconet.tasks.classification import ClassificationResult
from falconet.tasks.detection import DetectionResult
from falconet.tasks.segmentation import SegmentationResult

NAMES = ('background', 'cat', 'dog')


@pytest.fixture
def boxes() -> DetectionResult:
    return DetectionResult(
        np.array([[1, 2, 30, 40], [5, 6, 7, 8.5]], np.float32),
        np.array([0.9, 0.25], np.float32),
        np.array([2, 0]),
        NAMES,
        np.zeros((50, 60, 3), np.uint8),
    )


@pytest.fixture
def scores() -> ClassificationResult:
    return ClassificationResult(np.array([0.2, 0.1, 0.7], np.float32), 2, NAMES)


@pytest.fixture
def mask() -> SegmentationResult:
    return SegmentationResult(np.array([[0, 1, 1], [2, 2, 0]], np.uint8), NAMES)


def same(ours: DetectionResult, other: DetectionResult) -> None:
    for field in ('boxes', 'scores', 'labels'):
        np.testing.assert_allclose(getattr(ours, field), getattr(other, field))
        assert getattr(ours, field).dtype == getattr(other, field).dtype
    assert ours.class_names == other.class_names


@pytest.mark.parametrize('count', [2, 0])
def test_detections_to_a_frame_and_back(boxes: DetectionResult, count: int) -> None:
    pytest.importorskip('pandas')
    frame = boxes[:count].to_frame()
    columns = ['x_min', 'y_min', 'x_max', 'y_max', 'score', 'label', 'class_name']
    assert list(frame.columns) == columns
    assert list(frame['class_name']) == ['dog', 'background'][:count]
    same(boxes[:count], DetectionResult.from_frame(frame, NAMES))


@pytest.mark.parametrize('count', [2, 0])
def test_detections_to_supervision_and_back(boxes: DetectionResult, count: int) -> None:
    supervision = pytest.importorskip('supervision')
    found = boxes[:count].to_supervision()
    assert isinstance(found, supervision.Detections)
    assert len(found) == count
    same(boxes[:count], DetectionResult.from_supervision(found, NAMES))


def test_supervision_draws_what_it_is_given(boxes: DetectionResult) -> None:
    supervision = pytest.importorskip('supervision')
    drawn = supervision.BoxAnnotator().annotate(np.zeros((50, 60, 3), np.uint8), boxes.to_supervision())
    assert drawn.any()


def test_no_detections_of_supervision_are_an_empty_result() -> None:
    supervision = pytest.importorskip('supervision')
    assert len(DetectionResult.from_supervision(supervision.Detections.empty(), NAMES)) == 0


def test_detections_of_supervision_without_classes_or_masks_are_refused(boxes: DetectionResult) -> None:
    supervision = pytest.importorskip('supervision')
    unnamed = supervision.Detections(xyxy=boxes.boxes)
    with pytest.raises(ValueError, match='2 detections have no class: set their class_id'):
        DetectionResult.from_supervision(unnamed, NAMES)
    with pytest.raises(ValueError, match='2 detections have no mask'):
        SegmentationResult.from_supervision(boxes.to_supervision(), NAMES, size=(50, 60))
    unnamed.mask = np.ones((2, 50, 60), bool)
    with pytest.raises(ValueError, match='2 detections have no class'):
        SegmentationResult.from_supervision(unnamed, NAMES, size=(50, 60))


def test_detections_to_torchvision_and_back(boxes: DetectionResult) -> None:
    from torchvision.utils import draw_bounding_boxes

    answer = boxes.to_torchvision()
    assert draw_bounding_boxes(torch.zeros(3, 50, 60, dtype=torch.uint8), answer['boxes']).any()
    same(boxes, DetectionResult.from_torchvision(answer, NAMES))


def test_scores_to_a_frame_and_back(scores: ClassificationResult) -> None:
    pytest.importorskip('pandas')
    frame = scores.to_frame()
    assert list(frame['class_name']) == ['dog', 'background', 'cat']
    back = ClassificationResult.from_frame(frame)
    np.testing.assert_array_equal(back.scores, scores.scores)
    assert (back.label, back.class_names) == (2, NAMES)


def test_scores_to_supervision_and_back(scores: ClassificationResult) -> None:
    pytest.importorskip('supervision')
    answer = scores.to_supervision()
    assert answer.get_top_k(1)[0].tolist() == [2]
    np.testing.assert_array_equal(ClassificationResult.from_supervision(answer, NAMES).scores, scores.scores)


def test_scores_to_torchvision_and_back(scores: ClassificationResult) -> None:
    back = ClassificationResult.from_torchvision(scores.to_torchvision(), NAMES)
    np.testing.assert_array_equal(back.scores, scores.scores)


def test_a_mask_to_a_frame(mask: SegmentationResult) -> None:
    pytest.importorskip('pandas')
    frame = mask.to_frame()
    assert frame['pixels'].tolist() == [2, 2, 2]
    assert frame['share'].sum() == pytest.approx(1)


def test_a_mask_to_supervision_and_back(mask: SegmentationResult) -> None:
    supervision = pytest.importorskip('supervision')
    found = mask.to_supervision()
    assert found.class_id.tolist() == [1, 2]
    assert supervision.MaskAnnotator().annotate(np.zeros((2, 3, 3), np.uint8), found).any()
    back = SegmentationResult.from_supervision(found, NAMES, size=(2, 3))
    np.testing.assert_array_equal(back.mask, mask.mask)
    nothing = SegmentationResult(np.zeros((2, 3), np.uint8), NAMES)
    back = SegmentationResult.from_supervision(nothing.to_supervision(), NAMES, size=(2, 3))
    np.testing.assert_array_equal(back.mask, nothing.mask)


def test_a_mask_to_torchvision_and_back(mask: SegmentationResult) -> None:
    from torchvision.utils import draw_segmentation_masks

    answer = mask.to_torchvision()
    assert draw_segmentation_masks(torch.zeros(3, 2, 3, dtype=torch.uint8), answer['masks']).any()
    np.testing.assert_array_equal(SegmentationResult.from_torchvision(answer, NAMES).mask, mask.mask)


def test_a_mask_to_a_palette_picture_on_disk_and_back(mask: SegmentationResult, tmp_path) -> None:
    mask.to_palette().save(tmp_path / 'a.png')
    with Image.open(tmp_path / 'a.png') as picture:
        assert picture.mode == 'P'
        assert picture.convert('RGB').getpixel((1, 0)) == (128, 0, 0)  # VOC's first class
        back = SegmentationResult.from_palette(picture, NAMES)
    np.testing.assert_array_equal(back.mask, mask.mask)
    with pytest.raises(ValueError, match='mode P or L, got RGB'):
        SegmentationResult.from_palette(Image.new('RGB', (3, 2)), NAMES)
