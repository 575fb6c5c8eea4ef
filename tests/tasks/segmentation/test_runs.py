"""Segmentation through the runner: train, evaluate, go on from other weights, predict."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import falconet.heads.deeplabv3
from falconet import load_model
from falconet.core.errors import UserError
from falconet.datasets.formats.masks import read_mask, voc_palette
from falconet.engine.evaluate import evaluate
from falconet.engine.predict import extra_names, predict_files
from falconet.engine.train import train
from falconet.tasks.build import load_config

CONFIG = """
    data_root = {data!r}
    model = dict(
        backbone=dict(type='MobileNetV2', width=0.35, output_stride=16, taps=('stage7',)),
        head=dict(type='DeepLabV3Head', hidden_channels=64))
    train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(
        type='VOCSegmentation', split='train', augment=[
            dict(type='RandomScaleCrop', scale=(0.8, 1.2), size=49),
            dict(type='HorizontalFlip', p=0.5)]))
    val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(
        type='VOCSegmentation', split='val', augment=[dict(type='ResizePad', size=65)]))
    train_cfg = dict(max_epochs=1)
    optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2))
"""


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """VOC's layout: a red or a blue rectangle on grey; 16 images to train, 5 of two sizes to validate."""
    base = tmp_path / 'VOCdevkit' / 'VOC2012'
    for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (base / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(21):
        height, width = (50, 60) if index % 2 else (65, 44)
        image = rng.integers(90, 130, (height, width, 3), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        top, left = rng.integers(0, 15, 2)
        label = 1 + index % 2
        image[top : top + 30, left : left + 28] = (220, 40, 40) if label == 1 else (40, 40, 220)
        mask[top : top + 30, left : left + 28] = label
        mask[top, left : left + 28] = 255
        Image.fromarray(image).save(base / f'JPEGImages/{index:02}.jpg', quality=95)
        picture = Image.fromarray(mask)
        picture.putpalette(voc_palette().tobytes())
        picture.save(base / f'SegmentationClass/{index:02}.png')
    for split, members in {'train': range(16), 'val': range(16, 21)}.items():
        text = ''.join(f'{index:02}\n' for index in members)
        (base / f'ImageSets/Segmentation/{split}.txt').write_text(text)
    (base / 'classes.txt').write_text('background\nred\nblue\n')
    return base.parent


@pytest.fixture
def write_config(tmp_path: Path, scenes: Path) -> Callable[..., Path]:
    """Write a tiny config over `scenes`, with extra lines, and return its path."""

    def write(extra: str = '') -> Path:
        path = tmp_path / 'tiny_voc.py'
        path.write_text(textwrap.dedent(CONFIG).format(data=str(scenes)) + textwrap.dedent(extra))
        return path

    return write


@pytest.fixture
def trained(write_config: Callable[..., Path], tmp_path: Path) -> Path:
    train(load_config(write_config()), work_dir=str(tmp_path / 'run'))
    return tmp_path / 'run/best.pth'


def test_a_run_learns_and_leaves_a_checkpoint_that_predicts(
    write_config: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    config = load_config(write_config('train_cfg = dict(max_epochs=25, val_interval=25)'))
    report = train(config, work_dir=str(tmp_path / 'run'))
    assert report['miou'] > 0.5  # the background alone gives 0.24
    assert report['images'] == 5
    again = evaluate(None, checkpoint=str(tmp_path / 'run/best.pth'), out=str(tmp_path / 'm/metrics.json'))
    assert again['confusion_matrix'] == report['confusion_matrix']
    assert json.loads((tmp_path / 'm/metrics.json').read_text())['miou'] == report['miou']
    several = evaluate(None, checkpoint=str(tmp_path / 'run/best.pth'), multi_scale=True)
    assert several['pixels'] == report['pixels']
    assert several['confusion_matrix'] != report['confusion_matrix']

    model = load_model(tmp_path / 'run/best.pth')
    right = total = 0
    for index in range(16, 21):
        result = model.predict(scenes / f'VOC2012/JPEGImages/{index}.jpg')
        truth = read_mask(scenes / f'VOC2012/SegmentationClass/{index}.png')
        right += int((result.mask == truth)[truth != 255].sum())
        total += int((truth != 255).sum())
    assert right / total == pytest.approx(report['pixel_accuracy'], abs=2e-3)


def test_a_checkpoint_is_the_start_of_another_run(
    write_config: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    """Everything is taken over; a file the config's own backbone would start from is not asked for."""
    config = load_config(
        write_config(f"""
            load_from = {str(trained)!r}
            model['backbone']['pretrained'] = 'no/such/file.pth'
            optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.0))
            """)
    )
    train(config, work_dir=str(tmp_path / 'second'))
    first, second = (load_model(path).state_dict() for path in (trained, tmp_path / 'second/best.pth'))
    parameters = [key for key in first if not key.endswith(('running_mean', 'running_var', 'tracked'))]
    assert all(torch.equal(first[key], second[key]) for key in parameters)
    assert 'load_from' in (tmp_path / 'second/train.log').read_text()


def test_a_start_of_other_classes_keeps_those_of_the_same_name(
    write_config: Callable[..., Path], trained: Path, scenes: Path, tmp_path: Path
) -> None:
    (scenes / 'VOC2012/classes.txt').write_text('background\nred\ngreen\n')
    train(load_config(write_config(f'load_from = {str(trained)!r}')), work_dir=str(tmp_path / 'second'))
    log = (tmp_path / 'second/train.log').read_text()
    assert 'kept by name 2 (background, red), new 1 (green), only in the checkpoint 1 (blue)' in log


def test_class_weights_come_from_the_data(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_config("model['head']['class_weights'] = 'data'"))
    train(config, work_dir=str(tmp_path / 'run'))
    weights = load_model(tmp_path / 'run/best.pth').head.class_weights.tolist()
    assert weights[0] < 1 <= max(weights[1:])  # the background is the most frequent
    assert 'class weights: background' in (tmp_path / 'run/train.log').read_text()
    # Evaluating a config needs no weights.
    assert evaluate(config, checkpoint=str(tmp_path / 'run/best.pth'))['images'] == 5


def test_a_batch_of_one_trains(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_config(), ['train_dataloader.batch_size=1'])
    assert train(config, work_dir=str(tmp_path / 'run'))['images'] == 5


def test_a_run_that_would_meet_a_wrong_label_never_starts(
    write_config: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((65, 44), 3, np.uint8)).save(scenes / 'VOC2012/SegmentationClass/20.png')
    with pytest.raises(UserError, match=r'20\.png: values 3'):
        train(load_config(write_config()), work_dir=str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_pictures_masks_and_shares_are_written(trained: Path, scenes: Path, tmp_path: Path) -> None:
    model = load_model(trained)
    predict_files(model, [scenes / 'VOC2012/JPEGImages'], tmp_path / 'out')
    report = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(report['predictions']) == 21
    for entry in report['predictions']:
        with Image.open(entry['path']) as photo, Image.open(entry['mask']) as mask:
            assert mask.mode == 'P'
            assert mask.size == photo.size
        with Image.open(entry['picture']) as picture:
            assert picture.height / picture.width > entry['height'] / entry['width']  # the legend
        values = read_mask(entry['mask'])
        for name, share in entry['shares'].items():
            assert (values == model.classes.index(name)).mean() == pytest.approx(share, abs=1e-6)
    assert (tmp_path / 'out/contact_sheet.png').exists()


def test_a_mask_never_takes_the_name_of_a_picture(trained: Path, scenes: Path, tmp_path: Path) -> None:
    names = [Path(name) for name in ('a.jpg', 'a.png', 'a_mask.png', 'b/a.png')]
    extras = extra_names(names, {'mask': '_mask.png'})
    assert [str(each['mask']) for each in extras] == [
        'a_2_mask.png', 'a_3_mask.png', 'a_mask_mask.png', 'b/a_mask.png'
    ]  # fmt: skip
    # A picture that lies where the mask of another would be written.
    photo = (scenes / 'VOC2012/JPEGImages/01.jpg').read_bytes()
    inputs = [tmp_path / 'a/x.jpg', tmp_path / 'out/a/x_mask.png']
    for path in inputs:
        path.parent.mkdir(parents=True)
        path.write_bytes(photo)
    with pytest.raises(UserError, match=r'out/a/x_mask\.png would be overwritten'):
        predict_files(load_model(trained), inputs, tmp_path / 'out')
    assert inputs[1].read_bytes() == photo


@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1), (33, 500)])
def test_pictures_of_any_size_are_answered_and_drawn(trained: Path, size: tuple[int, int]) -> None:
    result = load_model(trained).predict(np.zeros((*size, 3), np.uint8))
    assert result.mask.shape == size
    assert result.mask.dtype == np.uint8
    assert isinstance(result.draw(), Image.Image)


def test_the_same_weights_work_at_every_output_stride(
    write_config: Callable[..., Path], trained: Path
) -> None:
    reports = [
        evaluate(
            load_config(write_config(), [f'model.backbone.output_stride={stride}']), checkpoint=str(trained)
        )
        for stride in (8, 16, 32)
    ]
    assert len({report['pixels'] for report in reports}) == 1


@pytest.mark.slow
def test_two_processes_count_like_one(
    root: Path, write_config: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    """Five images over two processes: every one counts exactly once."""
    config = write_config(
        f'load_from = {str(trained)!r}\noptim_wrapper = dict(optimizer=dict(type="SGD", lr=0.0))'
    )
    options = ['--cfg-options', 'model.norm_eval=True', 'train_dataloader.batch_size=2']
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(root / 'tools/train.py'), str(config), '--launcher', 'pytorch']
    done = subprocess.run(
        [sys.executable, *command, '--work-dir', str(tmp_path / 'two'), *options],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / 'two/metrics.json').read_text())
    one = evaluate(None, checkpoint=str(trained))
    assert two['images'] == one['images'] == 5
    assert two['confusion_matrix'] == one['confusion_matrix']


TENSORFLOW = (
    'model.backbone.width=0.5',
    'model.backbone.channel_divisor=1',
    'model.backbone.output_stride=8',
    'model.backbone.padding=same',
    'model.backbone.norm_eps=1e-3',
    'model.normalise=tensorflow',
    'val_dataloader.num_workers=0',
    'val_dataloader.dataset.augment.0.size=257',
    'val_dataloader.dataset.augment.0.fill=128,128,128',
)


@pytest.mark.slow
def test_tensorflows_weights_score_what_tensorflow_scores(
    real_data: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.475 with the labels brought back to the image's size by the nearest pixel; ours by their scores."""

    config = load_config(root / 'configs/deeplabv3_voc.py', TENSORFLOW)
    options = {
        'checkpoint': str(real_data / 'weights/deeplabv3_mobilenetv2_050_voc_tf_folded.npz'),
        'root': str(real_data / 'VOCdevkit'),
    }
    assert evaluate(config.copy(), **options)['miou'] == pytest.approx(0.475, abs=0.01)

    def nearest(scores: torch.Tensor, classes: list[int], size: tuple[int, int]) -> np.ndarray:
        labels = torch.tensor(classes)[scores.argmax(dim=1, keepdim=True)].float()
        return torch.nn.functional.interpolate(labels, tuple(size), mode='nearest')[0, 0].byte().numpy()

    monkeypatch.setattr(falconet.heads.deeplabv3, 'resized_winner', nearest)
    report = evaluate(config, **options)
    assert report['miou'] == pytest.approx(0.475, abs=0.01)
    assert report['classes_present'] == 19
