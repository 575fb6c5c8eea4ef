"""Folder-per-class data: stable classes, matched by name; unreadable files named and counted."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder, ImageNet, imagenet_classes
from falconet.datasets.packed_strings import PackedStrings
from falconet.datasets.samples import Sample, SampleKey, Skipped

CROP = [{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}]


def test_packed_strings_are_the_strings() -> None:
    strings = ['a', '', 'ünï/çode', 'b' * 1000]
    assert list(PackedStrings(strings)) == strings
    assert len(PackedStrings([])) == 0


def test_classes_are_the_sorted_folders_and_labels_follow(folders: Path) -> None:
    data = ImageFolder(str(folders), 'train')
    assert data.classes == ('blue', 'green', 'red')
    assert len(data) == 24
    for index in range(len(data)):
        assert data.classes[data.labels[index]] == Path(data.paths[index]).parent.name


def test_a_sample_is_an_image_its_class_and_where_it_came_from(folders: Path) -> None:
    sample = ImageFolder(str(folders), 'train', augment=CROP)[SampleKey(9, epoch=0)]
    assert isinstance(sample, Sample)
    assert sample.image.shape == (32, 32, 3)
    assert sample.target == 1
    assert sample.info.index == 9
    assert sample.info.path.endswith('green/1.png')
    assert sample.info.size == (40, 40)


def test_test_folders_are_matched_by_name_not_by_position(folders: Path) -> None:
    data = ImageFolder(str(folders), 'test', classes=('red', 'blue', 'green'))
    assert data.classes == ('red', 'blue', 'green')
    assert all(Path(data.paths[i]).parent.name == data.classes[data.labels[i]] for i in range(len(data)))


def test_a_class_without_a_test_folder_is_named(folders: Path) -> None:
    shutil.rmtree(folders / 'test' / 'green')
    (folders / 'test' / 'gren').mkdir()
    with pytest.raises(
        UserError, match=r'Only in test: gren\. Only in the model: green\. Is gren meant to be green\?'
    ):
        ImageFolder(str(folders), 'test', classes=('blue', 'green', 'red'))


def test_kaggles_repeated_folder_is_looked_through(folders: Path, tmp_path: Path) -> None:
    nested = tmp_path / 'nested' / 'seg_train'
    nested.mkdir(parents=True)
    shutil.move(folders / 'train', nested / 'seg_train')
    assert len(ImageFolder(str(nested.parent), 'seg_train')) == 24


def test_hidden_and_system_folders_are_no_classes(folders: Path) -> None:
    (folders / 'train' / '.ipynb_checkpoints').mkdir()
    (folders / 'train' / '__MACOSX').mkdir()
    assert len(ImageFolder(str(folders), 'train').classes) == 3


def test_files_that_are_no_images_are_counted_and_named(folders: Path) -> None:
    (folders / 'train' / 'red' / 'notes.txt').write_text('x')
    data = ImageFolder(str(folders), 'train')
    assert len(data) == 24
    assert '1 files that are no images by their ending left aside (notes.txt)' in str(data)


@pytest.mark.parametrize(
    ('break_it', 'message'),
    [
        (lambda root: shutil.rmtree(root), 'does not exist.*--data-root'),
        (lambda root: shutil.rmtree(root / 'train'), r"train does not exist\. .* holds \['test'\]"),
        (lambda root: [shutil.rmtree(each) for each in (root / 'train').iterdir()], 'no class folders'),
        (lambda root: [each.unlink() for each in (root / 'train/red').iterdir()], "'red' has no images"),
    ],
)
def test_what_is_missing_is_said(folders: Path, break_it, message: str) -> None:
    break_it(folders)
    with pytest.raises(UserError, match=message):
        ImageFolder(str(folders), 'train')


def break_files(folders: Path, split: str) -> list[Path]:
    """Make three files unreadable: a cut JPEG's worth of PNG, a text, nothing at all."""
    cut, text, empty = (folders / split / name for name in ('blue/1.png', 'green/0.png', 'red/2.png'))
    cut.write_bytes(cut.read_bytes()[:100])
    text.write_text('this is no picture')
    empty.write_bytes(b'')
    return [cut, text, empty]


def test_training_replaces_an_unreadable_file_by_the_next_one(folders: Path) -> None:
    cut, *_ = break_files(folders, 'train')
    sample = ImageFolder(str(folders), 'train', augment=CROP, training=True)[1]
    assert isinstance(sample, Sample)
    assert sample.info.index == 2
    assert [each.path for each in sample.skipped] == [str(cut)]
    assert 'truncated PNG' in sample.skipped[0].reason


def test_evaluation_leaves_an_unreadable_file_out(folders: Path) -> None:
    _, text, _ = break_files(folders, 'test')
    left_out = ImageFolder(str(folders), 'test', augment=CROP)[4]
    assert isinstance(left_out, Skipped)
    assert left_out.path == str(text)


def test_strict_lists_every_unreadable_file(folders: Path) -> None:
    broken = break_files(folders, 'train')
    with pytest.raises(UserError, match='strict: 3 of 24 images cannot be read') as caught:
        ImageFolder(str(folders), 'train', strict=True)
    assert all(str(path) in str(caught.value) for path in broken)


def test_a_vanished_folder_is_not_walked_to_the_end(folders: Path) -> None:
    data = ImageFolder(str(folders), 'train', augment=CROP, training=True)
    shutil.rmtree(folders)
    with pytest.raises(UserError, match='Is the data folder still there'):
        data[0]


def test_holdout_parts_every_class_and_moves_no_file_when_others_come(folders: Path) -> None:
    root = str(folders / 'train')

    def part(training: bool) -> set[str]:
        return set(ImageFolder(root, holdout=0.4, training=training).paths)

    training, testing = part(True), part(False)
    assert not training & testing
    assert len(training | testing) == 24
    shutil.copy(folders / 'train/red/0.png', folders / 'train/red/new.png')
    assert training <= part(True)
    assert testing <= part(False)


def test_imagenet_has_1000_distinct_names_in_wnid_order() -> None:
    wnids, names = imagenet_classes()
    assert len(set(names)) == len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert (wnids[0], names[0]) == ('n01440764', 'tench')
    assert (wnids[999], names[999]) == ('n15075141', 'toilet tissue')


def test_a_subset_of_imagenet_keeps_the_official_indices(real_data: Path) -> None:
    import json

    official = json.loads((real_data / 'imagenet/wnid_to_index.json').read_text())
    data = ImageNet(str(real_data / 'imagenet'), 'val')
    assert len(data) == 100
    assert len(data.classes) == 1000
    for index in range(len(data)):
        assert data.labels[index] == official[Path(data.paths[index]).parent.name][0]


def test_a_folder_that_is_no_wnid_is_named(folders: Path) -> None:
    with pytest.raises(UserError, match="no ImageNet-1k wnid, for example 'blue'"):
        ImageNet(str(folders), 'train')


def test_real_intel_scenes_load(real_data: Path) -> None:
    data = ImageFolder(str(real_data / 'intel'), 'seg_train', augment=CROP)
    assert len(data) == 1800
    assert data.classes == ('buildings', 'forest', 'glacier', 'mountain', 'sea', 'street')
    assert np.bincount(data.labels).tolist() == [300] * 6
