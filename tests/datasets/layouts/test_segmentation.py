"""Masks and outlines of every tool's export are found as they are, and mean the same pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from falconet.core.errors import UserError
from falconet.datasets.formats.masks import write_mask
from falconet.datasets.segmentation.folder import SegmentationFolder

COLOURS = {'background': (0, 0, 0), 'red': (250, 10, 10), 'green': (10, 250, 10)}
Write = Callable[[str], Path]


def everything(root: Path, **options: Any) -> SegmentationFolder:
    return SegmentationFolder(str(root), holdout=0, training=True, **options)


def maps(dataset: SegmentationFolder) -> dict[str, np.ndarray]:
    return {Path(path).stem: dataset.read_mask(index) for index, path in enumerate(dataset.paths)}


@pytest.fixture
def outlined(exported: Any, write: Write) -> Path:
    """COCO polygons around every box."""
    for each in exported.content['annotations']:
        x, y, w, h = each['bbox']
        each['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return write('coco_cvat')


@pytest.fixture
def expected(outlined: Path) -> dict[str, np.ndarray]:
    return maps(everything(outlined))


def same(dataset: SegmentationFolder, expected: dict[str, np.ndarray]) -> None:
    assert dataset.classes == ('background', 'red', 'green')
    found = maps(dataset)
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        np.testing.assert_array_equal(found[name], each)


def test_outlines_are_drawn_and_the_rest_is_background(outlined: Path, expected: dict) -> None:
    dataset = everything(outlined)
    assert dataset.classes == ('background', 'red', 'green')
    assert set(np.unique(np.concatenate([each.ravel() for each in expected.values()]))) <= {0, 1, 2, 255}
    assert 'COCO JSON' in str(dataset)
    assert len(dataset.class_weights()) == 3


def test_yolo_segments_and_labelme_polygons_mean_the_same_pixels(write: Write, expected: dict) -> None:
    same(everything(write('yolo_segments')), expected)
    found = everything(write('labelme'))  # whose classes are sorted
    assert found.classes == ('background', 'green', 'red')
    swapped = np.arange(256, dtype=np.uint8)
    swapped[[1, 2]] = [2, 1]
    for name, each in maps(found).items():
        np.testing.assert_array_equal(swapped[each], expected[name])


def test_run_lengths_mean_the_same_pixels(outlined: Path, expected: dict) -> None:
    from pycocotools import mask

    file = outlined / 'annotations/instances_default.json'
    content = json.loads(file.read_text())
    for each in content['annotations']:
        runs: Any = mask.merge(mask.frPyObjects(each['segmentation'], 60, 80))
        each['segmentation'] = {'size': [60, 80], 'counts': runs['counts'].decode()}
    file.write_text(json.dumps(content))
    same(everything(outlined), expected)


def as_folders(exported: Any, root: Path, expected: dict, images: str, masks: str, suffix: str = '') -> Path:
    exported.copy_pictures(root / images)
    (root / masks).mkdir(parents=True, exist_ok=True)
    for name, each in expected.items():
        write_mask(root / masks / f'{name}{suffix}.png', each)
    return root


LAYOUTS = [
    ('images', 'masks', '', 'classes.txt', 'background\nred\ngreen\n'),
    ('data', 'labels', '', 'classes.txt', '\ufeffbackground\r\nred\r\ngreen\r\n'),
    ('JPEGImages', 'SegmentationClass', '', 'classes.txt', 'background\nred\ngreen\n'),
    ('train/images', 'train/masks', '', 'train/classes.txt', 'background\nred\ngreen\n'),
    (
        'train',
        'train',
        '_mask',
        'train/_classes.csv',
        'Pixel Value, Class\n0, background\n1, red\n2, green\n',
    ),
]


@pytest.mark.parametrize(('images', 'masks', 'suffix', 'list_file', 'text'), LAYOUTS)
def test_masks_of_indices(
    images: str, masks: str, suffix: str, list_file: str, text: str, exported: Any, tmp_path: Path,
    expected: dict,
) -> None:  # fmt: skip
    root = as_folders(exported, tmp_path / 'own', expected, images, masks, suffix)
    (root / list_file).write_text(text, encoding='utf-8')
    same(everything(root), expected)
    learnt, scored = (SegmentationFolder(str(root), training=each) for each in (True, False))
    assert learnt.held_out == scored.held_out
    assert len(learnt) + len(scored) == 12


@pytest.mark.parametrize(
    ('file', 'line'),
    [
        ('labelmap.txt', '{0}:{1},{2},{3}::'),
        ('classes.txt', '{0} {1} {2} {3}'),
        ('classes.txt', '{0},#{1:02x}{2:02x}{3:02x}'),
    ],
)
def test_masks_of_colours_with_a_list(
    file: str, line: str, exported: Any, tmp_path: Path, expected: dict
) -> None:
    root = as_folders(exported, tmp_path / 'own', expected, 'JPEGImages', 'SegmentationClass')
    table = np.zeros((256, 3), np.uint8)
    table[:3] = list(COLOURS.values())
    table[255] = (224, 224, 192)
    for name, each in expected.items():
        Image.fromarray(table[each]).save(root / f'SegmentationClass/{name}.png')
    lines = ['# label:color_rgb:parts:actions', *(line.format(name, *each) for name, each in COLOURS.items())]
    (root / file).write_text('\n'.join(lines))
    same(everything(root), expected)
    strange = table[expected['3']]
    strange[0, :5] = (1, 2, 3)
    Image.fromarray(strange).save(root / 'SegmentationClass/3.png')
    with pytest.raises(UserError, match=r'3\.png: 5 pixels of colours that are not in the list: \(1, 2, 3\)'):
        everything(root)


def test_lists_of_imagesets_are_the_split(exported: Any, tmp_path: Path, expected: dict) -> None:
    root = as_folders(exported, tmp_path / 'own', expected, 'JPEGImages', 'SegmentationClass')
    (root / 'classes.txt').write_text('background\nred\ngreen\n')
    lists = root / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('0\n2\n3\n')
    (lists / 'val.txt').write_text('4\n5\n')
    assert len(SegmentationFolder(str(root), training=True)) == 3
    assert len(SegmentationFolder(str(root))) == 2
    (lists / 'val.txt').write_text('4\n3\n')
    with pytest.raises(UserError, match=r'3 are in train\.txt too'):
        SegmentationFolder(str(root))


def test_what_does_not_fit_is_named(exported: Any, tmp_path: Path, expected: dict) -> None:
    root = as_folders(exported, tmp_path / 'own', expected, 'images', 'masks')
    with pytest.raises(UserError, match=r'masks without a list of classes\. Write classes\.txt'):
        everything(root)
    (root / 'classes.txt').write_text('background\nred\n')
    with pytest.raises(UserError, match='masks cannot be used with 2 classes'):
        everything(root)
    (root / 'classes.txt').write_text('background\nred\ngreen\n')
    (root / 'masks/3.png').rename(root / 'masks/3.bmp')
    write_mask(root / 'masks/3.png', expected['3'])
    with pytest.raises(UserError, match=r'masks/3\.bmp and masks/3\.png are masks of one name'):
        everything(root)
    (root / 'masks/3.bmp').unlink()
    (root / 'masks/3.png').unlink()
    with pytest.raises(UserError, match=r'1 of 12 pictures have no mask of the same name: images/3\.png'):
        everything(root)
    with pytest.raises(UserError, match='holds no masks or outlines'):
        everything(tmp_path / 'own/images')
