"""Every kind of fault is planted, all at once for a task, and every one is found; clean data give none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from falconet.doctor.catalogue import KINDS
from falconet.doctor.examine import Examination

Planted = dict[str, str]  # kind -> what an example must name


def turned(path: Path) -> None:
    """Give a picture the note that it is to be turned by half."""
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(path) as picture:
        picture.load()
        picture.save(path, exif=exif)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def near_copy(source: Path, target: Path) -> None:
    image = cv2.resize(cv2.imread(str(source)), (140, 105), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 70])


def plant_in_pictures(data: Path) -> Planted:
    train, val = data / 'train', data / 'val'
    cut(train / 'ant/1.png')
    (train / 'bee/1.png').write_bytes(b'')
    shutil.copy(train / 'ant/2.png', val / 'ant/copy.png')
    near_copy(train / 'ant/3.png', val / 'ant/near.jpg')
    shutil.copy(train / 'ant/4.png', train / 'ant/twin.png')
    near_copy(train / 'ant/5.png', train / 'ant/nearly.jpg')
    shutil.copy(train / 'bee/2.png', train / 'ant/which.png')
    Image.open(train / 'ant/6.png').convert('L').save(train / 'ant/6.png')
    Image.open(train / 'ant/7.png').convert('CMYK').save(train / 'ant/7.jpg')
    (train / 'ant/7.png').unlink()
    Image.open(train / 'ant/8.png').convert('RGBA').save(train / 'ant/8.png')
    deep = cv2.imread(str(train / 'ant/9.png')).astype(np.uint16) * 257
    cv2.imwrite(str(train / 'ant/9.png'), deep)
    Image.open(train / 'ant/10.png').resize((60, 45)).save(train / 'ant/10.png')
    Image.open(train / 'ant/11.png').resize((400, 170)).save(train / 'ant/11.png')
    for folder, name in ((train, 'butterfly'), (val, 'buterfly')):
        (folder / name).mkdir()
        shutil.copy(folder / 'ant/0.png', folder / name / 'one.png')
        cv2.imwrite(str(folder / name / 'one.png'), cv2.imread(str(folder / 'ant/0.png'))[::-1])
    return {
        'truncated': 'ant/1.png',
        'unreadable': 'bee/1.png: empty file',
        'copies_between_splits': 'copy.png is ',
        'near_copies_between_splits': 'near.jpg is nearly ',
        'copies_in_training': 'twin.png',
        'near_copies_in_training': 'nearly.jpg',
        'copies_of_two_classes': 'which.png',
        'grey': '6.png',
        'cmyk': '7.jpg',
        'transparent': '8.png',
        'sixteen_bit': '9.png',
        'small': '10.png: 60x45',
        'shape': '11.png: 400x170',
        'class_misspelt': "'butterfly'",
        'class_in_one_split': 'butterfly: no folder in val',
        'class_absent_in_training': 'buterfly: 0 pictures, 1 in validation',
        'class_absent_in_validation': 'butterfly: 0 pictures, 1 in training',
        'class_rare': 'butterfly: 1',
    }


def plant_in_boxes(coco: object) -> Planted:
    add = coco.add_box  # type: ignore[attr-defined]
    root: Path = coco.root  # type: ignore[attr-defined]
    add('train', 1, 1, 500, 500, 50, 50)
    add('train', 2, 1, 100, 20, 300, 60)
    add('train', 3, 1, 30, 30, 0, 20)
    add('train', 4, 1, float('nan'), 30, 20, 20)
    add('train', 5, 1, 5, 5, 2, 60)
    add('train', 6, 2, 20, 20, 80, 70)
    for image in range(7, 17):
        add('train', image, 1, 60, 60, 9, 8)
    turned(root / 'train/train20.jpg')
    coco.name_picture('train', 'gone.jpg')  # type: ignore[attr-defined]
    odd = coco.add_picture('train', 'odd.jpg', 900, (100, 100))  # type: ignore[attr-defined]
    add('train', odd, 1, 20, 20, 60, 60)
    coco.add_picture('train', 'more.jpg', 901)  # type: ignore[attr-defined]
    coco.content['train']['images'].pop()  # type: ignore[attr-defined]
    coco.name_picture('train', '../val/val3.jpg')  # type: ignore[attr-defined]
    for folder in ('a', 'b'):
        coco.add_picture('train', f'{folder}/same.jpg', 902 + ord(folder))  # type: ignore[attr-defined]
        coco.content['train']['images'].pop()  # type: ignore[attr-defined]
    coco.name_picture('train', 'same.jpg')  # type: ignore[attr-defined]
    coco.content['val']['categories'][0]['name'] = 'house_cat'  # type: ignore[attr-defined]
    coco.write()  # type: ignore[attr-defined]
    return {
        'boxes_outside': '500, 500, 550, 550',
        'boxes_reach_out': '100, 20, 400, 80',
        'boxes_empty': '30, 30, 30, 50',
        'boxes_broken': 'nan',
        'boxes_tiny': '5, 5, 7, 65',
        'boxes_double': 'dog 20, 20, 100, 90',
        'boxes_like_no_default': '60, 60, 69, 68',
        'exif_beside_boxes': 'train20.jpg: orientation 3',
        'annotations_without_picture': 'gone.jpg',
        'other_size': 'odd.jpg: 160x120, 100x100 by its annotations',
        'pictures_unlabelled': 'more.jpg',
        'pictures_in_two_splits': 'val3.jpg',
        'names_double': 'a/same.jpg or train/b/same.jpg',
        'class_misspelt': "'house cat'",
        'class_absent_in_training': 'house_cat',
        'class_absent_in_validation': 'house cat',
    }


def plant_in_masks(root: Path) -> Planted:
    def mask(name: str, values: np.ndarray) -> None:
        cv2.imwrite(str(root / f'masks/train/{name}.png'), values)

    plain = cv2.imread(str(root / 'masks/train/0.png'), cv2.IMREAD_UNCHANGED)
    mask('1', np.where(plain == 1, 9, plain).astype(np.uint8))
    mask('2', plain[:60])
    mask('3', np.full_like(plain, 255))
    mask('4', np.stack([plain * 50, plain, plain], axis=2))
    mask('lost', plain)
    (root / 'masks/train/5.png').unlink()
    turned(root / 'images/train/6.jpg')
    (root / 'classes.txt').write_text('background\nroad\nsign\nwire\n')
    for path in (root / 'masks').glob('*/[78].png'):
        thin = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        thin[0, 0] = 3
        cv2.imwrite(str(path), thin)
    val = cv2.imread(str(root / 'masks/val/0.png'), cv2.IMREAD_UNCHANGED)
    val[0, 0] = 3
    cv2.imwrite(str(root / 'masks/val/0.png'), val)
    return {
        'masks_unexpected': '1.png: 9; there are 4 classes',
        'masks_other_size': '2.png: 160x60 pixels, its picture 160x120',
        'masks_empty': '3.png',
        'masks_unreadable': '4.png: a mask of colours',
        'annotations_without_picture': 'masks/train/lost.png',
        'pictures_unlabelled': 'images/train/5.jpg',
        'exif_beside_masks': '6.jpg: orientation 3',
        'class_small_area': 'wire: 0.00',
        'class_rare': 'wire: 2',
    }


def plant_in_lists(root: Path) -> Planted:
    """VOC's lists over an XML a picture."""
    (root / 'ImageSets/Main/train.txt').write_text('0\n1\n2\n3\n3\n')
    return {'names_twice_in_a_list': 'train.txt: 3, 2 times'}


