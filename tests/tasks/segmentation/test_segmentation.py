"""Segmentation's own parts: transforms, metric, result, scores over several scales."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as outlines

from falconet.core.errors import UserError
from falconet.datasets.formats.masks import read_mask, voc_palette
from falconet.datasets.transforms.augment import Augment
from falconet.datasets.transforms.masks import RandomScaleCrop
from falconet.datasets.transforms.resize import ResizePad
from falconet.tasks.model import VisionModel
from falconet.tasks.segmentation import TASK
from falconet.tasks.segmentation.metric import SegmentationMetric, count_pixels, summarise
from falconet.tasks.segmentation.multi_scale import SCALES, multi_scale_scores, scaled_side
from falconet.tasks.segmentation.result import SegmentationResult

NAMES = ('background', 'cat', 'dog', 'eel')


# Transforms


def scale_crop(image: np.ndarray, mask: np.ndarray, *, index: int = 0, **options: object) -> tuple:
    augment = Augment([{'type': 'RandomScaleCrop', **options}])
    result = augment(epoch=0, index=index, image=image, mask=mask)
    return result['image'], result['mask']


@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1), (40, 50), (64, 64), (200, 333)])
@pytest.mark.parametrize('scale', [(0.5, 0.5), (2.0, 2.0), (0.5, 2.0)])
def test_scale_crop_fills_what_the_image_does_not(size: tuple, scale: tuple) -> None:
    image, mask = np.full((*size, 3), 200, np.uint8), np.full(size, 7, np.uint8)
    image, mask = scale_crop(image, mask, scale=scale, size=(64, 80), fill=(1, 2, 3))
    assert image.shape == (64, 80, 3)
    assert mask.shape == (64, 80)
    assert set(np.unique(mask)) <= {7, 255}
    if scale[0] == scale[1]:
        expected = [min(64, max(1, round(size[0] * scale[0]))), min(80, max(1, round(size[1] * scale[0])))]
        inside = mask == 7
        # At half scale the one pixel of a side lies between two cells: it may show or not.
        assert abs(inside.any(axis=1).sum() - expected[0]) <= 1
        assert abs(inside.any(axis=0).sum() - expected[1]) <= 1
        far = np.full((3,), 255, bool)
        if expected[0] < 60:
            far = image[expected[0] + 2 :].reshape(-1, 3) == (1, 2, 3)
        assert far.all()


def test_mask_moves_with_the_image_and_keeps_its_values() -> None:
    """An image drawn from its mask still agrees with it after the transform, but for the blurred edges."""
    rng = np.random.default_rng(0)
    mask = cv2.resize(rng.integers(0, 4, (4, 5), np.uint8), (150, 120), interpolation=cv2.INTER_NEAREST)
    image = np.repeat((mask * 60)[..., None], 3, axis=2)
    for index in range(20):
        moved_image, moved_mask = scale_crop(image, mask, index=index, size=97, fill=(255, 255, 255))
        assert set(np.unique(moved_mask)) <= {0, 1, 2, 3, 255}
        inside = moved_mask != 255
        agrees = np.abs(moved_image[..., 0].astype(int) - moved_mask * 60)[inside] < 30
        assert agrees.mean() > 0.97


def test_scale_one_without_padding_is_a_plain_crop() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 255, (50, 70, 3), np.uint8), rng.integers(0, 9, (50, 70), np.uint8)
    cropped, cropped_mask = scale_crop(image, mask, scale=(1.0, 1.0), size=33)
    places = [
        (top, left)
        for top in range(18)
        for left in range(38)
        if np.array_equal(image[top : top + 33, left : left + 33], cropped)
    ]
    assert len(places) == 1
    top, left = places[0]
    np.testing.assert_array_equal(mask[top : top + 33, left : left + 33], cropped_mask)


@pytest.mark.parametrize(
    ('size', 'content'),
    [
        ((500, 375), (500, 375)),
        ((513, 513), (513, 513)),
        ((40, 50), (40, 50)),
        ((1500, 2000), (385, 513)),
        ((1, 5000), (1, 513)),
    ],
)
def test_evaluation_shrinks_what_is_larger_and_pads_below_and_right(size: tuple, content: tuple) -> None:
    augment = Augment([{'type': 'ResizePad', 'size': 513, 'fill': (9, 8, 7)}])
    image = augment(epoch=0, index=0, image=np.full((*size, 3), 200, np.uint8))['image']
    assert image.shape == (513, 513, 3)
    assert augment.content_size(*size) == content
    height, width = content
    assert (image[:height, :width] == 200).all()
    assert (image[height:] == (9, 8, 7)).all()
    assert (image[:, width:] == (9, 8, 7)).all()


@pytest.mark.parametrize(
    'build',
    [lambda: ResizePad(size=0), lambda: RandomScaleCrop(scale=(2, 1)), lambda: RandomScaleCrop(size=(0, 1))],
)
def test_a_wrong_size_or_scale_is_refused(build) -> None:
    with pytest.raises(ValueError, match='must be'):
        build()


# Metric


def random_masks(rng: np.random.Generator, count: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    """(true, predicted) masks of several sizes, with ignored pixels; 'eel' is never predicted."""
    pairs = []
    for _ in range(count):
        size = tuple(rng.integers(5, 40, 2))
        true = rng.choice(np.array([0, 0, 0, 1, 2, 3, 255], np.uint8), size)
        predicted = np.where(rng.random(size) < 0.6, true, rng.integers(0, 3, size)).astype(np.uint8)
        pairs.append((true, np.where(predicted > 2, 0, predicted).astype(np.uint8)))
    return pairs


def measured(pairs: list[tuple[np.ndarray, np.ndarray]], batch: int = 5) -> SegmentationMetric:
    metric = SegmentationMetric()
    metric.dataset_meta = {'classes': list(NAMES)}
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        results = [SegmentationResult(predicted, NAMES) for _, predicted in part]
        metric.process({'targets': [torch.from_numpy(true) for true, _ in part]}, results)  # type: ignore
    return metric


def flattened(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All labelled pixels as two long vectors."""
    true = np.concatenate([each.ravel() for each, _ in pairs])
    predicted = np.concatenate([each.ravel() for _, each in pairs])
    return true[true != 255], predicted[true != 255]


