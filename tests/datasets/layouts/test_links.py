"""Links to folders of pictures are followed, in all three tasks; one that leads back to itself is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from falconet.datasets.classification.folder import ClassificationFolder
from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.layouts.file_tree import Tree
from falconet.datasets.segmentation.folder import SegmentationFolder


def moved_away(folder: Path, elsewhere: Path) -> None:
    """Put a folder somewhere else and leave a link to it."""
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, elsewhere)
    try:
        folder.symlink_to(elsewhere, target_is_directory=True)
    except OSError:  # Windows, without the right to make links
        pytest.skip('no links here')


def test_pictures_of_boxes_behind_a_link(write: Callable[[str], Path], tmp_path: Path) -> None:
    root = write('coco_label_studio')
    before = DetectionFolder(str(root), training=True)
    moved_away(root / 'images', tmp_path / 'elsewhere/photographs')
    after = DetectionFolder(str(root), training=True)
    assert list(after.paths) == list(before.paths)
    assert after.held_out == before.held_out
    np.testing.assert_array_equal(after[0].image, before[0].image)  # type: ignore[union-attr]


def test_label_files_behind_a_link(write: Callable[[str], Path], tmp_path: Path) -> None:
    root = write('yolo_label_studio')
    before = DetectionFolder(str(root), holdout=0)
    moved_away(root / 'labels', tmp_path / 'elsewhere/texts')
    after = DetectionFolder(str(root), holdout=0)
    np.testing.assert_array_equal(after.annotations.boxes, before.annotations.boxes)


def test_a_class_behind_a_link(folders: Path, tmp_path: Path) -> None:
    before = ClassificationFolder(str(folders), training=True)
    moved_away(folders / 'train/red', tmp_path / 'elsewhere/rot')
    after = ClassificationFolder(str(folders), training=True)
    assert list(after.paths) == list(before.paths)
    assert after.labels.tolist() == before.labels.tolist()


def test_pictures_and_masks_behind_links(tmp_path: Path) -> None:
    root = tmp_path / 'data'
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for index in range(4):
        cv2.imwrite(str(root / f'images/{index}.png'), np.full((20, 20, 3), 50 * index, np.uint8))
        cv2.imwrite(str(root / f'masks/{index}.png'), np.eye(20, dtype=np.uint8))
    (root / 'classes.txt').write_text('background\nline\n')
    before = SegmentationFolder(str(root), holdout=0)
    for name in ('images', 'masks'):
        moved_away(root / name, tmp_path / f'elsewhere/{name}')
    after = SegmentationFolder(str(root), holdout=0)
    assert list(after.paths) == list(before.paths)
    np.testing.assert_array_equal(after.read_mask(2), np.eye(20, dtype=np.uint8))


def test_a_link_that_leads_back_is_not_followed(folders: Path, tmp_path: Path) -> None:
    before = Tree(folders).files
    outside = tmp_path / 'elsewhere'
    outside.mkdir()
    (outside / 'back').symlink_to(folders, target_is_directory=True)
    (folders / 'train/again').symlink_to(folders, target_is_directory=True)
    (folders / 'train/self').symlink_to('.', target_is_directory=True)
    (folders / 'outside').symlink_to(outside, target_is_directory=True)
    (folders / 'broken').symlink_to(tmp_path / 'nowhere', target_is_directory=True)
    assert [file for file in Tree(folders).files if file != 'broken'] == before
