"""COCO's files: what is written is read back, and every entry is checked once for all who read."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from falconet.core.errors import UserError
from falconet.datasets.annotations import Annotations, Problems
from falconet.datasets.formats.coco import read_coco, read_objects, write_coco
from falconet.datasets.formats.coco_values import unpack_runs


def same(one: Annotations, other: Annotations) -> None:
    """Assert that all fields of two are equal."""
    for field in dataclasses.fields(Annotations):
        ours, theirs = (list(getattr(each, field.name)) for each in (one, other))
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


def test_what_is_written_is_read_back(coco_folder: Path, tmp_path: Path) -> None:
    """Boxes beyond the image too, fractions of pixels, images in folders, and an image without objects."""
    path, images = coco_folder / 'annotations/train.json', coco_folder / 'train'
    content = json.loads(path.read_text())
    content['images'][0]['file_name'] = 'below/x.png'
    for number, each in enumerate(content['annotations']):
        each['bbox'] = [0.1 * number, 31.37 - number, 7.77 + number, 150.03 / (1 + number)]
    path.write_text(json.dumps(content))
    first = read_coco([path], [images], categories=None, problems=Problems())
    write_coco(tmp_path / 'again.json', first, images)
    again = read_coco([tmp_path / 'again.json'], [images], categories=None, problems=Problems())
    same(again, first)


def test_outlines_are_written_and_read_with_their_objects(coco_folder: Path, tmp_path: Path) -> None:
    path, images = coco_folder / 'annotations/train.json', coco_folder / 'train'
    outlines = [each['segmentation'] for each in json.loads(path.read_text())['annotations']]
    found = read_coco([path], [images], categories=None, problems=Problems())
    write_coco(tmp_path / 'again.json', found, images, outlines=outlines)
    again = read_objects(
        [tmp_path / 'again.json'], [images], categories=['red'], problems=Problems(), outlines=True
    )
    assert again.outlines == [each for each, label in zip(outlines, found.labels, strict=True) if label == 0]
    assert again.columns['owners'].tolist() == [0, *range(2, 12)]


def read_changed(path: Path, entry: dict[str, Any], **options: Any) -> Problems:
    content = json.loads(path.read_text())
    content['annotations'][0] |= entry
    path.write_text(json.dumps(content))
    problems = Problems()
    read_objects([path], [path.parent], categories=None, problems=problems, **options)
    return problems


def test_an_object_without_an_outline_matters_to_those_who_want_outlines(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    assert not read_changed(path, {'segmentation': []}).found
    problems = read_changed(path, {}, outlines=True)
    assert str(problems) == f'1 objects dropped, without an outline ({path} object 100)'
    with pytest.raises(UserError, match=r"and 'segmentation' \(TypeError.*got \{'id': 100"):
        read_changed(path, {'segmentation': [[0, 0, 1, 0, 1, 1]], 'area': []}, outlines=True)


def test_a_category_asked_for_twice_is_refused(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    with pytest.raises(UserError, match="names 'red' more than once"):
        read_coco([path], [coco_folder], categories=['red', 'red'], problems=Problems())


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'bbox': '1234'}, "bbox should be a list of four numbers, got '1234'"),
        ({'bbox': {'x': 1, 'y': 2, 'width': 3, 'height': 4}}, 'bbox should be a list of four numbers'),
        ({'bbox': [1, 2, 3]}, 'bbox should be a list of four numbers'),
        ({'bbox': [1, 2, True, 3]}, 'bbox should be a number, got True'),
        ({'bbox': [1, 2, None, 3]}, 'bbox should be a number, got None'),
        ({'category_id': 3.7}, r'category_id should be a whole number, got 3\.7'),
        ({'category_id': True}, 'category_id should be a whole number, got True'),
        ({'image_id': 5.5}, r'image_id should be a whole number, got 5\.5'),
        ({'image_id': float('nan')}, 'image_id should be a whole number, got nan'),
        ({'id': False}, 'id should be a whole number, got False'),
        ({'id': float('inf')}, 'id should be a whole number, got inf'),
        ({'area': [4]}, r'area should be a number, got \[4\]'),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_file_and_object(
    coco_folder: Path, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf'train\.json: each annotation needs .*{message}.* got {{.id.: '):
        read_changed(coco_folder / 'annotations/train.json', entry)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'height': 10**9}, 'height and width must be 1 to 1,000,000, got 1000000000 and 80'),
        ({'width': float('inf')}, 'width should be a whole number, got inf'),
        ({'width': 80.5}, r'width should be a whole number, got 80\.5'),
        ({'height': True}, 'height should be a whole number, got True'),
        ({'height': -60}, 'height and width must be 1 to'),
        ({'id': 5.5}, r'id should be a whole number, got 5\.5'),
        ({'id': 10**30}, 'id does not fit 64 bits'),
        ({'file_name': '\ud8000.png'}, 'surrogates not allowed'),
        ({'file_name': 7, 'path': '0.png'}, 'TypeError'),
    ],
)
def test_an_image_of_a_size_that_none_has_is_named(
    coco_folder: Path, entry: dict[str, Any], message: str
) -> None:
    path = coco_folder / 'annotations/train.json'
    content = json.loads(path.read_text())
    content['images'][0] |= entry
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"train\.json: each image needs .*{message}.* got {{'id': .*0\.png"):
        read_coco([path], [coco_folder], categories=None, problems=Problems())


def test_whole_numbers_with_a_fraction_of_zero_or_as_text_are_understood(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    plain = read_coco([path], [coco_folder], categories=None, problems=Problems())
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        entry |= {'id': float(entry['id']), 'category_id': str(entry['category_id'])}
        entry |= {'bbox': [str(value) for value in entry['bbox']], 'image_id': float(entry['image_id'])}
    for entry in content['images']:
        entry |= {'height': 60.0, 'width': '80'}
    # A byte-order mark too, as editors of Windows write it.
    path.write_text(json.dumps(content), encoding='utf-8-sig')
    same(read_coco([path], [coco_folder], categories=None, problems=Problems()), plain)


def test_a_key_that_occurs_twice_is_named(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    path.write_text(path.read_text().replace('"bbox": ', '"bbox": [1, 2, 3, 4], "bbox": ', 1))
    with pytest.raises(UserError, match=r"train\.json: the key 'bbox' occurs twice in one entry, {'id': 100"):
        read_coco([path], [coco_folder], categories=None, problems=Problems())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'bbox': [0.25, 0.5, 0.25, 0.125]}, r'boxes dropped, in the first pixel \(fractions of the image'),
        ({'bbox': [float('nan'), 1, 2, 3]}, 'boxes dropped, not finite'),
        (
            {'bbox': [1e18, 1, 2, 3]},
            r'boxes dropped, farther out than 1,000,000 .*0\.png object 100',
        ),
        ({'bbox': [1, 1, 1e18, 3]}, 'boxes dropped, farther out than'),
        ({'area': float('nan')}, 'areas replaced by that of the box'),
        ({'area': float('inf')}, 'areas replaced by that of the box'),
        ({'area': -4}, 'areas replaced by that of the box'),
    ],
)
def test_boxes_and_areas_that_cannot_be_are_counted_and_named(
    coco_folder: Path, change: dict[str, Any], message: str
) -> None:
    path = coco_folder / 'annotations/train.json'
    content = json.loads(path.read_text())
    content['annotations'][0] |= change
    path.write_text(json.dumps(content))
    problems = Problems()
    found = read_coco([path], [coco_folder], categories=None, problems=problems)
    assert re.match(f'1 {message}', str(problems))
    assert len(problems.found) == 1
    assert np.isfinite(found.areas).all()
    assert (found.areas >= 0).all()


def test_a_file_of_boxes_in_fractions_is_refused(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        x, y, width, height = entry['bbox']
        entry['bbox'] = [x / 80, y / 60, width / 80, height / 60]
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r'all 22 boxes lie in the first pixel .*0\.png object 100: xyxy .*pixel'
    ):
        read_coco([path], [coco_folder], categories=None, problems=Problems())


GOOD = [1, 1, 30, 1, 30, 30]
RUNS = {'size': [60, 80], 'counts': [100, 50, 4650]}
NOT_RUNS = 'run lengths that are neither whole numbers nor packed'


@pytest.mark.parametrize(
    ('outline', 'reason'),
    [
        ([[1, 1, 30, 1, 30]], 'a polygon of 5 numbers, which are no pairs'),
        ([[1, 1, 30, 30]], 'a polygon of 2 points'),
        ([[]], 'a polygon of 0 points'),
        ([[1, 1, 30, 1, 30, float('nan')]], 'a polygon that is not finite'),
        ([[1, 1, 30, 1, 30, 1e18]], r'a polygon that reaches from 1 to 1e\+18, far beyond'),
        ([[1, 1, 30, 1, 30, 'x']], 'a polygon of what are no numbers'),
        ([[1, 1, 30, 1, [30], 5]], 'a polygon of what are no numbers'),
        ([[0, 0, 80, 60] * 400], 'a polygon whose edges are longer than those of all pixels'),
        (GOOD, r'a polygon should be a list \[x, y, x, y, ...\], got .1.'),
        ('polygon', "neither polygons nor run lengths but 'polygon'"),
        (7, "neither polygons nor run lengths but '7'"),
        ({**RUNS, 'size': [80, 60]}, r'run lengths of a picture of \[80, 60\] \(height, width\), its own is'),
        ({**RUNS, 'size': 7}, r'run lengths of a picture of 7 \(height, width\), its own is'),
        ({**RUNS, 'counts': [100, 50]}, 'run lengths of 150 pixels, its picture has 4,800'),
        ({**RUNS, 'counts': [10**12]}, 'run lengths of 1,000,000,000,000 pixels'),
        ({**RUNS, 'counts': [4900, -100]}, 'run lengths of 4,800 pixels'),
        ({**RUNS, 'counts': [1.5, 4798.5]}, NOT_RUNS),
        ({**RUNS, 'counts': 'zzz'}, NOT_RUNS),
        ({**RUNS, 'counts': '12'}, 'run lengths of 3 pixels'),
        ({'size': [60, 80]}, NOT_RUNS),
    ],
)
def test_an_outline_that_cannot_be_drawn_is_found_on_reading(
    coco_folder: Path, outline: Any, reason: str
) -> None:
    path = coco_folder / 'annotations/train.json'
    problems = read_changed(path, {'segmentation': outline}, outlines=True)
    where = rf'{path} object 100 of .*0\.png: {reason}'
    assert re.search(rf'1 objects dropped, whose outline cannot be drawn \({where}', str(problems))


def test_an_object_keeps_the_good_part_of_its_outline(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    problems = Problems()
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation'] = [[1, 2], GOOD]
    path.write_text(json.dumps(content))
    found = read_objects([path], [path.parent], categories=None, problems=problems, outlines=True)
    assert found.outlines[0] == [GOOD]
    assert '1 objects drawn without a part of their outline' in str(problems)


@settings(max_examples=200, deadline=None)
@given(runs=st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_run_lengths_are_unpacked_as_pycocotools_packs_them(runs: list[int]) -> None:
    total = sum(runs)
    packed = mask.frPyObjects({'size': [1, total], 'counts': runs}, 1, total)
    assert unpack_runs(packed['counts'].decode()) == runs
