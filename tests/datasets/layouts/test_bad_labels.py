"""Bad input in every format of classes and masks: named with its place, or counted; never passed over."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.classification.folder import ClassificationFolder
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.segmentation.folder import SegmentationFolder

Change = Callable[[Path], object]


def as_list(root: Path) -> Path:
    """Pictures of two classes, and a list of them."""
    (root / 'pictures').mkdir(parents=True)
    lines = ['image,label']
    for index in range(12):
        picture = np.random.default_rng(index).integers(0, 255, (24, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f'pictures/{index}.png'), picture)
        lines.append(f'{index}.png,{("ant", "bee")[index % 2]}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
    return root


def as_folders(root: Path) -> Path:
    """The same in a folder a class."""
    as_list(root)
    for line in (root / 'labels.csv').read_text().splitlines()[1:]:
        file, name = line.split(',')
        (root / name).mkdir(exist_ok=True)
        (root / 'pictures' / file).rename(root / name / file)
    (root / 'labels.csv').unlink()
    (root / 'pictures').rmdir()
    return root


def as_masks(root: Path) -> Path:
    """Pictures and masks of background and road."""
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for index in range(12):
        picture = np.random.default_rng(index).integers(0, 255, (24, 30, 3), dtype=np.uint8)
        mask = np.zeros((24, 30), np.uint8)
        mask[4:12, 4:14] = 1
        cv2.imwrite(str(root / f'images/{index}.png'), picture)
        cv2.imwrite(str(root / f'masks/{index}.png'), mask)
    (root / 'classes.txt').write_text('background\nroad\n')
    return root


def as_outlines(root: Path) -> Path:
    """The same with COCO's polygons."""
    as_masks(root)
    shutil.rmtree(root / 'masks')
    (root / 'classes.txt').unlink()
    images = [{'id': i, 'file_name': f'{i}.png', 'height': 24, 'width': 30} for i in range(12)]
    square = [4, 4, 14, 4, 14, 12, 4, 12]
    objects = [
        {
            'id': i,
            'image_id': i,
            'category_id': 1,
            'bbox': [4, 4, 10, 8],
            'area': 80,
            'segmentation': [square],
        }
        for i in range(12)
    ]
    content = {'images': images, 'annotations': objects, 'categories': [{'id': 1, 'name': 'road'}]}
    (root / 'labels.json').write_text(json.dumps(content))
    return root


LAYOUTS = {'list': as_list, 'folders': as_folders, 'masks': as_masks, 'outlines': as_outlines}


def read(root: Path, layout: str, **options: object) -> VisionDataset:
    kind = ClassificationFolder if layout in ('list', 'folders') else SegmentationFolder
    return kind(str(root), holdout=0, training=True, **options)  # type: ignore[arg-type]


def rewritten(file: str, old: str, new: str) -> Change:
    def change(root: Path) -> None:
        path = root / file
        text = path.read_text(encoding='utf-8')
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding='utf-8')

    return change


def removed(file: str) -> Change:
    return lambda root: (root / file).unlink()


