"""Annotations of every bad kind through the real command lines: what is said, with which exit code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

Command = Callable[..., Any]
OBJECT, IMAGE = 'annotations/0', 'images/0'
INF, NAN = float('inf'), float('nan')
# Where in the file, what stands there instead (... takes it away), and the message. They end the command.
FATAL = [
    (f'{OBJECT}/bbox', '1234', "bbox should be a list of four numbers, got '1234'"),
    (f'{OBJECT}/bbox', {'x': 1, 'y': 2, 'width': 3, 'height': 4}, 'bbox should be a list of four numbers'),
    (f'{OBJECT}/bbox', [1, 2, 3], 'bbox should be a list of four numbers'),
    (f'{OBJECT}/bbox', [1, 2, None, 3], 'bbox should be a number, got None'),
    (f'{OBJECT}/bbox', ..., 'each annotation needs'),
    (f'{OBJECT}/category_id', 1.7, 'category_id should be a whole number, got 1.7'),
    (f'{OBJECT}/category_id', 'red', 'each annotation needs'),
    (f'{OBJECT}/image_id', NAN, 'image_id should be a whole number, got nan'),
    (f'{OBJECT}/area', [4], 'area should be a number, got [4]'),
    (f'{IMAGE}/height', INF, 'height should be a whole number, got inf'),
    (f'{IMAGE}/width', 10**9, 'height and width must be 1 to 1,000,000'),
    (f'{IMAGE}/width', -80, 'height and width must be 1 to 1,000,000'),
    (f'{IMAGE}/file_name', 7, 'each image needs'),
    (f'{IMAGE}/id', 9, 'occurs twice'),
    ('categories', ..., "no list 'categories'"),
    ('annotations', 5, "no list 'annotations'"),
    ('categories/0/name', 'red', 'red'),
]
# These are dropped or mended, counted and named, and the others are scored.
COUNTED = [
    (f'{OBJECT}/bbox', [0.25, 0.5, 0.25, 0.125], '1 boxes dropped, in the first pixel'),
    (f'{OBJECT}/bbox', [NAN, 1, 2, 3], '1 boxes dropped, not finite'),
    (f'{OBJECT}/bbox', [1, 1, 1e18, 3], '1 boxes dropped, farther out than'),
    (f'{OBJECT}/bbox', [10, 10, -4, 5], '1 boxes dropped'),
    (f'{OBJECT}/area', NAN, '1 areas replaced by that of the box'),
]
# What segmentation reads beside the above: outlines. Squares of 60 by 80 pixels.
SQUARE = [2.0, 2.0, 78.0, 2.0, 78.0, 58.0, 2.0, 58.0]
OUTLINES = [
    ([[NAN, *SQUARE[1:]]], 'a polygon that is not finite'),
    ([[1e18, *SQUARE[1:]]], 'a polygon that reaches from 2 to 1e+18, far beyond its picture'),
    ([[*SQUARE, 'x', 1.0]], 'a polygon of what are no numbers'),
    ([[2.0, 2.0, 3.0]], 'a polygon of 3 numbers, which are no pairs'),
    ([[0.0, 0.0, 80.0, 60.0] * 20_000], 'a polygon whose edges are longer than those of all pixels'),
    ('abc', "neither polygons nor run lengths but 'abc'"),
    ({'size': [10**9, 10**9], 'counts': 'abc'}, 'run lengths of a picture of [1000000000, 1000000000]'),
    ({'size': [INF, 80], 'counts': 'abc'}, 'run lengths of a picture of [inf, 80]'),
    ({'size': [30, 40], 'counts': [1200]}, 'run lengths of a picture of [30, 40]'),
    ({'size': [60, 80], 'counts': [5, 10**12]}, 'run lengths of 1,000,000,000,005 pixels'),
    ({'size': [60, 80], 'counts': 5}, 'neither whole numbers nor packed by pycocotools'),
]


@pytest.fixture
def spoilt(coco_folder: Path, altered: Callable) -> Callable[..., Path]:
    """Change the file of annotations and return the data's folder."""

    def spoil(place: str, value: Any) -> Path:
        file = coco_folder / 'annotations/test.json'
        file.write_text(json.dumps(altered(json.loads(file.read_text()), place, value)))
        return coco_folder

    return spoil


@pytest.mark.parametrize(('place', 'value', 'message'), FATAL)
def test_a_value_that_makes_no_sense_ends_the_command(
    command: Command, untrained: Callable, spoilt: Callable, place: str, value: Any, message: str
) -> None:
    done = command('test', untrained('detection', spoilt(place, value)), '--out', 'scores.json')
    assert done.code == 2, done.output
    assert message in done.output
    assert 'test.json' in done.output
    assert not Path('scores.json').exists()


@pytest.mark.parametrize(('place', 'value', 'message'), COUNTED)
def test_a_box_that_cannot_be_is_dropped_counted_and_named(
    command: Command, untrained: Callable, spoilt: Callable, place: str, value: Any, message: str
) -> None:
    done = command('test', untrained('detection', spoilt(place, value)))
    assert done.code == 0, done.output
    assert message in done.output
    assert 'object 100' in done.output


