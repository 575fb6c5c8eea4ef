"""Roboflow's exports begin with a category that is none: the group of all others, without an object."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falconet.core.errors import UserError
from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.samples import SampleKey
from falconet.doctor.convert import read_folder

Write = Callable[[str], Path]
PARENT = {'id': 0, 'name': 'shapes', 'supercategory': 'none'}


def change(root: Path, split: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = root / split / '_annotations.coco.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def with_parent(content: dict[str, Any], name: str = 'shapes') -> None:
    children = [{**each, 'supercategory': name} for each in content['categories']]
    content['categories'] = [{**PARENT, 'name': name}, *children]


@pytest.fixture
def root(write: Write) -> Path:
    """As exported: train and valid, each with the parent."""
    root = write('coco_roboflow')
    shutil.copytree(root / 'train', root / 'valid')
    for split in ('train', 'valid'):
        change(root, split, with_parent)
    return root


def test_the_parent_of_all_others_is_no_class_and_the_log_says_so(root: Path) -> None:
    found = DetectionFolder(str(root), training=True)
    assert found.classes == ('red', 'green')
    assert 'no class, but the group of all others, without an object: shapes' in str(found)
    for split in ('train', 'valid'):
        change(root, split, lambda content: content['categories'].pop(0))
    plain = DetectionFolder(str(root), training=True)
    assert 'no class' not in str(plain)
    for index in range(len(plain)):
        ours, theirs = found[SampleKey(index, 0)], plain[SampleKey(index, 0)]
        assert ours.target['labels'].tolist() == theirs.target['labels'].tolist()  # type: ignore[union-attr]
    assert found.annotations.category_ids == plain.annotations.category_ids


def test_conversion_leaves_it_out_too(root: Path) -> None:
    parts = read_folder(str(root), 'yolo', None)
    assert [each.classes for each in parts.values()] == [('red', 'green')] * 2


def test_a_class_may_have_its_parents_name(root: Path) -> None:
    for split in ('train', 'valid'):
        change(root, split, lambda content: content['categories'].pop(0))
        change(root, split, lambda content: with_parent(content, 'red'))
    assert DetectionFolder(str(root)).classes == ('red', 'green')
    assert DetectionFolder(str(root), classes=['red', 'green']).classes == ('red', 'green')


def test_one_object_in_any_split_makes_it_a_class(root: Path) -> None:
    def used(content: dict[str, Any]) -> None:
        content['annotations'][0]['category_id'] = '0'

    change(root, 'valid', used)
    assert DetectionFolder(str(root), training=True).classes == ('shapes', 'red', 'green')
    assert DetectionFolder(str(root)).classes == ('shapes', 'red', 'green')


def test_a_group_of_some_is_a_class_like_any(root: Path) -> None:
    for split in ('train', 'valid'):
        change(root, split, lambda content: content['categories'][1].update(supercategory='other'))
    assert DetectionFolder(str(root), training=True).classes == ('shapes', 'red', 'green')


def test_cocos_own_person_is_its_own_group(root: Path) -> None:
    for split in ('train', 'valid'):
        change(root, split, lambda content: content['categories'][0].update(supercategory='shapes'))
    assert DetectionFolder(str(root), training=True).classes == ('shapes', 'red', 'green')


def test_a_model_that_has_learnt_it_keeps_it(root: Path) -> None:
    known = ['shapes', 'red', 'green']
    assert DetectionFolder(str(root), classes=known).classes == tuple(known)
    with pytest.raises(UserError):
        DetectionFolder(str(root), classes=['other', 'red', 'green'])
