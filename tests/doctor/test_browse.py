"""The page of samples shows what a run would learn, of the pictures that are asked for."""

import base64
import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from falconet.core.errors import UserError
from falconet.datasets.samples import SampleKey
from falconet.doctor.browse import _dataset, browse, drawn
from falconet.report.page.document import read_data
from falconet.tasks.build import load_config

BOXES = """
    model = dict(backbone=dict(type='MobileNetV2', width=0.1, taps=('stage6_expand', 'last')),
                 head=dict(type='SSDLiteHead'))
    train_dataloader = dict(dataset=dict(type='DetectionFolder', split='train', augment=[
        dict(type='HorizontalFlip', p=0.5), dict(type='Resize', height=96, width=96)]))
    val_dataloader = dict(dataset=dict(type='DetectionFolder', split='test', augment=[
        dict(type='ResizePad', size=96)]))
"""


@pytest.fixture
def config(write_config: Callable[..., Path], coco_folder: Path) -> Path:
    return write_config(BOXES + f'    data_root = {str(coco_folder)!r}\n')


def pictures_in(page: str) -> list[np.ndarray]:
    data = re.findall('src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in data]


def test_a_page_holds_several_draws_of_every_picture_chosen(
    config: Path, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / 'page.html'
    options = ['--class', 'green', '--draws', '3', '--count', '5', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', ['browse_data.py', str(config), *options])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(root / 'tools/browse_data.py'), run_name='__main__')
    assert left.value.code == 0
    data = read_data(out)
    assert data is not None
    assert len(data['pictures']) == 5
    assert 1 not in data['pictures']  # which has no objects
    shown = pictures_in(out.read_text(encoding='utf-8'))
    assert len(shown) == 15
    assert any((shown[3 * i] != shown[3 * i + j]).any() for i in range(5) for j in (1, 2))


def test_boxes_lie_on_their_objects_in_samples_to_learn_and_to_score(config: Path) -> None:
    for split in ('train', 'val'):
        dataset = _dataset(load_config(config), None, split)
        sample = dataset[SampleKey(0, 1)]
        picture = np.asarray(drawn(dataset, sample)).astype(int)
        scale = picture.shape[1] / sample.image.shape[1]
        # Objects are squares of red on grey: the frame of the first box touches its square's colour.
        red = (sample.image[..., 0] > 180) & (sample.image[..., 1] < 90)
        rows, columns = (np.flatnonzero(red.any(axis=axis)) for axis in (1, 0))
        changed = (
            np.abs(picture - np.asarray(Image.fromarray(sample.image).resize(picture.shape[1::-1]))).sum(
                axis=2
            )
            > 90
        )
        top, left = round(rows[0] * scale), round(columns[0] * scale)
        assert changed[max(0, top - 8) : top + 8, left + 8 : left + 24].any()


def test_samples_are_those_of_a_run(config: Path) -> None:
    dataset = _dataset(load_config(config), None, 'train')
    page = browse(load_config(config), draws=2, count=1)
    expected = [np.asarray(drawn(dataset, dataset[SampleKey(0, epoch)])).shape for epoch in (0, 1)]
    assert len(pictures_in(page)) == len(expected) == 2


def test_masks_are_laid_over_and_classes_stand_in_a_legend(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    import cv2

    root = tmp_path / 'masks'
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for index in range(6):
        mask = np.zeros((40, 40), np.uint8)
        mask[:20, :20], mask[:2] = 1, 255
        cv2.imwrite(str(root / f'masks/{index}.png'), mask)
        noise = np.random.default_rng(index).integers(90, 110, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f'images/{index}.png'), noise)
    (root / 'classes.txt').write_text('background\n<b>road\n')
    file = write_config(
        f"""
        data_root = {str(root)!r}
        model = dict(backbone=dict(type='MobileNetV2', width=0.1, taps=('stage7',)),
                     head=dict(type='DeepLabV3Head'))
        for _each in (train_dataloader, val_dataloader):
            _each['dataset'] = dict(type='SegmentationFolder', augment=[dict(type='ResizePad', size=60)])
        """
    )
    page = browse(load_config(file), split='val', draws=9)
    shown = pictures_in(page)
    assert len(shown) == 1  # a fifth of six, drawn once: nothing is by chance
    assert shown[0][10, 10, 0] > shown[0][10, 10, 1] + 20
    assert np.ptp(shown[0][30, 30].astype(int)) < 30
    assert '&lt;b&gt;road' in page
    assert '<b>road' not in page


def test_what_is_not_there_is_named(config: Path) -> None:
    for options, said in (
        ({'class_name': 'gren'}, 'Did you mean green'),
        ({'split': 'test'}, 'the config has train and val'),
        ({'draws': 0}, 'should be at least 1'),
    ):
        with pytest.raises(UserError, match=said):
            browse(load_config(config), **options)