def test_a_whole_file_of_boxes_in_fractions_is_refused(
    command: Command, untrained: Callable, coco_folder: Path
) -> None:
    file = coco_folder / 'annotations/test.json'
    content = json.loads(file.read_text())
    for entry in content['annotations']:
        entry['bbox'] = [value / 80 for value in entry['bbox']]
    file.write_text(json.dumps(content))
    done = command('test', untrained('detection', coco_folder))
    assert done.code == 2, done.output
    assert 'lie in the first pixel' in done.output


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is no valid JSON, or truncated'),
        (b'{"images": [', 'is no valid JSON, or truncated'),
        (b'[]', 'is it a result file'),
        (b'\xff\xfe\x00', 'test.json'),
        (b'{"images": NaN}', "no list 'images'"),
        (b'[' * 200_000, 'test.json'),
    ],
)
def test_a_file_that_holds_no_annotations_is_refused(
    command: Command, untrained: Callable, coco_folder: Path, content: bytes, message: str
) -> None:
    (coco_folder / 'annotations/test.json').write_bytes(content)
    done = command('test', untrained('detection', coco_folder))
    assert done.code == 2, done.output
    assert message in done.output


def test_boxes_of_another_size_of_the_picture_are_refused(
    command: Command, untrained: Callable, coco_folder: Path
) -> None:
    for path in (coco_folder / 'test').iterdir():
        with Image.open(path) as picture:
            picture.resize((160, 120)).save(path)
    done = command('test', untrained('detection', coco_folder))
    assert done.code == 2, done.output
    assert 'is 160x120 pixels, 80x60 by its annotations' in done.output


@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_boxes_drawn_on_the_picture_as_shown_are_scored(
    command: Command, untrained: Callable, coco_folder: Path, orientation: int
) -> None:
    for path in (coco_folder / 'test').iterdir():
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(path) as picture:
            picture.rotate({3: 180, 6: 90, 8: -90}[orientation], expand=True).save(path, exif=exif)
    done = command('test', untrained('detection', coco_folder), '--out', 'scores.json')
    assert done.code == 0, done.output
    assert '4 pictures were turned' in done.output or 'turned' in done.output
    assert json.loads(Path('scores.json').read_text())['images'] == 4


@pytest.fixture
def outlines(tmp_path: Path, root: Path) -> Callable[[Any], list[object]]:
    """Arguments for a training on COCO's outlines of which the first is another."""
    from falconet.datasets.segmentation.coco import COCO_NAMES
    from falconet.datasets.segmentation.dataset import VOC_CLASSES

    def write(outline: Any) -> list[object]:
        base = tmp_path / 'outlines'
        (base / 'annotations').mkdir(parents=True)
        names = [COCO_NAMES.get(name, name) for name in VOC_CLASSES[1:]]
        for split in ('train2017', 'val2017'):
            (base / split).mkdir()
            assert cv2.imwrite(str(base / split / '0.png'), np.zeros((60, 80, 3), np.uint8))
            content = {
                'images': [{'id': 5, 'file_name': '0.png', 'height': 60, 'width': 80}],
                'categories': [{'id': index, 'name': name} for index, name in enumerate(names)],
                'annotations': [
                    {'id': 100, 'image_id': 5, 'category_id': 1, 'bbox': [2, 2, 76, 56], 'area': 4256,
                     'iscrowd': 0, 'segmentation': outline}
                ],
            }  # fmt: skip
            (base / f'annotations/instances_{split}.json').write_text(json.dumps(content))
        options = ['model.backbone.pretrained=None', 'train_cfg.max_epochs=1']
        config = root / 'configs/deeplabv3_coco.py'
        return [config, '--data-root', base, '--work-dir', 'run', '--cfg-options', *options]

    return write


@pytest.mark.parametrize(('outline', 'message'), OUTLINES)
def test_an_outline_that_cannot_be_is_found_when_the_file_is_read(
    command: Command, outlines: Callable, outline: Any, message: str
) -> None:
    """The only object of the only picture: nothing is left to train on."""
    done = command('train', *outlines(outline))
    assert done.code == 2, done.output
    assert message in done.output
    assert 'train2017/0.png' in done.output
    assert not Path('run').exists()


def another_size(path: Path) -> None:
    assert cv2.imwrite(str(path), np.zeros((10, 10), np.uint8))


def colours(path: Path) -> None:
    assert cv2.imwrite(str(path), np.full((48, 60, 3), 77, np.uint8))


def silhouettes(path: Path) -> None:
    for each in path.parent.iterdir():
        assert cv2.imwrite(str(each), np.tile(np.array([0, 255], np.uint8), (48, 30)))


def too_deep(path: Path) -> None:
    assert cv2.imwrite(str(path), np.full((48, 60), 3000, np.uint16))


def unknown_class(path: Path) -> None:
    assert cv2.imwrite(str(path), np.full((48, 60), 7, np.uint8))


def no_mask(path: Path) -> None:
    path.unlink()


def no_picture(path: Path) -> None:
    path.write_bytes(b'hello')


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (another_size, '10 x 10 pixels'),
        (colours, 'RGB'),
        (silhouettes, '255'),
        (too_deep, '16'),
        (unknown_class, '7'),
        (no_mask, 'have no mask of the same name'),
        (no_picture, 'masks'),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(
    command: Command, untrained: Callable, masks: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(masks / 'masks/1.png')
    done = command('test', untrained('segmentation', masks))
    assert done.code == 2, done.output
    assert message in done.output
    assert '1.png' in done.output or spoil is silhouettes  # which are all of them
