"""COCO's objects as masks of VOC's classes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from falconet.core.errors import UserError
from falconet.datasets.segmentation.coco import COCO_NAMES, CocoAsVOC, draw_mask
from falconet.datasets.segmentation.dataset import VOC_CLASSES


def write_photo(path: Path, size: tuple[int, int], mode: str = 'RGB') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), 128 if mode == 'L' else None).save(path)
    return path


def write_coco(root: Path, annotations: list[dict], images: int = 2) -> None:
    names = [COCO_NAMES.get(name, name) for name in VOC_CLASSES[1:]]
    content = {
        'images': [{'id': 5 + i, 'file_name': f'{i}.jpg', 'height': 40, 'width': 50} for i in range(images)],
        'annotations': [{'id': i, 'iscrowd': 0, **each} for i, each in enumerate(annotations)],
        'categories': [{'id': 3 * i + 7, 'name': name} for i, name in enumerate([*names, 'pizza'])],
    }
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    for index in range(images):
        write_photo(root / f'train2017/{index}.jpg', (40, 50))


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_coco_objects_become_vocs_classes(tmp_path: Path) -> None:
    """A cat, a dog over part of it, a pizza (no kind of VOC), and a crowd of persons."""
    category = {name: 3 * i + 7 for i, name in enumerate([*VOC_CLASSES[1:], 'pizza'])}
    crowd = np.zeros((40, 50), np.uint8, order='F')
    crowd[30:, :10] = 1
    lengths = np.flatnonzero(np.diff(np.concatenate([[0], crowd.ravel(order='F')]))).tolist()
    counts = np.diff([0, *lengths, crowd.size]).tolist()
    write_coco(
        tmp_path,
        [
            {
                'image_id': 5,
                'category_id': category['cat'],
                'area': 400,
                'segmentation': rectangle(0, 0, 20, 20),
            },
            {
                'image_id': 5,
                'category_id': category['dog'],
                'area': 400,
                'segmentation': rectangle(10, 0, 30, 20),
            },
            {
                'image_id': 5,
                'category_id': category['pizza'],
                'area': 900,
                'segmentation': rectangle(30, 20, 50, 40),
            },
            {
                'image_id': 5,
                'category_id': category['person'],
                'area': 100,
                'iscrowd': 1,
                'segmentation': {'size': [40, 50], 'counts': counts},
            },
        ],
    )
    data = CocoAsVOC(str(tmp_path), min_area=700)
    assert len(data) == 1
    assert '1 with too little of them left out' in str(data)
    mask = data.read_mask(0)
    assert mask[10, 5] == VOC_CLASSES.index('cat')
    assert mask[10, 25] == VOC_CLASSES.index('dog')
    assert mask[10, 15] == 255  # which of the two lies in front is not known
    assert mask[30, 40] == 0
    assert mask[35, 5] == 255
    with pytest.raises(UserError, match=r'none of the 2 images .* has 900 pixels'):
        CocoAsVOC(str(tmp_path), min_area=900)
    assert data.class_weights()[1] == 1.0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda c: c.update(categories=[{'id': 1, 'name': 'cat'}]),
            r"no category 'airplane', 'bicycle'.*Known: cat",
        ),
        (lambda c: c.pop('images'), "no list 'images'"),
        (lambda c: c['annotations'][0].pop('segmentation'), r"each annotation .*KeyError\('segmentation'\)"),
        (lambda c: c['annotations'][0].update(segmentation=[]), 'none of the 2 images'),
        (lambda c: c['images'][0].pop('height'), 'each image needs .*KeyError.*height'),
        (lambda c: c['images'][0].update(file_name='x.jpg'), r'1 of 1 images .* are not in .*x\.jpg'),
    ],
)
def test_what_is_wrong_with_coco_is_said(tmp_path: Path, change: Callable, message: str) -> None:
    annotation = {'image_id': 5, 'category_id': 7, 'area': 2000, 'segmentation': rectangle(0, 0, 50, 40)}
    write_coco(tmp_path, [annotation])
    path = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        CocoAsVOC(str(tmp_path))


def test_real_coco_masks_equal_those_of_the_official_api(
    real_data: Path, capsys: pytest.CaptureFixture
) -> None:
    data = CocoAsVOC(str(real_data / 'coco'), 'val2017')
    assert len(data) > 20
    api = COCO(str(real_data / 'coco/annotations/instances_val2017.json'))
    label = {
        api.getCatIds(catNms=[COCO_NAMES.get(name, name)])[0]: index
        for index, name in enumerate(VOC_CLASSES)
        if index
    }
    for index, path in enumerate(data.paths):
        mask = data.read_mask(index)
        annotations = api.imgToAnns[int(Path(path).stem)]
        layers = [
            (label[a['category_id']], api.annToMask(a)) for a in annotations if a['category_id'] in label
        ]
        crowds = [api.annToMask(a) for a in annotations if a['iscrowd'] and a['category_id'] in label]
        assert len(layers) > 0
        claimed = np.stack([inside * value for value, inside in layers])
        alone = (claimed.max(0) == np.where(claimed > 0, claimed, 99).min(0)) & ~np.any(
            [*crowds, claimed[0] < 0], 0
        )
        np.testing.assert_array_equal(mask[alone], claimed.max(0)[alone])
        np.testing.assert_array_equal(mask[claimed.max(0) == 0], 0)
        assert set(np.unique(mask)) <= {0, 255, *(value for value, _ in layers)}


def test_outlines_of_the_same_kind_may_overlap() -> None:
    objects = [{'label': 8, 'crowd': False, 'outline': rectangle(x, 0, x + 20, 20)} for x in (0, 10)]
    assert set(np.unique(draw_mask(objects, 40, 50))) == {0, 8}


def test_ids_of_coco_written_as_strings_are_understood(tmp_path: Path) -> None:
    write_coco(
        tmp_path, [{'image_id': 5, 'category_id': 7, 'area': 2000, 'segmentation': rectangle(0, 0, 50, 40)}]
    )
    path = tmp_path / 'annotations/instances_train2017.json'
    plain = CocoAsVOC(str(tmp_path))
    content = json.loads(path.read_text())
    for entry in content['images'] + content['categories']:
        entry['id'] = str(entry['id'])
    for entry in content['annotations']:
        entry |= {key: str(entry[key]) for key in ('image_id', 'category_id')}
    path.write_text(json.dumps(content))
    found = CocoAsVOC(str(tmp_path))
    assert len(found) == len(plain) == 1
    np.testing.assert_array_equal(found.read_mask(0), plain.read_mask(0))