def plant_in_outlines(coco: object) -> Planted:
    content: dict[str, dict] = coco.content  # type: ignore[attr-defined]
    content['train']['annotations'][0]['segmentation'] = [[10, 10, 20, 20]]
    content['test'] = {**content['val'], 'categories': []}
    coco.write()  # type: ignore[attr-defined]
    return {'outlines_broken': 'object 1 of ', 'split_not_readable': "instances_test.json: 'categories' is"}


def check(result: Examination, planted: Planted) -> None:
    """Exactly what was planted is found, and each says how often, where, what follows and what to do."""
    found = {each.kind: each for each in result.findings}
    assert found.keys() == planted.keys(), (planted.keys() - found.keys(), found.keys() - planted.keys())
    for kind, place in planted.items():
        each = found[kind]
        assert any(place in example for example in each.examples), (kind, each.examples)
        assert each.count >= 1
        assert each.consequence
        assert each.fix
        assert '{' not in str(each)


def test_all_that_is_planted_in_pictures_of_classes_is_found(
    pictures: Path, examined: Callable[..., Examination]
) -> None:
    assert examined('linear_folder', pictures).findings == []
    check(examined('linear_folder', pictures), {})
    planted = plant_in_pictures(pictures)
    check(examined('linear_folder', pictures), planted)


