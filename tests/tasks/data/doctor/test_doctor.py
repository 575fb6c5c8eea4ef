"""The doctor finds what is planted, says nothing of clean data, and leaves with the code that says so."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Check = Callable[..., tuple[int, dict[str, Any], dict[str, dict[str, Any]]]]


@pytest.fixture
def check(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run tools/check_data.py; return its exit code, what it printed, and the findings by kind."""

    def run(config: str, data: Path, *options: str) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
        arguments = [str(root / f'configs/{config}.py'), '--data-root', str(data), '--json']
        monkeypatch.setattr(sys, 'argv', ['check_data.py', *arguments, *options])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(root / 'tools/check_data.py'), run_name='__main__')
        printed = capsys.readouterr().out
        content = json.loads(printed) if printed else {'findings': []}
        return int(left.value.code or 0), content, {each['kind']: each for each in content['findings']}

    return run


def scene(seed: int, tint: int) -> np.ndarray:
    """A picture of large soft blots, unlike those of other seeds; uint8 (120, 160, 3)."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    image[..., tint] //= 2
    return image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A clean folder of two classes: 12 training and 4 validation pictures each."""
    for tint, name in enumerate(('ant', 'bee')):
        for split, count in (('train', 12), ('val', 4)):
            (tmp_path / f'data/{split}/{name}').mkdir(parents=True)
            for index in range(count):
                image = scene(1000 * tint + 100 * (split == 'val') + index, tint)
                cv2.imwrite(str(tmp_path / f'data/{split}/{name}/{index}.png'), image)
    return tmp_path / 'data'


def test_clean_pictures_give_no_findings(check: Check, pictures: Path) -> None:
    code, content, found = check('linear_folder', pictures)
    assert (code, found) == (0, {})
    assert '24 images in 2 classes' in content['train']


def test_planted_faults_are_found(check: Check, pictures: Path) -> None:
    train, val = pictures / 'train', pictures / 'val'
    shutil.copy(train / 'ant/0.png', val / 'ant/copy.png')
    near = scene(1, 0)
    cv2.imwrite(str(val / 'ant/near.jpg'), cv2.resize(near, (120, 90)), [cv2.IMWRITE_JPEG_QUALITY, 70])
    shutil.copy(train / 'bee/2.png', train / 'ant/also.png')
    (train / 'ant/cut.png').write_bytes((train / 'ant/3.png').read_bytes()[:2000])
    (train / 'bee/empty.png').write_bytes(b'')
    for index in range(4):
        (train / f'bee/{index + 6}.png').unlink()
    code, _, found = check('linear_folder', pictures)
    assert code == 1
    assert found['copies_between_splits']['count'] == 2
    assert 'copy.png is ' in str(found['copies_between_splits']['examples'])
    assert 'near.jpg is nearly ' in str(found['copies_between_splits']['examples'])
    assert found['copies_in_training']['count'] == 1
    assert 'ant and bee' in str(found['copies_of_two_classes']['examples']) or 'bee and ant' in str(
        found['copies_of_two_classes']['examples']
    )
    assert found['unreadable']['count'] == 2
    assert 'empty file' in str(found['unreadable']['examples'])
    assert found['class_rare_in_training']['examples'] == ['bee: 9']
    assert all(each['consequence'] and each['fix'] for each in found.values())


def test_faults_of_boxes_are_found(check: Check, tmp_path: Path) -> None:
    (tmp_path / 'pictures').mkdir()
    lines = ['image,xmin,ymin,xmax,ymax,label,split']
    for index in range(30):
        cv2.imwrite(str(tmp_path / f'pictures/{index}.png'), scene(index, 0))
        name, split = ('dog', 'cat')[index % 2], 'val' if index < 6 else 'train'
        lines.append(f'{index}.png,20,20,100,90,{name},{split}')
    (tmp_path / 'boxes.csv').write_text('\n'.join(lines))
    assert check('ssdlite_folder', tmp_path)[0] == 0
    planted = ['7.png,20,20,100,90,cat,train', '8.png,5,5,7,80,dog,train', '9.png,150,20,400,60,cat,train']
    planted += ['10.png,9,9,9,20,cat,train', '11.png,500,500,600,600,cat,train', '12.png,9,9,80,80,owl,train']
    (tmp_path / 'boxes.csv').write_text('\n'.join([*lines, *planted]))
    code, _, found = check('ssdlite_folder', tmp_path)
    assert code == 1
    assert found['boxes_double']['examples'] == [f'{tmp_path}/pictures/7.png: cat 20, 20, 100, 90']
    assert found['boxes_tiny']['count'] == 1
    assert found['class_rare_in_training']['examples'] == ['owl: 1']
    assert found['class_absent_in_validation']['examples'] == ['owl: 0 objects, 1 in training']
    corners = [(x, y) for x in (9, 60) for y in (9, 60)]
    small = [f'{index}.png,{x},{y},{x + 4},{y + 4},dog,train' for index in range(6, 30) for x, y in corners]
    (tmp_path / 'boxes.csv').write_text('\n'.join([*lines, *small]))
    _, _, found = check('ssdlite_folder', tmp_path)
    assert '80%' in found['boxes_like_no_default']['text']
    assert (
        'taps=[stage4_expand,stage6_expand,last] model.head.min_scale=0.05: '
        in found['boxes_like_no_default']['fix']
    )


def test_boxes_outside_and_without_size_are_counted(check: Check, tmp_path: Path) -> None:
    (tmp_path / 'pictures').mkdir()
    lines = ['image,xmin,ymin,xmax,ymax,label']
    for index in range(30):
        cv2.imwrite(str(tmp_path / f'pictures/{index}.png'), scene(index, 0))
        lines.append(f'{index}.png,20,20,100,90,cat')
    lines += [
        '3.png,500,500,600,600,cat',
        '4.png,9,9,9,20,cat',
        '5.png,150,20,400,60,cat',
        'x.png,1,1,9,9,cat',
    ]
    (tmp_path / 'boxes.csv').write_text('\n'.join(lines))
    _, content, _ = check('ssdlite_folder', tmp_path)
    texts = ' '.join(each['text'] for each in content['findings'] if each['kind'] == 'annotations')
    for part in ('outside their image', 'zero or negative size', 'clipped to their image', 'no such picture'):
        assert part in texts


def test_masks_that_label_nothing_are_found_and_wrong_values_cannot_be_read(
    check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    for index in range(30):
        mask = np.zeros((120, 160), np.uint8)
        mask[20:60, 20:60] = 1
        cv2.imwrite(str(tmp_path / f'images/{index}.png'), scene(index, 0))
        cv2.imwrite(str(tmp_path / f'masks/{index}.png'), mask)
    (tmp_path / 'classes.txt').write_text('background\nroad\n')
    assert check('deeplabv3_folder', tmp_path)[0] == 0
    cv2.imwrite(str(tmp_path / 'masks/3.png'), np.full((120, 160), 255, np.uint8))
    code, _, found = check('deeplabv3_folder', tmp_path)
    assert (code, found['masks_empty']['count']) == (1, 1)
    cv2.imwrite(str(tmp_path / 'masks/3.png'), np.full((120, 160), 9, np.uint8))
    code, _, found = check('deeplabv3_folder', tmp_path)
    assert (code, found) == (2, {})
