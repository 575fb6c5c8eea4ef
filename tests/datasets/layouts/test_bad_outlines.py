"""Bad input in every format of outlines, read for masks: an error with its place, or counted and named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.segmentation.folder import SegmentationFolder

ALL = ('coco_cvat', 'yolo_segments', 'labelme')
Write = Callable[[str], Path]


@pytest.fixture
def write(write: Write) -> Write:
    """Write the set with outlines; LabelMe's rectangles as polygons."""

    def into(name: str) -> Path:
        root = write(name)
        if name == 'labelme':
            for path in root.rglob('*.json'):
                content = json.loads(path.read_text())
                for shape in content['shapes']:
                    (left, top), (right, bottom) = shape['points']
                    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
                    shape.update(points=corners, shape_type='polygon')
                path.write_text(json.dumps(content))
        elif name == 'coco_cvat':
            path = root / 'annotations/instances_default.json'
            content = json.loads(path.read_text())
            for each in content['annotations']:
                left, top, width, height = each['bbox']
                right, bottom = left + width, top + height
                each['segmentation'] = [[left, top, right, top, right, bottom, left, bottom]]
            path.write_text(json.dumps(content))
        return root

    return into


def everything(root: Path, **options: object) -> SegmentationFolder:
    return SegmentationFolder(str(root), holdout=0, training=True, **options)  # type: ignore[arg-type]


def files(root: Path) -> list[Path]:
    return sorted([*root.rglob('*.json'), *root.rglob('labels/*.txt')])


def of_picture(root: Path, stem: str) -> Path:
    return next((path for path in files(root) if path.stem == stem), files(root)[0])


def masks_of(dataset: SegmentationFolder) -> np.ndarray:
    return np.stack([dataset.read_mask(index) for index in range(len(dataset))])


@pytest.mark.parametrize('layout', ALL)
def test_windows_line_ends_a_byte_order_mark_and_names_beyond_ascii_change_nothing(
    layout: str, write: Write
) -> None:
    root = write(layout)
    expected = masks_of(everything(root))
    for path in sorted(root.rglob('11.*'), reverse=True):  # the last one, also by this name
        path.rename(path.with_name(f'\u00fc_Stra\u00dfe{path.suffix}'))
    for path in [*files(root), *root.rglob('*.yaml')]:
        text = path.read_text(encoding='utf-8').replace('11.png', '\u00fc_Stra\u00dfe.png')
        path.write_bytes(b'\xef\xbb\xbf' + text.replace('\n', '\r\n').encode())
    dataset = everything(root)
    assert any('Stra\u00dfe' in path for path in dataset.paths)
    assert sorted(mask.tobytes() for mask in masks_of(dataset)) == sorted(mask.tobytes() for mask in expected)


@pytest.mark.parametrize('layout', ALL)
def test_a_missing_picture_is_counted_and_named_and_fatal_when_strict(layout: str, write: Write) -> None:
    root = write(layout)
    next(root.rglob('3.png')).unlink()
    dataset = everything(root)
    assert len(dataset) == 11
    assert re.search(r'no such (file|picture)|without a picture', str(dataset))
    assert '3.' in str(dataset.problems)
    with pytest.raises(UserError, match='strict'):
        everything(root, strict=True)


@pytest.mark.parametrize('layout', ALL)
def test_other_classes_than_the_models_are_an_error(layout: str, write: Write) -> None:
    with pytest.raises(UserError, match=r"class 'red' is none of|Only in the (data|model)"):
        everything(write(layout), classes=['background', 'green', 'blue'])


def test_a_class_number_beyond_the_list_and_pixels_are_named_by_their_line(write: Write) -> None:
    root = write('yolo_segments')
    file = root / 'labels/3.txt'
    file.write_text('2 0.1 0.1 0.5 0.1 0.5 0.5\n')
    with pytest.raises(UserError, match=r'3\.txt, line 1: class 2, there are 2'):
        everything(root)
    file.write_text('0 10 10 50 10 50 50\n')
    with pytest.raises(UserError, match=r'3\.txt, line 1: expected fractions .* Pixels'):
        everything(root)
    file.write_text('0 0,1 0.1 0.5 0.1 0.5 0.5\n')
    with pytest.raises(UserError, match=r"3\.txt, line 1: .* got '0,1': a comma as decimal point"):
        everything(root)


def test_numbers_as_text_are_numbers_and_a_comma_in_them_is_an_error(write: Write) -> None:
    root = write('labelme')
    expected = masks_of(everything(root))
    for path in files(root):
        content = json.loads(path.read_text())
        for shape in content['shapes']:
            shape['points'] = [[str(x), str(y)] for x, y in shape['points']]
        path.write_text(json.dumps(content))
    np.testing.assert_array_equal(masks_of(everything(root)), expected)
    other = write('coco_cvat')
    whole = masks_of(everything(other))
    content = json.loads(files(other)[0].read_text())
    for each in content['annotations']:
        each['segmentation'] = [list(map(str, part)) for part in each['segmentation']]
    files(other)[0].write_text(json.dumps(content))
    np.testing.assert_array_equal(masks_of(everything(other)), whole)
    path = of_picture(root, '3')
    path.write_text(re.sub(r'"(\d+)(\.\d+)?"', r'"\1,5"', path.read_text(), count=1))
    with pytest.raises(UserError, match=r'3\.json: .*,5.*a comma as decimal point'):
        everything(root)


@pytest.mark.parametrize('layout', ALL)
def test_an_empty_file_is_an_error_but_for_yolo_a_picture_without_objects(layout: str, write: Write) -> None:
    root = write(layout)
    of_picture(root, '3').write_text('')
    if layout == 'yolo_segments':
        assert len(everything(root)) == 12
        return
    with pytest.raises(UserError, match=r'3\.json is no|holds no masks or outlines'):
        everything(root)


@pytest.mark.parametrize('layout', ['coco_cvat', 'labelme'])
def test_fractions_where_pixels_are_expected_are_an_error(layout: str, write: Write) -> None:
    root = write(layout)
    for path in files(root):
        content = json.loads(path.read_text())
        for each in content.get('annotations', []):
            each['segmentation'] = [[value / 99 for value in part] for part in each['segmentation']]
        for each in content.get('shapes', []):
            each['points'] = [[x / 99, y / 99] for x, y in each['points']]
        path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='in pixels: multiply these by width and height'):
        everything(root)


def test_two_pictures_of_one_name_ask_which_counts(write: Write) -> None:
    root = write('yolo_segments')
    shutil.copy(root / 'images/3.png', root / 'images/3.jpg')
    with pytest.raises(UserError, match=r'labels/3\.txt belongs to images/3\.jpg or images/3\.png'):
        everything(root)


def test_a_picture_in_two_splits_is_an_error(write: Write) -> None:
    root = write('coco_cvat')
    annotations = root / 'annotations'
    (annotations / 'instances_default.json').rename(annotations / 'train.json')
    shutil.copy(annotations / 'train.json', annotations / 'val.json')
    with pytest.raises(UserError, match='12 pictures are both learnt and scored: '):
        everything(root)
