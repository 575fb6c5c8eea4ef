"""Where data have train, val and test, all three are examined; a broken test stops nobody."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from falconet.doctor.examine import Examination, examine, write_repaired

Examine = Callable[..., Examination]


def kinds(result: Examination) -> dict[str, tuple[int, str]]:
    return {each.kind: (each.count, each.part) for each in result.findings}


def with_test(data: Path, *, source: str = 'val') -> Path:
    """Give class folders a test split of other pictures: mirrored ones."""
    for path in sorted((data / source).rglob('*.png')):
        target = data / 'test' / path.relative_to(data / source)
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.imread(str(path))[::-1, ::-1])
    return data / 'test'


def test_pictures_of_test_are_looked_at(pictures: Path, examined: Examine) -> None:
    test = with_test(pictures)
    result = examined('linear_folder', pictures)
    assert result.findings == []
    assert result.parts['test'].startswith('8 images in 2 classes')
    assert result.counts['test'] == {'ant': 4, 'bee': 4}
    (test / 'ant/0.png').write_bytes(b'')
    shutil.copy(pictures / 'train/bee/1.png', test / 'bee/copy.png')
    smaller = cv2.resize(cv2.imread(str(pictures / 'train/ant/3.png')), (140, 105))
    cv2.imwrite(str(test / 'ant/near.jpg'), smaller)
    shutil.copytree(test / 'bee', test / 'beetle')
    result = examined('linear_folder', pictures)
    assert kinds(result) == {
        'unreadable': (1, 'test'),
        'copies_between_splits': (1, 'test'),
        'near_copies_between_splits': (1, 'test'),
        'class_in_one_split': (1, 'the folder'),
    }
    assert 'beetle' in ' '.join(place for each in result.findings for place in each.examples)


def test_training_pictures_that_test_has_leave_training(
    pictures: Path, examined: Examine, tmp_path: Path
) -> None:
    test = with_test(pictures)
    shutil.copy(pictures / 'train/bee/1.png', test / 'bee/copy.png')
    shutil.copy(pictures / 'train/bee/2.png', pictures / 'val/bee/copy.png')
    _, steps = write_repaired(examined('linear_folder', pictures), tmp_path / 'out')
    assert sorted(steps) == [
        '1 training pictures left out, test has them',
        '1 training pictures left out, validation has them',
    ]
    repaired = examined('linear_folder', tmp_path / 'out')
    assert repaired.findings == []
    assert {part: len(each) for part, each in repaired.datasets.items()} == {'train': 22, 'val': 9, 'test': 9}


def test_boxes_of_test_are_looked_at(boxes: Any, examined: Examine) -> None:
    categories = [{'id': 1, 'name': 'house cat'}, {'id': 2, 'name': 'horse'}]
    boxes.content['test'] = {'images': [], 'annotations': [], 'categories': categories}
    for index in range(6):
        image = boxes.add_picture('test', f'test{index}.jpg', 700 + index)
        boxes.add_box('test', image, 1 + index % 2, 20, 20, 80, 70)
    boxes.add_box('test', 1, 1, 500, 500, 50, 50)
    boxes.name_picture('test', '../train/train3.jpg')
    boxes.write()
    result = examined('ssdlite_folder', boxes.root)
    assert kinds(result) == {
        'boxes_outside': (1, 'test'),
        'pictures_in_two_splits': (1, 'the folder'),
        'class_absent_in_training': (1, ''),
    }
    assert 'train3.jpg: train and test' in str(result.findings)
    assert 'horse: 0 objects, 3 in test' in str(result.findings)


def test_masks_of_test_are_looked_at(masks: Path, examined: Examine, tmp_path: Path) -> None:
    for kind, ending in (('images', 'jpg'), ('masks', 'png')):
        (masks / kind / 'test').mkdir()
        for path in (masks / kind / 'val').iterdir():
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(masks / kind / 'test' / f'{path.stem}t.{ending}'), image[::-1, ::-1])
    assert examined('deeplabv3_folder', masks).findings == []
    mask = cv2.imread(str(masks / 'masks/test/0t.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(masks / 'masks/test/0t.png'), mask + 7)
    assert kinds(examined('deeplabv3_folder', masks)) == {'masks_unexpected': (1, 'the folder')}
    for path in (masks / 'masks/test').iterdir():
        cv2.imwrite(str(path), mask + 7)
    result = examined('deeplabv3_folder', masks)
    assert kinds(result) == {'split_not_readable': (1, 'test')}
    assert 'none of the 6 masks' in result.findings[0].examples[0]
    assert result.datasets.keys() == {'train', 'val'}
    _, steps = write_repaired(result, tmp_path / 'out')
    assert steps == ['1 split left out, test: it cannot be read']


@pytest.fixture
def shards(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pictures of two classes in shards, one of training in validation too."""
    from falconet.datasets.shards.write import pack

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    parts = {
        split: [
            (str(path), label)
            for label, name in enumerate(('ant', 'bee'))
            for path in sorted((pictures / split / name).iterdir())
        ]
        for split in ('train', 'val')
    }
    parts['val'].append((str(pictures / 'train/ant/3.png'), 0))
    empty = pictures / 'train/ant/0.png'
    empty.write_bytes(empty.read_bytes()[:300])
    pack(parts, ('ant', 'bee'), tmp_path / 'shards', size=100_000)
    return tmp_path / 'shards'


def test_pictures_in_shards_are_looked_at_where_they_lie(
    shards: Path, write_config: Callable[..., Path]
) -> None:
    from falconet.tasks.build import load_config

    config = load_config(
        write_config(
            """
            train_dataloader['dataset'] = dict(type='ImageShards', shards='train-*.tar')
            val_dataloader['dataset'] = dict(type='ImageShards', shards='val-*.tar')
            """
        )
    )
    result = examine(config, root=str(shards))
    found = {each.kind: each for each in result.findings}
    assert found.keys() - {'class_rare', 'small'} == {'truncated', 'copies_between_splits'}
    assert found['truncated'].count == 1
    assert '.tar/train_000000' in found['truncated'].examples[0]
    assert found['copies_between_splits'].count == 1
