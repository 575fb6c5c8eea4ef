"""Detection through the runner: train, resume, evaluate, predict, on a data set made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import load_model
from tasks.errors import UserError
from tasks.prediction import predict_files
from tasks.runner import evaluate, load_config, train

CONFIG = """
data_root = {root!r}
model = dict(
    backbone=dict(type='MobileNetV2', width=0.35, taps=('stage5', 'last')),
    head=dict(type='SSDLiteHead', extra_channels=(32,), norm_momentum=0.1))
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(
    type='CocoDetection', annotations='annotations/train.json', images='train', augment=[
        dict(type='RandomIoUCrop'), dict(type='Resize', height=64, width=64)]))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(
    type='CocoDetection', annotations='annotations/test.json', images='test', augment=[
        dict(type='Resize', height=64, width=64)]))
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
"""


@pytest.fixture
def config(coco_folder: Path, tmp_path: Path) -> Callable:
    def make(*options: str) -> object:
        path = tmp_path / 'tiny_detector.py'
        path.write_text(CONFIG.format(root=str(coco_folder)))
        return load_config(path, options)

    return make


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


def test_train_evaluate_and_predict_from_the_checkpoint_alone(config: Callable, tmp_path: Path) -> None:
    report = train(config(), work_dir=str(tmp_path / 'run'))
    assert set(report['per_class']) == {'red', 'green'}
    for name in ('best.pth', 'last.pth', 'metrics.json', 'detections.json', 'precision_recall.png'):
        assert (tmp_path / 'run' / name).is_file(), name
    again = evaluate(None, checkpoint=str(tmp_path / 'run/last.pth'))
    assert again['AP'] == pytest.approx(report['AP'], abs=1e-6)

    model = load_model(tmp_path / 'run/best.pth')
    assert model.classes == ('red', 'green')
    picture = np.random.default_rng(0).integers(0, 255, (90, 200, 3), dtype=np.uint8)
    found = model.predict(picture)
    assert found.boxes.shape[1] == 4
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [200, 90, 200, 90]).all()
    assert (np.diff(found.scores) <= 0).all()


def test_a_resumed_run_ends_like_one_that_was_never_stopped(config: Callable, tmp_path: Path) -> None:
    train(config(), work_dir=str(tmp_path / 'whole'))
    train(config('train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'parts'))
    train(config(), work_dir=str(tmp_path / 'parts'), resume=True)
    whole, parts = weights(tmp_path / 'whole/last.pth'), weights(tmp_path / 'parts/last.pth')
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_predict_writes_boxes_from_the_threshold_on(
    config: Callable, tmp_path: Path, coco_folder: Path
) -> None:
    train(config('train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'run'))
    model = load_model(tmp_path / 'run/last.pth')
    everything = predict_files(model, [coco_folder / 'test'], tmp_path / 'all')
    scores = [d['score'] for each in everything['predictions'] for d in each['detections']]
    middle = sorted(scores)[len(scores) // 2]
    some = predict_files(model, [coco_folder / 'test'], tmp_path / 'some', score_threshold=middle)
    kept = [d['score'] for each in some['predictions'] for d in each['detections']]
    assert 0 < len(kept) < len(scores)
    assert min(kept) >= middle - 1e-5
    assert (tmp_path / 'some/contact_sheet.png').is_file()
    assert json.loads((tmp_path / 'some/predictions.json').read_text())['class_names'] == ['red', 'green']


def test_a_data_set_of_one_class(config: Callable, tmp_path: Path) -> None:
    one = [f'{stage}_dataloader.dataset.categories=["red"]' for stage in ('train', 'val')]
    report = train(config(*one, 'train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'run'))
    assert list(report['per_class']) == ['red']
    assert load_model(tmp_path / 'run/last.pth').head.columns == 2


def test_a_batch_without_a_single_object_trains(config: Callable, coco_folder: Path, tmp_path: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    content = json.loads(path.read_text())
    keep = content['images'][0]['id']
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] == keep]
    path.write_text(json.dumps(content))
    train(config('train_cfg.max_epochs=1', 'train_dataloader.batch_size=1'), work_dir=str(tmp_path / 'run'))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / 'run/last.pth').values())


def test_a_checkpoint_of_other_classes_is_refused(
    config: Callable, coco_folder: Path, tmp_path: Path
) -> None:
    train(config('train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'run'))
    path = coco_folder / 'annotations/test.json'
    path.write_text(path.read_text().replace('"red"', '"blue"'))
    with pytest.raises(UserError, match=r'Only in this file: blue. Only in the model: red'):
        evaluate(None, checkpoint=str(tmp_path / 'run/last.pth'))


def test_the_loss_is_the_same_gradient_however_objects_are_spread_over_processes() -> None:
    """Two processes' mean gradient is that of one process with both images: see SSDLiteHead.loss."""
    import heads.ssdlite as module
    from heads import SSDLiteHead

    torch.manual_seed(0)
    head = SSDLiteHead((8, 8), (16, 32), num_classes=2, extra_channels=(8,)).eval()
    maps = [torch.rand(2, 8, 8, 8), torch.rand(2, 8, 4, 4)]
    targets = [
        {
            'boxes_unit': torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.1, 0.2, 0.4, 0.5]]),
            'labels': torch.tensor([0, 1]),
        },
        {'boxes_unit': torch.tensor([[0.4, 0.4, 0.6, 0.7]]), 'labels': torch.tensor([1])},
    ]

    def total(maps: list[torch.Tensor], targets: list) -> torch.Tensor:
        losses = head.loss(head(maps), targets)
        return losses['loss_class'] + losses['loss_box']

    together = torch.autograd.grad(total(maps, targets), list(head.parameters()))
    matched = [
        float(head.loss(head([m[i : i + 1] for m in maps]), targets[i : i + 1])['matched']) for i in (0, 1)
    ]
    original = module.all_reduce
    try:
        module.all_reduce = lambda value, op: value.fill_(sum(matched) / 2)  # type: ignore[assignment]
        parts = [
            torch.autograd.grad(
                total([m[i : i + 1] for m in maps], targets[i : i + 1]), list(head.parameters())
            )
            for i in (0, 1)
        ]
    finally:
        module.all_reduce = original
    for whole, first, second in zip(together, *parts, strict=True):
        torch.testing.assert_close((first + second) / 2, whole)
