"""Pictures with a class each: folders or CSV, with or without a split."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from falconet.core.errors import UserError
from falconet.datasets.classification.folder import ClassificationFolder


def test_folders_with_a_split_are_used_as_they_are(folders: Path) -> None:
    learnt, scored = ClassificationFolder(str(folders), training=True), ClassificationFolder(str(folders))
    assert (len(learnt), len(scored)) == (24, 12)
    assert learnt.classes == ('blue', 'green', 'red')
    assert learnt.held_out is None
    assert 'a folder a class: blue, green, red; split of the data (train, test)' in str(learnt)


def test_without_a_split_a_fifth_of_every_class_is_set_aside(folders: Path) -> None:
    root = str(folders / 'train')
    learnt, scored = ClassificationFolder(root, training=True), ClassificationFolder(root)
    assert Counter(scored.labels.tolist()) == {0: 2, 1: 2, 2: 2}
    assert len(learnt) == 18
    assert not set(learnt.paths) & set(scored.paths)


@pytest.mark.parametrize('name', ['valid', 'validation', 'Val'])
def test_validation_goes_by_many_names_and_comes_before_test(folders: Path, name: str) -> None:
    shutil.copytree(folders / 'test', folders / name)
    next((folders / name / 'red').iterdir()).unlink()
    assert len(ClassificationFolder(str(folders))) == 11


def test_a_test_split_that_is_not_used_may_lack_a_class(folders: Path) -> None:
    shutil.copytree(folders / 'test', folders / 'val')
    shutil.rmtree(folders / 'test/red')
    assert len(ClassificationFolder(str(folders), training=True)) == 24
    assert len(ClassificationFolder(str(folders), split='test')) == 8
    (folders / 'test/blue').rename(folders / 'test/Blue')
    with pytest.raises(UserError, match="class 'Blue' is none of blue, green, red"):
        ClassificationFolder(str(folders), split='test')


def test_archives_that_repeat_a_folders_name_are_seen_through(folders: Path, tmp_path: Path) -> None:
    for split in ('train', 'test'):
        shutil.copytree(folders / split, tmp_path / f'archive/seg_{split}/seg_{split}')
    assert len(ClassificationFolder(str(tmp_path / 'archive'), training=True)) == 24


def test_a_class_may_be_called_train(folders: Path) -> None:
    (folders / 'train/red').rename(folders / 'train/train')
    dataset = ClassificationFolder(str(folders / 'train'), training=True)
    assert dataset.classes == ('blue', 'green', 'train')


def test_a_class_that_a_split_lacks_is_an_error(folders: Path) -> None:
    (folders / 'test/red').rename(folders / 'test/Red')
    with pytest.raises(UserError, match="class 'Red' has no pictures there, other splits do"):
        ClassificationFolder(str(folders))


def table(folders: Path, header: str, lines: list[str]) -> Path:
    root = folders.parent / 'listed'
    shutil.copytree(folders / 'train', root / 'pictures', dirs_exist_ok=True)
    for path in [*root.rglob('*.png')]:
        path.rename(root / 'pictures' / f'{path.parent.name}_{path.name}')
    for name in ('blue', 'green', 'red'):
        (root / 'pictures' / name).rmdir()
    (root / 'labels.csv').write_text('\n'.join([header, *lines]), encoding='utf-8')
    return root


NAMES = [(f'{name}_{index}.png', name) for name in ('blue', 'green', 'red') for index in range(8)]


@pytest.mark.parametrize('mark', [',', ';', '\t'])
def test_a_csv_of_labels(folders: Path, mark: str) -> None:
    root = table(folders, f'image{mark}label', [f'{file}{mark}{name}' for file, name in NAMES])
    dataset = ClassificationFolder(str(root), training=True)
    assert dataset.classes == ('blue', 'green', 'red')
    assert len(dataset) == 18
    text = (root / 'labels.csv').read_bytes()
    (root / 'labels.csv').write_bytes(b'\xef\xbb\xbf' + text.replace(b'\n', b'\r\n'))
    assert list(ClassificationFolder(str(root), training=True).paths) == list(dataset.paths)


def test_a_csv_of_zeros_and_ones_and_a_column_for_the_split(folders: Path) -> None:
    lines = [
        f'{file},{int(name == "blue")},{int(name == "green")},{int(name == "red")}' for file, name in NAMES
    ]
    assert len(ClassificationFolder(str(table(folders, 'filename,blue,green,red', lines)))) == 6
    lines = [
        f'{file},{name},{"val" if place % 4 == 0 else "train"}' for place, (file, name) in enumerate(NAMES)
    ]
    assert len(ClassificationFolder(str(table(folders, 'image,label,split', lines)))) == 6


@pytest.mark.parametrize(
    ('header', 'line', 'message'),
    [
        ('image,label', 'blue_0.png,blue|red', r"line 2: 'blue\|red' looks like several labels"),
        ('image,label', 'blue_0.png,', 'line 2: no label'),
        ('image,label', 'blue_0.png,blue,1', 'line 2: 3 fields, the header has 2'),
        ('image,label', 'blue_0.png,blue\nblue_0.png,red', r'blue_0\.png is red, and blue in a line before'),
        ('image,label', 'nowhere.png,blue', 'none of the 1 pictures of labels.csv is in'),
        ('filename,blue,red', 'blue_0.png,1,1', r'2 classes are marked \(blue, red\)'),
        ('filename,blue,red', 'blue_0.png,0,0', r'0 classes are marked \(none\)'),
        ('picture_of,kind', 'blue_0.png,blue', 'holds no pictures with a class each'),
        ('', '', 'holds no pictures with a class each'),
    ],
)
def test_a_wrong_line_is_named(folders: Path, header: str, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassificationFolder(str(table(folders, header, [line] if line else [])), training=True)


def test_a_missing_picture_and_a_strange_class_are_said(folders: Path) -> None:
    lines = [f'{file},{name}' for file, name in NAMES]
    root = table(folders, 'image,label', [*lines, 'gone_é.png,blue'])
    dataset = ClassificationFolder(str(root), training=True)
    assert '1 pictures dropped, no such file' in str(dataset)
    assert 'gone_é.png' in str(dataset)
    with pytest.raises(UserError, match='strict'):
        ClassificationFolder(str(root), strict=True)
    with pytest.raises(UserError, match="class 'red' is none of blue, green"):
        ClassificationFolder(str(root), classes=('blue', 'green'))


def test_a_picture_in_two_splits_is_an_error(folders: Path) -> None:
    lines = [f'{file},{name},train' for file, name in NAMES]
    root = table(folders, 'image,label,split', [*lines, 'blue_0.png,blue,val'])
    with pytest.raises(UserError, match=r'1 pictures are both learnt and scored: .*blue_0\.png'):
        ClassificationFolder(str(root), training=True)


def test_one_name_in_two_folders_needs_its_path(folders: Path) -> None:
    (folders / 'labels.csv').write_text('image,label\n0.png,blue\n')
    with pytest.raises(UserError, match=r'names 0\.png, and 6 pictures have that name'):
        ClassificationFolder(str(folders), 'csv')
    (folders / 'labels.csv').write_text('image,label\ntrain/red/0.png,a\ntest\\red\\0.png,b\n')
    assert len(ClassificationFolder(str(folders), 'csv', holdout=0)) == 2
    with pytest.raises(UserError, match=r'labelled in 2 ways: folders .*; csv '):
        ClassificationFolder(str(folders))
