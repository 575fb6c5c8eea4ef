"""Boxes follow their objects through crops, zooms and resizes."""

from pathlib import Path
from typing import Any

import numpy as np

from falconet.datasets.detection.dataset import CocoDetection
from falconet.datasets.samples import Sample, SampleKey
from falconet.datasets.transforms.augment import Augment
from falconet.datasets.transforms.boxes import RandomIoUCrop, centres_inside

BOXES = {'bbox_params': {'format': 'albumentations', 'clip': True, 'filter_invalid_bboxes': True}}


def load(base: Path, split: str = 'train', **options: Any) -> CocoDetection:
    options = {'training': split == 'train', **options}
    return CocoDetection(str(base), f'annotations/{split}.json', split, **options)


def test_boxes_stay_on_their_object_through_ssds_augmentation(coco_folder: Path) -> None:
    data = load(
        coco_folder,
        augment=[
            {'type': 'ZoomOut', 'max_ratio': 2.0, 'p': 0.5},
            {'type': 'RandomIoUCrop'},
            {'type': 'HorizontalFlip', 'p': 0.5},
            {'type': 'Resize', 'height': 96, 'width': 96, 'interpolation': 'nearest'},
        ],
    )
    seen = 0
    for epoch in range(20):
        for index in (0, 4, 7):
            sample = data[SampleKey(index, epoch)]
            assert isinstance(sample, Sample)
            boxes, labels = sample.target['boxes_unit'] * 96, sample.target['labels']
            for k, (box, label) in enumerate(zip(boxes, labels, strict=True)):
                x, y = (box[:2] + box[2:]) / 2
                red, green, _ = sample.image[int(y), int(x)].tolist()
                others = np.delete(boxes, k, axis=0)
                if centres_inside(others, np.array([x, y, x, y])).any():
                    continue  # the other square may lie on top
                assert (red > green) == (label == 0)
                seen += 1
    assert seen > 50


def test_the_crop_keeps_an_object_whose_centre_it_shows() -> None:
    crop = RandomIoUCrop()
    boxes = np.array([[0.1, 0.1, 0.2, 0.2, 0, 0], [0.7, 0.7, 0.9, 0.9, 1, 0]])
    augment = Augment([{'type': 'RandomIoUCrop'}], seed=0, **BOXES)
    sizes = set()
    for index in range(60):
        out = augment(epoch=0, index=index, image=np.zeros((100, 200, 3), np.uint8), bboxes=boxes)
        sizes.add(out['image'].shape[:2])
        kept = np.asarray(out['bboxes']).reshape(-1, 6)
        assert len(kept) >= 1
        assert (kept[:, :4] >= 0).all()
        assert (kept[:, :4] <= 1).all()
    assert len(sizes) > 20
    assert (100, 200) in sizes  # the whole image is one of the choices
    assert crop.trials == 50


def test_zooming_out_makes_objects_smaller_by_the_ratio() -> None:
    augment = Augment([{'type': 'ZoomOut', 'max_ratio': 3.0, 'p': 1.0}], **BOXES)
    image = np.full((40, 40, 3), 200, np.uint8)
    out = augment(epoch=0, index=3, image=image, bboxes=np.array([[0.0, 0.0, 1.0, 1.0, 4, 0]]))
    box = np.asarray(out['bboxes'])[0]
    height, width = out['image'].shape[:2]
    assert height == width > 40
    left, top, right, bottom = np.round(box[:4] * width).astype(int)
    assert (right - left, bottom - top) == (40, 40)
    assert (out['image'][top:bottom, left:right] == 200).all()
    assert (out['image'] == 200).all(axis=2).sum() == 1600


def test_tensorflows_resize_reads_whole_pixels_where_it_can() -> None:
    augment = Augment([{'type': 'ResizeTensorFlow', 'height': 2, 'width': 4}])
    image = np.arange(4, dtype=np.uint8).reshape(1, 4, 1).repeat(4, 0).repeat(3, 2) * 10
    image[2:] += 100
    out = augment(epoch=0, index=0, image=image)['image'][..., 0]
    assert out.tolist() == [[0, 10, 20, 30], [100, 110, 120, 130]]


def test_tensorflows_resize_is_what_tensorflow_fed_its_network(real_data: Path) -> None:
    from falconet.datasets.images.images import read_image

    augment = Augment([{'type': 'ResizeTensorFlow', 'height': 300, 'width': 300}])
    ours = augment(epoch=0, index=0, image=read_image(real_data / 'coco/val2017/000000000030.jpg'))['image']
    answers = np.load(real_data / 'known_answers/ssdlite_tf_reference.npz')
    theirs = (answers['000000000030/input'][0] + 1) * 127.5
    assert np.abs(ours - theirs).max() <= 0.5 + 1e-3  # ours is rounded to whole numbers


def test_boxes_and_masks_follow_an_image_into_a_padded_box() -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    fit = Augment([{'type': 'ResizePad', 'size': (30, 25)}], **BOXES)
    moved = fit(epoch=0, index=0, image=image, mask=image[..., 0], bboxes=np.array([[0.0, 0.5, 1.0, 1.0]]))
    assert moved['image'].shape == (30, 25, 3)
    assert fit.content_size(40, 50) == (20, 25)
    np.testing.assert_allclose(moved['bboxes'], [[0, 1 / 3, 1, 2 / 3]])
    assert (moved['mask'][:20] == 0).all()
    assert (moved['mask'][20:] == 255).all()
    larger = Augment([{'type': 'ResizePad', 'size': 100, 'enlarge': True}])
    assert larger.content_size(40, 50) == (80, 100)
    assert Augment([{'type': 'ResizePad', 'size': 100}]).content_size(40, 50) == (40, 50)