def test_scores_equal_sklearns_confusion_matrix() -> None:
    sklearn = pytest.importorskip('sklearn.metrics')
    pairs = random_masks(np.random.default_rng(0))
    metric = measured(pairs)
    numbers = metric.evaluate(len(pairs))
    true, predicted = flattened(pairs)
    assert (
        metric.report['confusion_matrix']
        == sklearn.confusion_matrix(true, predicted, labels=range(4)).tolist()
    )
    expected = sklearn.jaccard_score(true, predicted, average=None, labels=range(4))
    np.testing.assert_allclose([row['iou'] for row in metric.report['per_class'].values()], expected)
    assert numbers['miou'] == pytest.approx(expected.mean())
    assert numbers['pixel_accuracy'] == pytest.approx(sklearn.accuracy_score(true, predicted))
    assert numbers['mean_accuracy'] == pytest.approx(sklearn.balanced_accuracy_score(true, predicted))


def outline_iou(true: np.ndarray, predicted: np.ndarray, label: int) -> float:
    """Intersection over union of one class as pycocotools computes it from run lengths."""
    codes = [
        outlines.encode(np.asfortranarray((each == label).astype(np.uint8)[:, None]))
        for each in (true, predicted)
    ]
    return float(outlines.iou([codes[0]], [codes[1]], [0])[0, 0])


def test_scores_equal_pycocotools_on_random_masks() -> None:
    pairs = random_masks(np.random.default_rng(1))
    metric = measured(pairs)
    metric.evaluate(len(pairs))
    true, predicted = flattened(pairs)
    for label, row in enumerate(metric.report['per_class'].values()):
        assert row['iou'] == pytest.approx(outline_iou(true, predicted, label)), label


