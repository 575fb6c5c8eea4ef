"""Tiles: they cover the picture, and their answers join to those of one picture."""

import numpy as np
import pytest
import torch

from falconet.core.errors import UserError
from falconet.heads import DeepLabV3Head
from falconet.heads.score_map import ScoreMap
from falconet.tasks.detection.result import DetectionResult
from falconet.tasks.segmentation import tiles as segmentation_tiles
from falconet.tasks.segmentation.result import SegmentationResult
from falconet.tasks.tiles import tile_places

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


def whole_map(classes: int, height: int, width: int) -> ScoreMap:
    """Return scores whose pixels read cells in any way."""
    torch.manual_seed(0)
    return ScoreMap(torch.randn(classes, 7, 9), torch.rand(height, 7), torch.rand(width, 9))


@pytest.mark.parametrize('strip', [1, 30_000, segmentation_tiles.STRIP])
def test_scores_of_tiles_blend_to_those_of_the_whole(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of the picture is computed at a time."""
    monkeypatch.setattr(segmentation_tiles, 'STRIP', strip)
    cells, rows, columns = whole_map(5, 120, 170)
    expected = (rows @ cells @ columns.T).argmax(dim=0).numpy()
    places = tile_places(120, 170, 3)
    parts = [
        ScoreMap(cells, rows[top:bottom], columns[left:right] + 0) for left, top, right, bottom in places
    ]
    found = SegmentationResult.from_score_maps(parts, places, class_names=NAMES).mask
    assert found.dtype == np.uint8
    assert (found == expected).mean() > 0.999  # sums in another order


def test_where_tiles_disagree_the_surer_one_has_more_of_their_overlap() -> None:
    """Where each pixel took the class of one tile, the border lay in the middle whatever the scores."""
    places = [(0, 0, 100, 40), (60, 0, 160, 40)]

    def border(left_score: float, right_score: float) -> int:
        sides = [torch.tensor([left_score, 0.0]), torch.tensor([0.0, right_score])]
        maps = [ScoreMap(each.view(2, 1, 1), torch.ones(40, 1), torch.ones(100, 1)) for each in sides]
        mask = SegmentationResult.from_score_maps(maps, places, class_names=NAMES).mask
        assert (mask == mask[:1]).all()
        return int((mask[0] == 0).sum())

    assert border(1, 1) == 80
    assert border(3, 1) == 90
    assert border(1, 3) == 70


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize(
    ('content', 'size'), [(None, (65, 97)), (None, (33, 300)), ((65, 40), (65, 40)), ((30, 97), (60, 194))]
)
def test_a_score_map_has_the_mask_that_the_head_places(
    align_corners: bool, content: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    head = DeepLabV3Head([8], [16], num_classes=6, hidden_channels=8, align_corners=align_corners).eval()
    outputs, where = torch.randn(1, 6, 5, 7), {'input_size': (65, 97), 'content_sizes': [content]}
    (scores,) = head.score_maps(outputs, [size], **where)
    assert (scores.rows.shape, scores.columns.shape) == ((size[0], 5), (size[1], 7))
    mask = (scores.rows @ scores.cells @ scores.columns.T).argmax(dim=0).numpy()
    assert (mask == head.predict(outputs, [size], **where)[0]['mask']).mean() > 0.999


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
