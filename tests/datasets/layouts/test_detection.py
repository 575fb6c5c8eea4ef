"""Boxes of every tool's export are found as they are, and give the very samples of the COCO original."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.detection.dataset import CocoDetection
from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.samples import Sample, SampleKey

AUGMENT = [
    {'type': 'RandomIoUCrop'},
    {'type': 'HorizontalFlip', 'p': 0.5},
    {'type': 'Resize', 'height': 32, 'width': 32},
]
LAYOUTS = (
    *('coco_roboflow', 'coco_cvat', 'coco_label_studio', 'coco_fiftyone'),
    *('voc_cvat', 'voc_roboflow', 'voc_fiftyone'),
    *('yolo_roboflow', 'yolo_fiftyone', 'yolo_cvat', 'yolo_label_studio', 'yolo_segments'),
    *('csv_plain', 'csv_roboflow', 'labelme'),
)
Write = Callable[[str], Path]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_layout_gives_the_samples_of_the_coco_original_bit_for_bit(
    layout: str, write: Write, coco_folder: Path
) -> None:
    folder = DetectionFolder(str(write(layout)), training=True, augment=AUGMENT, holdout=0, seed=3)
    assert layout.split('_')[0] in str(folder).lower()
    original = CocoDetection(
        str(coco_folder),
        'annotations/train.json',
        'train',
        training=True,
        augment=AUGMENT,
        seed=3,
        categories=folder.classes,
    )
    by_name = {Path(path).name: index for index, path in enumerate(original.paths)}
    if layout != 'csv_roboflow':  # which has no lines for pictures without objects
        assert [Path(path).name for path in folder.paths] == [Path(path).name for path in original.paths]
        for index in range(len(folder)):
            ours, theirs = folder[SampleKey(index, 1)], original[SampleKey(index, 1)]
            assert isinstance(ours, Sample)
            assert isinstance(theirs, Sample)
            np.testing.assert_array_equal(ours.image, theirs.image)
            for key, value in theirs.target.items():
                np.testing.assert_array_equal(ours.target[key], value)
    for index, path in enumerate(folder.paths):
        ours = folder.annotations.boxes[folder.annotations.objects(index)]
        there = original.annotations.objects(by_name[Path(path).name])
        np.testing.assert_array_equal(ours, original.annotations.boxes[there])


def test_a_fifth_is_set_aside_of_every_class_alike_and_the_same_again(write: Write) -> None:
    root = str(write('yolo_roboflow'))
    learnt, scored = DetectionFolder(root, training=True), DetectionFolder(root)
    assert learnt.held_out == scored.held_out
    assert learnt.held_out is not None
    assert 'set aside for scoring' in str(learnt)
    assert not set(learnt.paths) & set(scored.paths)
    assert len(learnt) + len(scored) == 12
    chosen = ['train/images/3.png', 'train/images/7.png']
    again = DetectionFolder(root, held_out=chosen)
    assert sorted(Path(path).name for path in again.paths) == ['3.png', '7.png']
    assert len(DetectionFolder(root, held_out=chosen, training=True)) == 10
    elsewhere = DetectionFolder(root, held_out=['not/here.png'])
    assert len(elsewhere) == 12
    assert 'none of the 1 pictures set aside is here' in str(elsewhere)


def test_some_classes_only(write: Write) -> None:
    dataset = DetectionFolder(str(write('yolo_cvat')), categories=['green'], training=True, holdout=0)
    assert dataset.classes == ('green',)
    assert set(dataset.annotations.labels.tolist()) == {0}
    assert len(dataset) == 12
    with pytest.raises(UserError, match=r"no class 'gren'\. Did you mean green"):
        DetectionFolder(str(write('coco_cvat')), categories=['gren'])


def test_two_formats_in_one_folder_ask_which_counts(write: Write) -> None:
    root = write('yolo_label_studio')
    (root / 'boxes.csv').write_text('image,xmin,ymin,xmax,ymax,label\n0.png,1,1,9,9,red\n')
    with pytest.raises(UserError, match=r'labelled in 2 ways: yolo .*; csv .*--data-format yolo or --data'):
        DetectionFolder(str(root))
    assert len(DetectionFolder(str(root), 'csv', holdout=0)) == 1
    with pytest.raises(UserError, match='--data-format cvs: Did you mean csv'):
        DetectionFolder(str(root), 'cvs')


def test_a_folder_without_anything_known_says_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/readme.md').write_text('hello')
    with pytest.raises(UserError, match=r'holds no boxes in a format known.*0 pictures and 1 files \(md'):
        DetectionFolder(str(tmp_path))