def test_scores_equal_pycocotools_on_real_masks(real_data: Path) -> None:
    """Each real mask against itself shifted by some pixels."""
    files = sorted((real_data / 'VOCdevkit/VOC2012/SegmentationClass').glob('*.png'))[:12]
    pairs = []
    for shift, file in enumerate(files):
        true = read_mask(file)
        moved = np.roll(true, shift, axis=1)
        pairs.append((true, np.where(moved == 255, 0, moved).astype(np.uint8)))
    total = sum(count_pixels(true, predicted, 21) for true, predicted in pairs)
    report = summarise(total, len(pairs), [str(label) for label in range(21)])
    true, predicted = flattened(pairs)
    assert report['pixels'] == len(true)
    present = [int(label) for label in np.unique(true)]
    assert report['classes_present'] == len(present)
    ious = [outline_iou(true, predicted, label) for label in present]
    for label, iou in zip(present, ious, strict=True):
        assert report['per_class'][str(label)]['iou'] == pytest.approx(iou)
    assert report['miou'] == pytest.approx(np.mean(ious))


def test_what_a_mean_hides_is_said() -> None:
    """A class never predicted, and one without pixels: the first counts as 0, the second not at all."""
    report = summarise(np.array([[90, 0, 2], [8, 0, 0], [0, 0, 0]]), 3, ['background', 'cat', 'dog'])
    assert report['never_predicted'] == ['cat']
    assert report['absent'] == ['dog']
    assert report['miou'] == pytest.approx((90 / 100 + 0) / 2)
    assert report['per_class']['cat']['confused_with'] == 'background'
    metric = SegmentationMetric()
    metric.report = report
    assert [note.split(':')[1].strip() for note in metric.notes()] == ['cat', 'dog']
    assert metric.table().row_count == 6


def test_a_metric_starts_afresh_after_evaluating() -> None:
    same = np.ones((4, 4), np.uint8)
    metric = measured([(same, same)])
    assert metric.evaluate(1)['miou'] == 1.0
    assert measured([(same, same * 0)]).evaluate(1)['miou'] == 0.0
    assert metric.evaluate(0) == {'miou': 0.0, 'pixel_accuracy': 0.0, 'mean_accuracy': 0.0}


def test_an_image_with_nothing_labelled_counts_nothing() -> None:
    nothing = np.full((4, 4), 255, np.uint8)
    assert not count_pixels(nothing, nothing * 0, 4).any()


