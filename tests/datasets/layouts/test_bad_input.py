"""Bad input in every format of boxes: named with its place, no traceback, nothing passed over in silence."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.detection.folder import DetectionFolder

ALL = ('coco_cvat', 'voc_cvat', 'yolo_label_studio', 'csv_plain', 'labelme')
Write = Callable[[str], Path]


def everything(root: Path, **options: object) -> DetectionFolder:
    return DetectionFolder(str(root), holdout=0, training=True, **options)  # type: ignore[arg-type]


def labels_of(root: Path) -> list[Path]:
    """The files with numbers in a layout."""
    found = [*root.rglob('*.json'), *root.rglob('*.xml'), *root.rglob('*.csv'), *root.rglob('labels/*.txt')]
    return sorted(path for path in found if path.name != 'notes.json')


def of_picture(root: Path, stem: str) -> Path:
    """The file that has the boxes of a picture."""
    files = labels_of(root)
    return next((path for path in files if path.stem == stem), files[0])


@pytest.mark.parametrize('layout', ALL)
def test_a_missing_picture_is_named_and_counted_and_fatal_when_strict(layout: str, write: Write) -> None:
    root = write(layout)
    next(root.rglob('3.png')).unlink()
    dataset = everything(root)
    assert len(dataset) == 11
    assert re.search(r'no such (file|picture)|without a picture', str(dataset))
    assert '3.' in str(dataset.problems)
    with pytest.raises(UserError, match='strict'):
        everything(root, strict=True)
    for path in root.rglob('*.png'):
        path.unlink()
    with pytest.raises(UserError, match=r'none of|not a single picture|no boxes in a format'):
        everything(root)


@pytest.mark.parametrize('layout', ['voc_cvat', 'csv_plain', 'labelme'])
def test_a_class_that_is_not_the_models_is_an_error(layout: str, write: Write) -> None:
    with pytest.raises(UserError, match="class 'red' is none of green, blue"):
        everything(write(layout), classes=['green', 'blue'])


@pytest.mark.parametrize('layout', ['coco_cvat', 'yolo_label_studio'])
def test_a_list_of_other_classes_is_an_error(layout: str, write: Write) -> None:
    with pytest.raises(UserError, match=r'Only in the model: blue'):
        everything(write(layout), classes=['green', 'blue'])


def test_a_class_number_beyond_the_list_is_named_by_its_line(write: Write) -> None:
    root = write('yolo_label_studio')
    (root / 'labels/3.txt').write_text('0 0.5 0.5 0.1 0.1\n2 0.5 0.5 0.1 0.1\n')
    with pytest.raises(UserError, match=r'3\.txt, line 2: class 2, there are 2 \(red, green\), counted'):
        everything(root)


def test_numbers_as_text_are_numbers(write: Write) -> None:
    expected = everything(write('coco_cvat')).annotations.boxes
    root = write('coco_roboflow')
    file = root / 'train/_annotations.coco.json'
    content = json.loads(file.read_text())
    for each in content['annotations']:
        each['bbox'] = [str(value) for value in each['bbox']]
    file.write_text(json.dumps(content))
    np.testing.assert_array_equal(everything(root).annotations.boxes, expected)
    root = write('csv_plain')
    head, *lines = (root / 'boxes.csv').read_text().splitlines()
    quoted = [','.join(f'"{field}"' if field else '' for field in line.split(',')) for line in lines]
    (root / 'boxes.csv').write_text('\n'.join([head, *quoted]))
    np.testing.assert_array_equal(everything(root).annotations.boxes, expected)
    root = write('voc_cvat')
    for path in labels_of(root):
        path.write_text(re.sub(r'(<[xyhw]\w+>)(\d+)<', r'\1 \2 <', path.read_text()))
    np.testing.assert_array_equal(everything(root).annotations.boxes, expected)
    root = write('labelme')
    for path in labels_of(root):
        content = json.loads(path.read_text())
        for shape in content['shapes']:
            shape['points'] = [[str(x), str(y)] for x, y in shape['points']]
        path.write_text(json.dumps({**content, 'imageHeight': '60'}))
    assert len(everything(root).annotations.boxes) == len(expected)


@pytest.mark.parametrize('layout', ALL)
def test_a_comma_as_decimal_point_is_an_error_with_its_place(layout: str, write: Write) -> None:
    root = write(layout)
    path = of_picture(root, '3')
    text = path.read_text()
    if layout == 'coco_cvat':
        content = json.loads(text)
        content['annotations'][0]['bbox'][0] = '1,5'
        text = json.dumps(content)
    elif layout == 'voc_cvat':
        text = re.sub(r'<xmin>.*?</xmin>', '<xmin>1,5</xmin>', text)
    elif layout == 'yolo_label_studio':
        text = text.replace('.', ',')
    elif layout == 'csv_plain':
        text = text.replace('3.png,', '3.png,1,', 1)
    else:
        content = json.loads(text)
        content['shapes'][0]['points'][0][0] = '1,5'
        text = json.dumps(content)
    path.write_text(text)
    with pytest.raises(
        UserError, match=r'1,5|0,\d+.*a comma as decimal point|A comma as decimal point'
    ) as error:
        everything(root)
    assert path.name in str(error.value)


@pytest.mark.parametrize('layout', ALL)
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(layout: str, write: Write) -> None:
    root = write(layout)
    expected = everything(root).annotations.boxes
    lists = [*root.rglob('*.yaml'), *root.rglob('classes.txt'), *root.rglob('ImageSets/*/*.txt')]
    for path in [*labels_of(root), *lists]:
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
    np.testing.assert_array_equal(everything(root).annotations.boxes, expected)


@pytest.mark.parametrize('layout', ALL)
def test_an_empty_file_is_no_annotation_but_for_yolo_a_picture_without_objects(
    layout: str, write: Write
) -> None:
    root = write(layout)
    of_picture(root, '3').write_text('')
    if layout == 'yolo_label_studio':
        dataset = everything(root)
        assert len(dataset) == 12
        assert 'images (2 without objects)' in str(dataset)
        return
    with pytest.raises(UserError, match=r'3\.\w+ is no|holds no boxes in a format known here'):
        everything(root)


@pytest.mark.parametrize('layout', ['coco_cvat', 'csv_plain', 'labelme', 'voc_cvat'])
def test_fractions_where_pixels_are_expected_are_an_error(layout: str, write: Write) -> None:
    root = write(layout)
    for path in labels_of(root):
        text = path.read_text()
        if path.suffix == '.csv':
            head, *lines = text.splitlines()
            rows = [line.split(',') for line in lines]
            lines = [','.join([r[0], *(str(int(v) / 99) if v else '' for v in r[1:5]), r[5]]) for r in rows]
            text = '\n'.join([head, *lines])
        elif path.suffix == '.xml':
            text = re.sub(r'(<[xy]m\w+>)(\d+)', lambda found: f'{found[1]}{int(found[2]) / 99}', text)
        else:
            content = json.loads(text)
            for each in content.get('annotations', []):
                each['bbox'] = [value / 99 for value in each['bbox']]
            for each in content.get('shapes', []):
                each['points'] = [[x / 99, y / 99] for x, y in each['points']]
            text = json.dumps(content)
        path.write_text(text)
    with pytest.raises(UserError, match='expected in pixels: multiply these by width and height'):
        everything(root)


def test_pixels_where_fractions_are_expected_are_an_error(write: Write) -> None:
    root = write('yolo_label_studio')
    (root / 'labels/3.txt').write_text('0 40 30 20 10\n')
    with pytest.raises(UserError, match=r'3\.txt, line 1: expected fractions .* got 40, 30, 20, 10. Pixels'):
        everything(root)
    (root / 'labels/3.txt').write_text('0 0.4 0.3 0.2\n')
    with pytest.raises(UserError, match=r'line 1: expected a class and 4 fractions'):
        everything(root)


@pytest.mark.parametrize('layout', ALL)
def test_names_beyond_ascii_are_names(layout: str, write: Write, exported: object) -> None:
    root = write(layout)
    for path in sorted(root.rglob('3.*'), reverse=True):
        path.rename(path.with_name(f'Straße_é{path.suffix}'))
    for path in [*labels_of(root), *root.rglob('classes.txt')]:
        text = path.read_text().replace('3.png', 'Straße_é.png').replace('"red"', '"rød"')
        path.write_text(re.sub(r'>red<', '>rød<', re.sub(r'(?m)(^|,)red$', r'\1rød', text)), encoding='utf-8')
    dataset = everything(root)
    assert any('Straße_é' in path for path in dataset.paths)
    assert set(dataset.classes) == {'rød', 'green'}
    assert len(dataset) == 12


def test_one_name_with_two_endings_asks_which_counts(write: Write) -> None:
    root = write('yolo_label_studio')
    shutil.copy(root / 'images/3.png', root / 'images/3.jpg')
    with pytest.raises(UserError, match=r'labels/3\.txt belongs to images/3\.jpg or images/3\.png'):
        everything(root)
    root = write('coco_label_studio')
    (root / 'more').mkdir()
    shutil.copy(root / 'images/3.png', root / 'more/3.jpg')
    assert len(everything(root)) == 12
    for file in (root / 'result.json',):
        file.write_text(file.read_text().replace('images\\\\', ''))
    shutil.copy(root / 'images/3.png', root / 'more/3.png')
    with pytest.raises(UserError, match=r'names 3\.png, and 2 pictures have that name: images/3\.png, more'):
        everything(root)


@pytest.mark.parametrize('layout', ['voc_cvat', 'csv_plain', 'labelme'])
def test_a_name_with_its_ending_means_that_picture(layout: str, write: Write) -> None:
    root = write(layout)
    expected = everything(root).annotations
    (root / 'more').mkdir()
    shutil.copy(next(root.rglob('3.png')), root / 'more/3.jpg')
    found = everything(root)
    assert list(found.paths) == list(expected.paths)
    np.testing.assert_array_equal(found.annotations.boxes, expected.boxes)
    shutil.copy(root / 'more/3.jpg', root / 'more/3.png')
    (root / 'other').mkdir()
    shutil.move(next(path for path in root.rglob('3.png') if path.parent.name != 'more'), root / 'other')
    # Two of the very name, as far from the annotation: one must be named by its path.
    with pytest.raises(UserError, match=r'3\.png, and 2 pictures have that name: more/3\.png, other/3'):
        everything(root)


def test_a_picture_in_two_splits_is_an_error(write: Write) -> None:
    root = write('voc_cvat')
    lists = root / 'ImageSets/Main'
    (lists / 'default.txt').rename(lists / 'train.txt')
    (lists / 'val.txt').write_text('3\n')
    with pytest.raises(UserError, match=r'1 pictures are in train\.txt and in .*val\.txt: 3'):
        everything(root)
    (lists / 'val.txt').write_text('3\n3\n')
    with pytest.raises(UserError, match='more than once'):
        everything(root)
    root = write('coco_cvat')
    annotations = root / 'annotations'
    (annotations / 'instances_default.json').rename(annotations / 'train.json')
    shutil.copy(annotations / 'train.json', annotations / 'val.json')
    with pytest.raises(UserError, match='12 pictures are both learnt and scored: '):
        everything(root)
    root = write('csv_plain')
    head, *lines = (root / 'boxes.csv').read_text().splitlines()
    lines = [f'{line},{"train" if place % 2 else "val"}' for place, line in enumerate(lines)]
    (root / 'boxes.csv').write_text('\n'.join([f'{head},split', *lines]))
    with pytest.raises(UserError, match='both learnt and scored'):
        everything(root)
    root = write('labelme')
    for split in ('train', 'val'):
        (root / split).mkdir()
        shutil.move(root / f'{2 + (split == "val")}.json', root / split / '3.json')
    content = json.loads((root / 'train/3.json').read_text())
    (root / 'train/3.json').write_text(json.dumps({**content, 'imagePath': '../3.png'}))
    with pytest.raises(UserError, match=r'1 pictures are both learnt and scored: .*3\.png'):
        everything(root)
    root = write('yolo_fiftyone')
    (root / 'train.txt').write_text('images/train/3.png\nimages/train/4.png\n')
    (root / 'val.txt').write_text('images/train/3.png\n')
    (root / 'dataset.yaml').write_text('names: [red, green]\ntrain: train.txt\nval: val.txt\n')
    with pytest.raises(UserError, match=r'images/train/3\.png is in train and in val'):
        everything(root)


def test_a_yaml_runs_no_code_and_is_asked_for_names(write: Write, tmp_path: Path) -> None:
    root = write('yolo_roboflow')
    planted = tmp_path / 'planted'
    (root / 'data.yaml').write_text(f'names: !!python/object/apply:os.system ["touch {planted}"]\n')
    with pytest.raises(UserError, match=r'data\.yaml is no YAML'):
        everything(root)
    assert not planted.exists()
    for text in ('', 'nc: 2\n'):
        (root / 'data.yaml').write_text(text)
        with pytest.raises(UserError, match='12 label files of YOLO and no list of classes'):
            everything(root)
    (root / 'data.yaml').write_text('names: {0: red, 2: green}\n')
    with pytest.raises(UserError, match='names must count from 0 without a gap, got 0, 2'):
        everything(root)
