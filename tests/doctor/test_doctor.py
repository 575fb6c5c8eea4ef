"""The doctor as a command: exit codes, JSON, a page, and a repaired copy beside which nothing has changed."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.images.images import read_photograph
from falconet.report.page.document import read_data


class Checked(NamedTuple):
    """How tools/check_data.py ended."""

    code: int
    out: str
    err: str

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        return {each['kind']: each for each in self.content['findings']}


Check = Callable[..., Checked]


@pytest.fixture
def check(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run tools/check_data.py."""

    def run(config: str, data: Path, *options: object) -> Checked:
        arguments = [str(root / 'configs' / f'{config}.py'), '--data-root', str(data), *map(str, options)]
        monkeypatch.setattr(sys, 'argv', ['check_data.py', *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(root / 'tools/check_data.py'), run_name='__main__')
        printed = capsys.readouterr()
        return Checked(int(left.value.code or 0), printed.out, printed.err)

    return run


def content(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}


def test_exit_codes_say_clean_findings_or_not_readable(check: Check, pictures: Path, tmp_path: Path) -> None:
    done = check('linear_folder', pictures)
    assert done.code == 0
    assert 'train: 24 images in 2 classes' in done.out
    assert done.out.endswith('\nnothing found\n')
    (pictures / 'train/ant/3.png').write_bytes(b'')
    done = check('linear_folder', pictures)
    assert done.code == 1
    assert '1 pictures of train cannot be read\n' in done.out
    assert '3.png: empty file' in done.out
    assert '\n  -> ' in done.out
    assert check('linear_folder', tmp_path / 'nowhere').code == 2
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert 'holds no pictures with a class each' in check('linear_folder', empty).err


def test_json_and_the_page_hold_every_finding_and_no_name_is_read_as_markup(
    check: Check, pictures: Path, tmp_path: Path
) -> None:
    nasty = '<img src=x onerror=alert(1)>'.replace('/', '')
    for split in ('train', 'val'):
        (pictures / split / 'bee').rename(pictures / split / nasty)
    shutil.copy(pictures / 'train/ant/0.png', pictures / 'train' / nasty / 'twin.png')
    page = tmp_path / 'page.html'
    done = check('linear_folder', pictures, '--json', '--html', page)
    assert done.code == 1
    assert done.found.keys() == {'copies_in_training', 'copies_of_two_classes'}
    assert done.content['classes']['counts']['train'] == {nasty: 13, 'ant': 12}
    text = page.read_text(encoding='utf-8')
    assert '<img src=x' not in text
    assert text.count('src="data:image/jpeg;base64,') == 2
    assert read_data(page) == done.content
    assert 'One of the two teaches what is wrong' in text
    assert check('linear_folder', pictures, '--html', page).code == 1  # ours, and written again
    page.write_text('mine')
    done = check('linear_folder', pictures, '--html', page)
    assert done.code == 2
    assert page.read_text() == 'mine'


def test_a_picture_that_claims_to_be_turned_and_one_for_print_are_written_upright_as_rgb(
    check: Check, pictures: Path, tmp_path: Path
) -> None:
    train = pictures / 'train/ant'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(train / '0.png').convert('RGB').save(train / 'turned.jpg', exif=exif, quality=95)
    Image.open(train / '1.png').convert('CMYK').save(train / 'print.jpg', quality=95)
    cv2.imwrite(str(train / '2.png'), cv2.imread(str(train / '2.png')).astype(np.uint16) * 257)
    for name in ('0.png', '1.png'):
        (train / name).unlink()
    before = content(pictures)
    done = check('linear_folder', pictures, '--fix', tmp_path / 'out')
    assert done.code == 0, done.out
    assert 'repaired: 1 pictures saved again as RGB, from CMYK' in done.out
    assert content(pictures) == before
    for name in ('turned.jpg', 'print.jpg', '2.png'):
        ours, theirs = (read_photograph(each) for each in (tmp_path / 'out/train/ant' / name, train / name))
        assert not ours.turned
        assert ours.image.shape == theirs.image.shape
        assert np.abs(ours.image.astype(int) - theirs.image).mean() < 3
    with Image.open(tmp_path / 'out/train/ant/print.jpg') as picture:
        assert picture.mode == 'RGB'


def test_boxes_are_cut_off_dropped_and_kept_once_and_copies_leave_training(
    check: Check, boxes: Any, tmp_path: Path
) -> None:
    boxes.add_box('train', 1, 1, 500, 500, 50, 50)
    boxes.add_box('train', 2, 1, 100, 20, 300, 60)
    boxes.add_box('train', 3, 1, 30, 30, 0, 20)
    boxes.add_box('train', 4, 2, 20, 20, 80, 70)
    shutil.copy(boxes.root / 'val/val0.jpg', boxes.root / 'train/train7.jpg')
    (boxes.root / 'train/train8.jpg').write_bytes(b'')
    whole = (boxes.root / 'train/train9.jpg').read_bytes()
    (boxes.root / 'train/train9.jpg').write_bytes(whole[:-20])
    (boxes.root / 'train/train10.jpg').write_bytes(whole[: len(whole) // 3])
    boxes.write()
    before = content(boxes.root)
    sized = ('--cfg-options', 'val_dataloader.dataset.augment.0.height=240', 'model.head.match_threshold=0.3')
    done = check('ssdlite_folder', boxes.root, '--fix', tmp_path / 'out', '--json', *sized)
    assert content(boxes.root) == before
    assert done.code == 0, done.out
    steps = [line.removeprefix('repaired: ') for line in done.err.splitlines() if line.startswith('repaired')]
    assert sorted(steps) == [
        '1 boxes clipped to their image',
        '1 boxes dropped, outside their image',
        '1 boxes dropped, zero or negative size',
        '1 boxes left out, there twice',
        '1 pictures saved again without the few rows that are missing',
        '1 training pictures left out, validation has them',
        '2 pictures of train left out, not readable',
    ]
    fixed = DetectionFolder(str(tmp_path / 'out'), split='train').annotations
    assert len(fixed) == 27
    assert len(fixed.boxes) == 28
    assert [100, 20, 160, 80] in fixed.original_boxes.tolist()
    again = check('ssdlite_folder', boxes.root, '--fix', tmp_path / 'out')
    assert again.code == 2
    assert 'is not empty' in again.err


def test_what_cannot_be_repaired_stays_listed(check: Check, masks: Path, tmp_path: Path) -> None:
    plain = cv2.imread(str(masks / 'masks/train/0.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(masks / 'masks/train/1.png'), plain + 7)
    cv2.imwrite(str(masks / 'masks/train/2.png'), np.full_like(plain, 255))
    near = cv2.resize(cv2.imread(str(masks / 'images/train/3.jpg')), (140, 105))
    cv2.imwrite(str(masks / 'images/val/0.jpg'), cv2.resize(near, (160, 120)))
    size = 'val_dataloader.dataset.augment.0.size=160'
    done = check('deeplabv3_folder', masks, '--fix', tmp_path / 'out', '--json', '--cfg-options', size)
    assert done.code == 1
    assert done.found.keys() == {'near_copies_between_splits'}
    assert len(list((tmp_path / 'out/masks/train').iterdir())) == 28


def test_a_standard_data_set_is_not_repaired(
    check: Check, write_config: Callable[..., Path], folders: Path
) -> None:
    config = write_config()
    done = check(str(config.with_suffix('')), folders, '--fix', folders / 'out')
    assert done.code == 2
    assert '--fix: this config reads a standard data set as it is' in done.err
    assert not (folders / 'out').exists()