@pytest.mark.parametrize(
    ('true', 'message'),
    [(np.full((4, 4), 4, np.uint8), r'values \[4\]'), (np.zeros((4, 5), np.uint8), r'\(4, 5\)')],
)
def test_a_wrong_label_map_is_refused(true: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_pixels(true, np.zeros((4, 4), np.uint8), 4)


def test_the_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    metric = measured(random_masks(np.random.default_rng(0)))
    metric.evaluate(12)
    (path,) = metric.draw(tmp_path)
    with Image.open(path) as picture:
        assert picture.width > 300


# Result


def example() -> SegmentationResult:
    mask = np.zeros((60, 90), np.uint8)
    mask[10:40, 10:40] = 2
    return SegmentationResult(mask, NAMES, image=np.full((60, 90, 3), 100, np.uint8))


def test_overlay_tints_classes_and_leaves_the_background_bare() -> None:
    overlay = np.asarray(example().overlay())
    assert (overlay[50, 50] == 100).all()
    expected = 0.55 * voc_palette()[2] + 0.45 * 100
    np.testing.assert_allclose(overlay[20, 20], expected, atol=1.5)


def test_result_counts_shares_and_draws_a_legend() -> None:
    result = example()
    assert result.shares() == {'background': 1 - 1 / 6, 'dog': 1 / 6}
    assert result.title() == 'dog'
    assert result.summary()['shares'] == {'background': 0.833333, 'dog': 0.166667}
    picture = result.draw()
    assert picture.width >= 160  # enlarged so that the legend has room
    assert picture.height > picture.width * 60 / 90
    legend = np.asarray(picture)[round(picture.width * 60 / 90) :].reshape(-1, 3)
    assert (legend == voc_palette()[2]).all(axis=1).any()


def test_mask_is_written_with_vocs_palette_and_read_back(tmp_path: Path) -> None:
    result = example()
    result.save_extra('mask', tmp_path / 'mask.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'mask.png'), result.mask)
    with Image.open(tmp_path / 'mask.png') as picture:
        assert picture.mode == 'P'
        assert picture.convert('RGB').getpixel((20, 20)) == (0, 128, 0)


def test_a_result_without_a_picture_asks_for_one() -> None:
    result = SegmentationResult(np.zeros((4, 4), np.uint8), NAMES)
    with pytest.raises(ValueError, match='kept no picture'):
        result.draw()
    with pytest.raises(ValueError, match='the mask'):
        result.draw(np.zeros((4, 5, 3), np.uint8))


# Several scales


@pytest.fixture
def model() -> VisionModel:
    torch.manual_seed(0)
    return VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'output_stride': 16, 'taps': ('stage7',)},
        {'type': 'DeepLabV3Head', 'hidden_channels': 16},
        classes=NAMES,
        preprocess=[{'type': 'ResizePad', 'size': 97}],
    ).eval()


def test_scales_keep_sides_of_n_strides_and_one() -> None:
    assert [scaled_side(513, scale) for scale in SCALES] == [257, 385, 513, 641, 769, 897]


def test_scores_are_the_mean_over_scales_and_mirror_images(model: VisionModel) -> None:
    pictures = torch.randint(256, (2, 3, 97, 65), dtype=torch.uint8)
    with torch.no_grad():
        ours = multi_scale_scores(model, pictures)
        images = model.normalise(pictures)
        total = torch.zeros(2, 4, 97, 65)
        for scale in SCALES:
            size = (int(96 * scale + 1), int(64 * scale + 1))
            scaled = F.interpolate(images, size, mode='bilinear', align_corners=True)
            for step in (1, -1):
                place = torch.arange(size[1])[::1] if step == 1 else torch.arange(size[1]).flip(0)
                logits = model.head(model.backbone(scaled[..., place]))
                large = F.interpolate(logits, (97, 65), mode='bilinear', align_corners=True)
                large = large if step == 1 else large[..., torch.arange(65).flip(0)]
                total += large.softmax(1)
    torch.testing.assert_close(ours, total / 12)


def test_a_mirrored_picture_gets_the_mirrored_scores(model: VisionModel) -> None:
    images = torch.randint(256, (1, 3, 97, 97), dtype=torch.uint8)
    with torch.no_grad():
        one, other = multi_scale_scores(model, images), multi_scale_scores(model, images.flip(3))
    torch.testing.assert_close(one.flip(3), other)


def test_several_scales_need_a_head_that_enlarges(model: VisionModel) -> None:
    model.head = torch.nn.Identity()
    with pytest.raises(UserError, match=r'Identity cannot .*no method enlarge\(outputs, size\)'):
        multi_scale_scores(model, torch.zeros(1, 3, 97, 97, dtype=torch.uint8))


def test_task_names_its_parts() -> None:
    assert TASK.name == 'segmentation'
    assert TASK.result is SegmentationResult


def test_training_without_a_crop_says_what_is_missing() -> None:
    from falconet.datasets.samples import Sample, SampleInfo, collate

    samples = [
        Sample(np.zeros((4, side, 3), np.uint8), np.zeros((4, side), np.uint8), SampleInfo(0, 'x', (4, side)))
        for side in (4, 5)
    ]
    with pytest.raises(UserError, match=r'images of one size.*crop or a resize'):
        collate(samples)
