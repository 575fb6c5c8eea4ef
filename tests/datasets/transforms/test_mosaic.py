"""Four pictures in one: every box stays whole and on its object, and the draw depends on the sample alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import ImageFolder
from falconet.datasets.detection.dataset import CocoDetection
from falconet.datasets.samples import Sample, SampleKey
from falconet.datasets.transforms.boxes import centres_inside
from falconet.datasets.transforms.mosaic import Mosaic

FOUR = {'type': 'Mosaic', 'height': 120, 'width': 160, 'p': 1.0}


def load(base: Path, *augment: dict[str, Any], **options: Any) -> CocoDetection:
    options = {'training': True, **options}
    return CocoDetection(str(base), 'annotations/train.json', 'train', augment=augment, **options)


def sample(data: CocoDetection, index: int, epoch: int = 0) -> Sample:
    found = data[SampleKey(index, epoch)]
    assert isinstance(found, Sample)
    return found


def test_boxes_stay_on_their_object_and_whole(coco_folder: Path) -> None:
    data, seen, counts = load(coco_folder, FOUR), 0, []
    for epoch in range(10):
        for index in (0, 4, 7):
            found = sample(data, index, epoch)
            assert found.image.shape == (120, 160, 3)
            boxes, labels = found.target['boxes_unit'] * [160, 120, 160, 120], found.target['labels']
            counts.append(len(boxes))
            sides = boxes[:, 2:] - boxes[:, :2]
            # Squares of 14 to 25 in pictures of 80 x 60, in quarters of 0.35 to 0.65 of the canvas.
            assert (sides > 14 * 0.35 * 2 - 1).all()
            assert (sides < 25 * 0.65 * 2 + 1).all()
            for k, (box, label) in enumerate(zip(boxes, labels, strict=True)):
                x, y = (box[:2] + box[2:]) / 2
                if centres_inside(np.delete(boxes, k, axis=0), np.array([x, y, x, y])).any():
                    continue  # the other square may lie on top
                red, green, _ = found.image[int(y), int(x)].tolist()
                assert (red > green) == (label == 0)
                seen += 1
    assert seen > 100
    assert max(counts) == 8  # two squares of each picture
    assert len(set(counts)) > 1  # one picture has none


def test_the_draw_depends_on_seed_epoch_and_sample_alone(coco_folder: Path) -> None:
    crop = {'type': 'RandomIoUCrop'}, {'type': 'Resize', 'height': 32, 'width': 32}
    half = {**FOUR, 'p': 0.5}
    data, again = load(coco_folder, half, *crop), load(coco_folder, half, *crop)
    other = load(coco_folder, half, *crop, seed=1)
    forth = [sample(data, index, 3) for index in range(12)]
    back = [sample(again, index, 3) for index in reversed(range(12))][::-1]
    for ours, theirs in zip(forth, back, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.target['boxes_unit'], theirs.target['boxes_unit'])
    assert any((each.image != sample(other, index, 3).image).any() for index, each in enumerate(forth))


def test_crowds_and_pictures_without_objects_travel_along(coco_folder: Path) -> None:
    data, crowds, empty = load(coco_folder, FOUR), 0, 0
    for epoch in range(40):
        found = sample(data, 1, epoch)  # without objects
        crowds += int(found.target['crowd'].sum())
        empty += len(found.target['labels']) == 0
        assert found.target['boxes_unit'].shape == (len(found.target['labels']), 4)
    assert crowds > 0
    assert empty < 40


def test_a_broken_file_is_passed_over_and_named(coco_folder: Path) -> None:
    (coco_folder / 'train/5.png').write_bytes(b'nothing')
    named = {
        Path(each.path).name
        for epoch in range(20)
        for each in sample(load(coco_folder, FOUR), 0, epoch).skipped
    }
    assert named == {'5.png'}


def test_no_file_is_read_where_nothing_is_done(coco_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = load(coco_folder, {**FOUR, 'p': 0.0}), []
    plain = data.reading
    monkeypatch.setattr(data, 'reading', lambda dataset, index: read.append(index) or plain(dataset, index))
    sample(data, 4)
    assert read == [4]


def test_one_class_a_picture_and_scoring_refuse_it(coco_folder: Path, folders: Path) -> None:
    for nested in (FOUR, {'type': 'OneOf', 'transforms': [FOUR], 'p': 1.0}):
        with pytest.raises(UserError, match='for training on boxes'):
            ImageFolder(str(folders), 'train', augment=[nested], training=True)
    with pytest.raises(UserError, match='for training on boxes'):
        load(coco_folder, FOUR, training=False)


def test_a_canvas_or_centre_that_is_none_is_refused() -> None:
    for options in ({'centre': (0.6, 0.4)}, {'centre': (0.0, 0.5)}, {'height': 1}):
        with pytest.raises(ValueError, match='must be'):
            Mosaic(**{'height': 64, 'width': 64, **options})  # type: ignore[arg-type]
