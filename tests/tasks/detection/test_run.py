"""Detection through the runner: train, resume, evaluate, predict, on a data set made on the spot."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from falconet import load_model
from falconet.core.errors import UserError
from falconet.engine.evaluate import evaluate
from falconet.engine.predict import predict_files
from falconet.engine.train import train
from falconet.tasks.build import build_model, load_config

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
    found = model.predict(picture, score_threshold=0)
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
    predict_files(model, [coco_folder / 'test'], tmp_path / 'all', score_threshold=0)
    everything = json.loads((tmp_path / 'all/predictions.json').read_text())
    scores = [d['score'] for each in everything['predictions'] for d in each['detections']]
    middle = sorted(scores)[len(scores) // 2]
    predict_files(model, [coco_folder / 'test'], tmp_path / 'some', score_threshold=middle)
    some = json.loads((tmp_path / 'some/predictions.json').read_text())
    kept = [d['score'] for each in some['predictions'] for d in each['detections']]
    assert 0 < len(kept) < len(scores)
    assert min(kept) >= middle - 1e-5
    assert (tmp_path / 'some/contact_sheet.png').is_file()
    assert some['class_names'] == ['red', 'green']


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
    with pytest.raises(UserError, match=r'Only in test\.json: blue\. Only in the model: red'):
        evaluate(None, checkpoint=str(tmp_path / 'run/last.pth'))


def test_two_processes_train_and_score_like_one(
    config: Callable, coco_folder: Path, tmp_path: Path, root: Path
) -> None:
    """Norm statistics fixed; objects unevenly spread; an odd number of test images, each scored once."""
    path = coco_folder / 'annotations/test.json'
    content = json.loads(path.read_text())
    content['images'].pop()
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] < 17]
    path.write_text(json.dumps(content))
    # Focal loss learns from every box: which of many equal ones is the hardest would be a toss-up.
    options = ['model.norm_eval=True', 'model.head.class_loss=focal']
    report = train(config(*options, 'train_dataloader.batch_size=4'), work_dir=str(tmp_path / 'one'))
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(root / 'tools/train.py'), config().filename, '--launcher', 'pytorch']
    command += [
        '--work-dir',
        str(tmp_path / 'two'),
        '--cfg-options',
        *options,
        'train_dataloader.batch_size=2',
    ]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = weights(tmp_path / 'one/last.pth'), weights(tmp_path / 'two/last.pth')
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-4, rtol=1e-4, msg=key)
    both = json.loads((tmp_path / 'two/metrics.json').read_text())
    assert both['images'] == report['images'] == 3
    assert both['detections'] == report['detections']
    assert both['AP'] == pytest.approx(report['AP'], abs=1e-3)


@pytest.mark.parametrize('damage', ['no objects', 'crowds only'])
def test_a_validation_set_with_nothing_to_score_still_trains(
    config: Callable, coco_folder: Path, tmp_path: Path, damage: str
) -> None:
    path = coco_folder / 'annotations/test.json'
    content = json.loads(path.read_text())
    if damage == 'no objects':
        content['annotations'] = []
    for entry in content['annotations']:
        entry['iscrowd'] = 1
    path.write_text(json.dumps(content))
    train(config('train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'run'))
    assert (tmp_path / 'run/best.pth').is_file()
    assert (tmp_path / 'run/last.pth').is_file()
    assert 'this validation has no AP' in (tmp_path / 'run/train.log').read_text()


@pytest.mark.parametrize(
    'transforms',
    [
        [{'type': 'LongestMaxSize', 'max_size': 64}, {'type': 'ResizePad', 'size': 64}],
        [{'type': 'CenterCrop', 'height': 32, 'width': 32}],
        [{'type': 'HorizontalFlip', 'p': 1.0}, {'type': 'Resize', 'height': 64, 'width': 64}],
    ],
)
def test_what_could_not_be_undone_is_refused_in_evaluation(config: Callable, transforms: list) -> None:
    made = config()
    made.val_dataloader.dataset.augment = transforms
    with pytest.raises(UserError, match=f'cannot use {transforms[0]["type"]}|cannot use ResizePad'):
        build_model(made, classes=('red', 'green'))


def test_a_padded_input_gives_the_same_boxes_as_its_picture_alone(config: Callable) -> None:
    """A detector fed by ResizePad answers in the picture's own pixels, whatever part of the box it fills."""
    made = config()
    made.val_dataloader.dataset.augment = [{'type': 'ResizePad', 'size': 64, 'enlarge': True}]
    torch.manual_seed(0)
    model = build_model(made, classes=('red', 'green')).eval()
    found = model.predict(np.full((30, 60, 3), 200, np.uint8), score_threshold=0)
    assert len(found) > 0
    assert found.boxes[:, [0, 2]].max() <= 60
    assert found.boxes[:, [1, 3]].max() <= 30
    assert found.boxes[:, 3].max() > 20  # not squeezed into the upper part


def test_a_run_that_ended_before_its_report_gets_one_when_resumed(config: Callable, tmp_path: Path) -> None:
    first = train(config('train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'run'))
    (tmp_path / 'run/metrics.json').unlink()
    again = train(config('train_cfg.max_epochs=1'), work_dir=str(tmp_path / 'run'), resume=True)
    assert again['AP'] == pytest.approx(first['AP'], abs=1e-6)
    assert (tmp_path / 'run/metrics.json').is_file()


@pytest.mark.parametrize('value', ['0', 'abc', '2.5'])
def test_a_batch_size_that_is_none_is_refused_when_scoring(config: Callable, value: str) -> None:
    with pytest.raises(UserError, match=r'val_dataloader\.batch_size must be a whole number of at least 1'):
        evaluate(config(f'val_dataloader.batch_size={value}'))