def test_all_that_is_planted_in_boxes_is_found(boxes: object, examined: Callable[..., Examination]) -> None:
    root = boxes.root  # type: ignore[attr-defined]
    check(examined('ssdlite_folder', root), {})
    planted = plant_in_boxes(boxes)
    result = examined('ssdlite_folder', root)
    # The copy of val3.jpg is one picture, and those of one name are the first of them.
    check(result, planted)
    fix = next(each.fix for each in result.findings if each.kind == 'boxes_like_no_default')
    assert re.search(r'model\.head\.min_scale=0\.\d+: \d+%', fix)


def test_all_that_is_planted_in_masks_is_found(masks: Path, examined: Callable[..., Examination]) -> None:
    check(examined('deeplabv3_folder', masks), {})
    check(examined('deeplabv3_folder', masks), {})
    planted = plant_in_masks(masks)
    check(examined('deeplabv3_folder', masks), planted)


def test_what_is_planted_in_lists_and_outlines_is_found(
    boxes: object, tmp_path: Path, examined: Callable[..., Examination]
) -> None:
    from falconet.datasets.layouts import writers

    root = boxes.root  # type: ignore[attr-defined]
    check(examined('deeplabv3_folder', root), {})
    planted = plant_in_outlines(boxes)
    check(examined('deeplabv3_folder', root), planted)
    (root / 'annotations/instances_test.json').unlink()
    datasets = examined('ssdlite_folder', root).datasets
    parts = {part: each.annotations for part, each in datasets.items()}
    writers.write_boxes(parts, tmp_path / 'voc', 'voc')
    check(examined('ssdlite_folder', tmp_path / 'voc'), {})
    lists = tmp_path / 'voc/ImageSets/Main/train.txt'
    lists.write_text(f'{lists.read_text()}train3\n')
    check(examined('ssdlite_folder', tmp_path / 'voc'), {'names_twice_in_a_list': 'train3, 2 times'})


def test_every_kind_of_the_catalogue_is_planted_here(
    pictures: Path, boxes: object, masks: Path, tmp_path: Path
) -> None:
    planted = {
        *plant_in_pictures(pictures),
        *plant_in_boxes(boxes),
        *plant_in_masks(masks),
        *plant_in_outlines(boxes),
        'names_twice_in_a_list',
    }
    assert len(planted) >= 25
    assert KINDS.keys() - planted == {'annotations'}  # for what a reader notes and nobody has named


def test_faults_are_found_among_photographs(
    real_data: Path, tmp_path: Path, examined: Callable[..., Examination]
) -> None:
    content = json.loads((real_data / 'coco/annotations/instances_train2017.json').read_text())
    data = tmp_path / 'photographs'
    for split, start, count in (('train', 0, 24), ('val', 24, 6)):
        (data / split / 'thing').mkdir(parents=True)
        (data / split / 'stuff').mkdir()
        for index, image in enumerate(content['images'][start : start + count]):
            source = real_data / 'coco/train2017' / image['file_name']
            shutil.copy(source, data / split / ('thing', 'stuff')[index % 2])
    usual = {each.kind for each in examined('linear_folder', data).findings}
    assert usual <= {'shape', 'small', 'grey'}  # which photographs may be
    names = sorted((data / 'train/thing').iterdir())
    shutil.copy(names[0], data / 'val/thing/copy.jpg')
    near_copy(names[1], data / 'val/thing/near.jpg')
    shutil.copy(names[2], data / 'train/stuff/which.jpg')
    cut(names[3])
    kinds = {
        'copies_between_splits',
        'near_copies_between_splits',
        'copies_of_two_classes',
        'copies_in_training',
        'truncated',
    }
    found = {each.kind: each for each in examined('linear_folder', data).findings}
    assert kinds <= found.keys()
    assert found.keys() - kinds <= usual
    assert all(found[kind].count == 1 for kind in kinds)


def test_kinds_say_what_follows_and_what_to_do() -> None:
    for kind in KINDS.values():
        assert kind.consequence[0].isupper()
        assert kind.fix[0].isupper()
        assert not kind.fix.endswith('.')
        assert kind.repaired == ('--fix' in kind.fix) or kind.repaired