def copied(source: str, target: str) -> Change:
    def change(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return change


def lists(**named: str) -> Change:
    def change(root: Path) -> None:
        (root / 'ImageSets/Segmentation').mkdir(parents=True)
        for name, content in named.items():
            (root / f'ImageSets/Segmentation/{name}.txt').write_text(content)

    return change


def split_column(root: Path) -> None:
    rows = list(csv.reader((root / 'labels.csv').read_text().splitlines()))
    lines = [','.join([*row, 'train' if place else 'split']) for place, row in enumerate(rows)]
    (root / 'labels.csv').write_text('\n'.join([*lines, '3.png,bee,val']))


def wrong_mask(values: np.ndarray | int) -> Change:
    def change(root: Path) -> None:
        mask = np.full((24, 30), values, np.uint8) if isinstance(values, int) else values
        cv2.imwrite(str(root / 'masks/3.png'), mask)

    return change


ERRORS: dict[str, tuple[str, Change, str]] = {
    'a class the model has not': (
        'list',
        rewritten('labels.csv', '3.png,bee', '3.png,wasp'),
        "class 'wasp' is",
    ),
    'two labels': (
        'list',
        rewritten('labels.csv', '3.png,bee', '3.png,bee|ant'),
        'line 5: .* several labels',
    ),
    'no label': ('list', rewritten('labels.csv', '3.png,bee', '3.png,'), r'labels\.csv, line 5: no label'),
    'one picture of two classes': (
        'list',
        rewritten('labels.csv', '3.png,bee', '2.png,bee'),
        r'line 5: pictures/2\.png is bee, and ant in a line before',
    ),
    'a comma in a name': (
        'list',
        rewritten('labels.csv', '3.png,bee', '3,5.png,bee'),
        r'line 5: 3 fields, the header has 2',
    ),
    'an empty list': (
        'list',
        lambda root: (root / 'labels.csv').write_text(''),
        'holds no pictures with a class',
    ),
    'a list of nothing': (
        'list',
        lambda root: (root / 'labels.csv').write_text('image,label\n'),
        'holds no pictures with a class',
    ),
    'no UTF-8': (
        'list',
        lambda root: (root / 'labels.csv').write_bytes(b'image,label\n3.png,\xff\xfe\n'),
        r'labels\.csv: no UTF-8',
    ),
    'one name in two folders': (
        'list',
        copied('pictures/3.png', 'pictures/more/3.png'),
        'names 3.png, and 2 pictures have',
    ),
    'a picture in two splits': ('list', split_column, r'both learnt and scored: .*3\.png'),
    'a class in one split': (
        'folders',
        lambda root: (
            [copied('ant/2.png', f'{split}/ant/2.png')(root) for split in ('train', 'val')]
            + [copied('bee/3.png', 'train/bee/3.png')(root)]
        ),
        "val: class 'bee' has no pictures there",
    ),
    'pictures of no class': (
        'folders',
        lambda root: [path.rename(root / path.name) for path in sorted(root.glob('*/*.png'))],
        'holds no pictures with a class each',
    ),
    'a picture without a mask': (
        'masks',
        removed('masks/3.png'),
        r'1 of 12 pictures have no mask .*images/3\.png',
    ),
    'no list of classes': ('masks', removed('classes.txt'), 'masks without a list of classes'),
    'an empty list of classes': (
        'masks',
        lambda root: (root / 'classes.txt').write_text('\n'),
        r'classes\.txt: expected a class a line',
    ),
    'a class twice': ('masks', rewritten('classes.txt', 'road', 'background'), 'each once'),
    'a value that is no class': ('masks', wrong_mask(7), r'3\.png: values 7'),
    'a mask of another size': (
        'masks',
        wrong_mask(np.ones((12, 30), np.uint8)),
        r'30 x 12 pixels, its image',
    ),
    'a mask of colours': (
        'masks',
        wrong_mask(np.full((24, 30, 3), (9, 80, 7), np.uint8)),
        r'3\.png: a mask of colours',
    ),
    'a mask that ends early': (
        'masks',
        lambda root: (root / 'masks/3.png').write_bytes((root / 'masks/3.png').read_bytes()[:50]),
        r'3\.png: .*not a readable mask',
    ),
    'an empty mask file': (
        'masks',
        lambda root: (root / 'masks/3.png').write_bytes(b''),
        'not a readable mask',
    ),
    'one name with two endings': (
        'masks',
        copied('images/3.png', 'images/3.jpg'),
        'are pictures of one name',
    ),
    'two masks of one name': ('masks', copied('masks/3.png', 'masks/3.bmp'), 'are masks of one name'),
    'a list that names one twice': (
        'masks',
        lists(train='1\n3\n3\n', val='2\n'),
        'train.txt names 3 more than once',
    ),
    'two lists with one picture': (
        'masks',
        lists(train='1\n3\n', val='3\n'),
        r'val\.txt: 3 are in train\.txt too',
    ),
    'a list of what is not there': (
        'masks',
        lists(train='1\n99\n', val='2\n'),
        r'1 of 2 pictures .* not there: 99',
    ),
    'colours for some classes': (
        'masks',
        rewritten('classes.txt', 'road', 'road 9 80 7'),
        'different colours',
    ),
    'a colour beyond 255': (
        'masks',
        lambda root: (root / 'classes.txt').write_text('background 0 0 0\nroad 9 300 7\n'),
        'a colour goes from 0 to 255',
    ),
    'an empty JSON': (
        'outlines',
        lambda root: (root / 'labels.json').write_text(''),
        'holds no masks or outlines',
    ),
    'a category that is not there': (
        'outlines',
        rewritten('labels.json', '"categories": [{"id": 1, "name": "road"}]', '"categories": []'),
        "'categories' is empty",
    ),
}


@pytest.mark.parametrize('fault', ERRORS)
def test_what_cannot_be_meant_is_an_error_with_its_place(fault: str, tmp_path: Path) -> None:
    layout, change, said = ERRORS[fault]
    root = LAYOUTS[layout](tmp_path / 'data')
    assert len(read(root, layout)) == 12
    change(root)
    options = {'classes': ['ant', 'bee']} if fault == 'a class the model has not' else {}
    with pytest.raises(UserError, match=said):
        read(root, layout, **options)


COUNTED: dict[str, tuple[str, Change, str]] = {
    'a missing picture of a list': (
        'list',
        removed('pictures/3.png'),
        r'1 pictures dropped, no such file \(.*3\.png',
    ),
    'a picture in no list': (
        'list',
        copied('pictures/3.png', 'pictures/x.png'),
        r'1 pictures \(pictures/x\.png\)',
    ),
    'a missing picture of outlines': (
        'outlines',
        removed('images/3.png'),
        r'1 images dropped, no such file .*3\.png',
    ),
    'a picture without outlines': (
        'outlines',
        copied('images/3.png', 'images/x.png'),
        r'1 pictures \(images/x\.png',
    ),
    'a mask without a picture': (
        'masks',
        copied('masks/3.png', 'masks/x.png'),
        r'1 masks without a picture, .*x\.png',
    ),
    'a picture in no list of masks': (
        'masks',
        lists(train='1\n3\n', val='2\n'),
        r'9 pictures \(images/0\.png',
    ),
    'an outline of two points': (
        'outlines',
        rewritten('labels.json', '[[4, 4, 14, 4, 14, 12, 4, 12]]', '[[4, 4, 14, 4]]'),
        '1 objects dropped',
    ),
    'a comma as decimal point in an outline': (
        'outlines',
        rewritten('labels.json', '[[4, 4,', '[["4,5", 4,'),
        'labels.json object 0 of .*: a polygon of what are no numbers',
    ),
    'a mask that labels nothing': ('masks', wrong_mask(255), r'1 masks label nothing \(3\.png\)'),
}


@pytest.mark.parametrize('fault', COUNTED)
def test_what_is_left_out_is_counted_and_named(fault: str, tmp_path: Path) -> None:
    layout, change, said = COUNTED[fault]
    root = LAYOUTS[layout](tmp_path / 'data')
    change(root)
    dataset = read(root, layout)

    assert re.search(said, str(dataset)), str(dataset)


SAME: dict[str, tuple[str, Change]] = {
    'Windows line ends and a mark in a list': (
        'list',
        lambda root: (root / 'labels.csv').write_bytes(
            b'\xef\xbb\xbf' + (root / 'labels.csv').read_bytes().replace(b'\n', b'\r\n')
        ),
    ),
    'the same in a list of classes': (
        'masks',
        lambda root: (root / 'classes.txt').write_bytes(b'\xef\xbb\xbfbackground\r\nroad\r\n'),
    ),
    'numbers as text': ('outlines', rewritten('labels.json', '[4, 4, 10, 8]', '["4", "4", "10", "8"]')),
    'a picture named twice alike': ('list', rewritten('labels.csv', '3.png,bee', '3.png,bee\n3.png,bee')),
    'semicolons': (
        'list',
        lambda root: (root / 'labels.csv').write_text((root / 'labels.csv').read_text().replace(',', ';')),
    ),
    'files of the system': ('folders', lambda root: (root / 'ant/Thumbs.db').write_bytes(b'x')),
    'a name of letters beyond ASCII': (
        'list',
        lambda root: [
            (root / 'pictures/3.png').rename(root / 'pictures/Größe é.png'),
            rewritten('labels.csv', '3.png', 'Größe é.png')(root),
        ],
    ),
    'a mask of such a name': (
        'masks',
        lambda root: [
            (root / each / '3.png').rename(root / each / 'Größe é.png') for each in ('images', 'masks')
        ],
    ),
}


@pytest.mark.parametrize('habit', SAME)
def test_habits_of_other_programs_change_nothing(habit: str, tmp_path: Path) -> None:
    layout, change = SAME[habit]
    root = LAYOUTS[layout](tmp_path / 'data')
    before = read(root, layout)
    change(root)
    after = read(root, layout)
    assert len(after) == len(before)
    assert after.classes == before.classes
    assert not getattr(after, 'problems').found  # noqa: B009 (of folders only)
