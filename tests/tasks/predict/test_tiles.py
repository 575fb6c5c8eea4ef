"""Tiles: they cover the picture, and their answers join to those of one picture."""

import numpy as np
import pytest

from tasks.data.tiles import tile_places
from tasks.detection.result import DetectionResult
from tasks.errors import UserError
from tasks.segmentation.result import SegmentationResult

NAMES = ('background', 'cat')


@pytest.mark.parametrize('size', [(1, 1), (20, 3000), (3000, 4000), (100, 101), (33, 31)])
@pytest.mark.parametrize('tiles', [1, 2, 5])
def test_tiles_cover_the_picture_and_stay_inside(size: tuple[int, int], tiles: int) -> None:
    covered = np.zeros(size, bool)
    for left, top, right, bottom in tile_places(*size, tiles):
        assert 0 <= left < right <= size[1]
        assert 0 <= top < bottom <= size[0]
        covered[top:bottom, left:right] = True
    assert covered.all()


@pytest.mark.parametrize('tiles', [0, -1, 65, 2.0, True])
def test_a_number_of_tiles_that_is_none_is_refused(tiles: int) -> None:
    with pytest.raises(UserError, match='tiles must be a whole number'):
        tile_places(10, 10, tiles)


def detections(boxes: list[list[float]], scores: list[float]) -> DetectionResult:
    return DetectionResult(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.ones(len(boxes), int),
        NAMES,
    )


def test_an_object_across_a_seam_is_found_once() -> None:
    places = [(0, 0, 100, 100), (75, 0, 175, 100)]
    left = detections([[60, 20, 95, 60], [10, 10, 30, 30]], [0.8, 0.6])
    right = detections([[0, 20, 20, 60]], [0.9])  # the part of the first that it sees
    joined = DetectionResult.from_tiles([left, right], places, class_names=NAMES)
    np.testing.assert_allclose(joined.boxes, [[60, 20, 95, 60], [10, 10, 30, 30]])


@pytest.mark.parametrize('tiles', [2, 3, 5, 9])
def test_every_object_on_whatever_seams_is_found_once(tiles: int) -> None:
    """A detector finds, in every tile, the part of an object that lies in it, if that is a third or more."""
    random = np.random.default_rng(tiles)
    for _ in range(20):
        size = random.integers(300, 900, 2)
        places = tile_places(*size, tiles)
        side = places[0][2] - places[0][0]
        extent = random.uniform(8, 0.6 * side, 2)
        corner = random.uniform(0, 1, 2) * (size[::-1] - extent)
        truth = np.array([*corner, *(corner + extent)], np.float32)
        found = []
        for place in places:
            part = np.clip(truth, [*place[:2]] * 2, [*place[2:]] * 2)
            share = (part[2:] - part[:2]).prod() / extent.prod()
            score = 0.5 + share / 3  # surer the more it sees
            found.append(
                detections([part - [*place[:2]] * 2], [score]) if share > 0.33 else detections([], [])
            )
        joined = DetectionResult.from_tiles(found, places, class_names=NAMES)
        assert len(joined) == 1
        np.testing.assert_allclose(joined.boxes[0], truth, atol=1e-3)


def test_neighbours_across_a_seam_stay_two() -> None:
    places = [(0, 0, 100, 100), (75, 0, 175, 100)]
    left, right = detections([[60, 5, 100, 40]], [0.9]), detections([[0, 60, 40, 95]], [0.9])
    assert len(DetectionResult.from_tiles([left, right], places, class_names=NAMES)) == 2


def test_masks_of_tiles_join_to_the_whole() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (120, 170)).astype(np.uint8)
    places = tile_places(*mask.shape, 3)
    parts = [SegmentationResult(mask[top:bottom, left:right], NAMES) for left, top, right, bottom in places]
    np.testing.assert_array_equal(SegmentationResult.from_tiles(parts, places, class_names=NAMES).mask, mask)


def test_detections_are_indexed_sliced_and_filtered() -> None:
    found = detections([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], [0.9, 0.5, 0.2])
    assert [len(found[0]), len(found[-1]), len(found[:2]), len(found.of('cat'))] == [1, 1, 2, 3]
    assert len(found['background']) == 0
    assert len(list(found)) == 3
    assert found[found.scores < 0.6].scores.max() == np.float32(0.5)
    with pytest.raises(ValueError, match="no class 'dog'"):
        found.of('dog')


def test_results_come_back_from_what_others_use() -> None:
    found = detections([[0, 0, 1, 1], [0, 0, 2, 3]], [0.9, 0.5])
    for other in (
        DetectionResult.from_torchvision(found.to_torchvision(), NAMES),
        DetectionResult.from_coco(found.to_coco(3), NAMES),
    ):
        np.testing.assert_allclose(other.boxes, found.boxes)
        np.testing.assert_allclose(other.scores, found.scores)
    mask = SegmentationResult(np.array([[0, 1], [1, 1]], np.uint8), NAMES)
    for other in (
        SegmentationResult.from_torchvision(mask.to_torchvision(), NAMES),
        SegmentationResult.from_coco(mask.to_coco(3), NAMES),
        SegmentationResult.from_palette(mask.to_palette(), NAMES),
    ):
        np.testing.assert_array_equal(other.mask, mask.mask)
