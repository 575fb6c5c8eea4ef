"""Classification's own parts: evaluation crop, mixup and cutmix, metric, result."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.images.images import read_image
from falconet.datasets.transforms.augment import Augment
from falconet.tasks.classification import TASK
from falconet.tasks.classification.metric import ClassificationMetric, summarise
from falconet.tasks.classification.result import ClassificationResult
from falconet.tasks.classification.transforms import BatchAugment

NAMES = ('cat', 'dog', 'eel', 'fox', 'gnu', 'hen', 'ibis')


@pytest.mark.parametrize('size', [(1, 1), (7, 300), (300, 7), (1, 5000), (256, 256), (500, 375)])
def test_evaluation_crop_has_its_size_for_every_picture(size: tuple[int, int]) -> None:
    crop = Augment([{'type': 'ResizeCenterCrop', 'resize': 256, 'crop': 224}])
    image = np.zeros((*size, 3), np.uint8)
    assert crop(epoch=0, index=0, image=image)['image'].shape == (224, 224, 3)


def test_evaluation_crop_agrees_with_torchvisions_on_photographs(real_data: Path) -> None:
    crop = Augment([{'type': 'ResizeCenterCrop', 'resize': 200, 'crop': 176}])
    theirs = v2.Compose([v2.Resize(200, antialias=True), v2.CenterCrop(176)])
    for path in sorted((real_data / 'imagenet/val').glob('*/*'))[:5]:
        ours = crop(epoch=0, index=0, image=read_image(path))['image'].astype(float)
        with Image.open(path) as opened:
            expected = np.asarray(theirs(opened.convert('RGB'))).astype(float)
        assert np.abs(ours - expected).mean() < 4  # of 255; another decoder and another kernel


def test_mixup_returns_probabilities_that_add_up_to_one() -> None:
    torch.manual_seed(0)
    mix = BatchAugment([{'type': 'MixUp', 'alpha': 0.2}, {'type': 'CutMix', 'alpha': 1.0}], num_classes=5)
    images = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    mixed, targets = mix(images, torch.tensor([0, 1, 2, 3]))
    assert targets.shape == (4, 5)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert mixed.shape == images.shape
    assert (mixed != images).any()


def test_a_batch_of_one_is_not_mixed() -> None:
    mix = BatchAugment([{'type': 'MixUp'}], num_classes=3)
    _, targets = mix(torch.rand(1, 3, 8, 8), torch.tensor([2]))
    assert targets.tolist() == [[0.0, 0.0, 1.0]]


def test_an_unknown_batch_augmentation_is_named() -> None:
    with pytest.raises(UserError, match='Did you mean MixUp'):
        BatchAugment([{'type': 'Mixup'}], num_classes=3)


def result(scores: list[float]) -> ClassificationResult:
    array = np.array(scores, np.float32)
    return ClassificationResult(array, int(array.argmax()), NAMES)


def measured(scores: np.ndarray, targets: np.ndarray, batch: int = 7) -> ClassificationMetric:
    metric = ClassificationMetric()
    metric.dataset_meta = {'classes': list(NAMES)}
    for start in range(0, len(targets), batch):
        rows = [result(row) for row in scores[start : start + batch]]
        metric.process({'targets': torch.from_numpy(targets[start : start + batch])}, rows)  # type: ignore
    return metric


def test_scores_equal_an_independent_count() -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.random((200, 7)), rng.integers(0, 7, 200)
    metric = measured(scores, targets)
    numbers = metric.evaluate(200)
    logits, labels = torch.from_numpy(scores), torch.from_numpy(targets)
    ranked = logits.topk(5, dim=1).indices == labels[:, None]
    assert numbers['top1'] == pytest.approx(ranked[:, 0].double().mean().item())
    assert numbers['top5'] == pytest.approx(ranked.any(1).double().mean().item())
    expected = np.zeros((7, 7), int)
    np.add.at(expected, (targets, scores.argmax(1)), 1)
    assert metric.report['confusion_matrix'] == expected.tolist()
    per_class = [row['accuracy'] for row in metric.report['per_class'].values()]
    np.testing.assert_allclose(per_class, expected.diagonal() / expected.sum(1))
    assert numbers['mean_class'] == pytest.approx(np.mean(per_class))


def test_a_class_that_is_never_predicted_is_said() -> None:
    confusion = np.array([[90, 0], [10, 0]])
    report = summarise(confusion, 100, ['cat', 'dog'])
    assert report['top1'] == 0.9
    assert report['never_predicted'] == ['dog']
    assert report['per_class']['dog']['confused_with'] == 'cat'
    assert 'top5' not in report


def test_classes_without_images_do_not_count_in_the_mean() -> None:
    report = summarise(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 4]]), 8, ['cat', 'dog', 'eel'])
    assert report['mean_class'] == pytest.approx((0.75 + 1.0) / 2)
    assert report['per_class']['dog']['accuracy'] is None


def test_an_empty_evaluation_gives_zeros() -> None:
    assert summarise(np.zeros((2, 2), int), 0, ['cat', 'dog'])['top1'] == 0.0


def test_the_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    metric = measured(np.eye(7), np.arange(7))
    metric.evaluate(7)
    (path,) = metric.draw(tmp_path)
    with Image.open(path) as picture:
        assert picture.width > 300


def test_a_result_knows_its_best_classes_and_draws_itself() -> None:
    image = np.full((20, 30, 3), 128, np.uint8)
    one = ClassificationResult(np.float32([0.1, 0.7, 0.2]), 1, ('a', 'b', 'c'), image=image)
    assert [name for name, _ in one.top(2)] == ['b', 'c']
    picture = one.draw()
    assert picture.width >= 160  # enlarged so that the caption has room
    assert picture.height > picture.width * 20 / 30
    with pytest.raises(ValueError, match='kept no picture'):
        result([0.0, 1.0]).draw()


def test_task_names_its_parts() -> None:
    assert TASK.name == 'classification'
    assert TASK.result is ClassificationResult


def test_a_class_folder_whose_name_is_no_utf_8_is_named(folders: Path) -> None:
    (folders / 'train/blue').rename(os.fsdecode(os.fsencode(folders / 'train') + b'/caf\xe9'))
    with pytest.raises(UserError, match=r"train: the name of a class folder is no UTF-8: b'caf.xe9'"):
        ImageFolder(str(folders), 'train')
