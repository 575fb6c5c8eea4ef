"""What two formats both hold goes there and back as it was, whatever the boxes, masks and names are."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet.core.errors import UserError
from falconet.datasets.annotations import Annotations, ImageRecord, Problems, build_annotations
from falconet.datasets.classification.folder import ClassificationFolder
from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.layouts import writers
from falconet.datasets.segmentation.folder import SegmentationFolder

WIDTH, HEIGHT = 24, 18
LETTERS = st.characters(codec='utf-8', exclude_categories=('C', 'Z'))
NAMES = st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=4, unique=True)
QUARTERS = st.integers(0, 4 * WIDTH)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[list[str], list[list[tuple[list[float], int, bool]]]]:
    """Names of classes, and of every picture its objects: xyxy, class, crowd; quarters of a pixel."""
    names = draw(NAMES)
    pictures = []
    for number in range(draw(st.integers(1, 3))):
        objects = []
        for place in range(draw(st.integers(0 if number else 1, 3))):
            left = draw(st.integers(0, 4 * (WIDTH - 1))) / 4
            top = draw(st.integers(0, 4 * (HEIGHT - 1))) / 4
            right = left + draw(st.integers(4, int(4 * (WIDTH - left)))) / 4
            bottom = top + draw(st.integers(4, int(4 * (HEIGHT - top)))) / 4
            box = [left, top, right, bottom] if number or place else [2.0, 3.0, 20.0, 15.0]
            crowd = draw(st.booleans()) and bool(number or place)
            objects.append((box, draw(st.integers(0, len(names) - 1)), crowd))
        pictures.append(objects)
    return names, pictures


def annotations_of(
    names: list[str], pictures: list[list[tuple[list[float], int, bool]]], folder: Path
) -> Annotations:
    records = []
    for index in range(len(pictures)):
        path = folder / f'{index}.png'
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8))
        records.append(ImageRecord(index + 1, str(path), (HEIGHT, WIDTH)))
    flat = [(owner, *each) for owner, objects in enumerate(pictures) for each in objects]
    corners = np.array([each[1] for each in flat], dtype=np.float64).reshape(-1, 4)
    return build_annotations(
        records,
        owners=np.array([each[0] for each in flat]),
        boxes=corners,
        labels=np.array([each[2] for each in flat]),
        crowd=np.array([each[3] for each in flat], dtype=bool),
        areas=(corners[:, 2:] - corners[:, :2]).prod(axis=1),
        object_ids=np.arange(1, len(flat) + 1),
        class_names=names,
        category_ids=range(1, len(names) + 1),
        problems=Problems(),
    )


def objects(found: Annotations, *, crowds: bool) -> dict[str, list[tuple[object, ...]]]:
    """Return class, box and crowd of the objects of every picture, sorted."""
    return {
        Path(path).name: sorted(
            (found.class_names[found.labels[k]], *found.boxes[k].tolist(), bool(found.crowd[k]))
            for k in range(*found.objects(index).indices(len(found.labels)))
            if crowds or not found.crowd[k]
        )
        for index, path in enumerate(found.paths)
    }


@pytest.mark.parametrize(
    ('first', 'second'), [('coco', 'voc'), ('yolo', 'csv'), ('coco', 'yolo'), ('csv', 'voc')]
)
@given(drawn=boxes())
@settings(max_examples=12, deadline=None)
def test_boxes_go_there_and_back(
    first: str, second: str, drawn: tuple[list[str], list[list[tuple[list[float], int, bool]]]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        given_ = annotations_of(*drawn, root)
        crowds = {first, second} <= {'coco', 'voc'}
        for name, kind in (('there', first), ('back', second)):
            (root / name).mkdir()
            writers.write_boxes({'': given_}, root / name, kind)
            found = DetectionFolder(str(root / name), kind, holdout=0).annotations
            # Without a list of classes there are those that occur.
            kept = {given_.class_names[label] for label in given_.labels[~given_.crowd | crowds]}
            assert kept <= set(found.class_names) <= set(given_.class_names)
            if kind in ('coco', 'yolo'):
                assert found.class_names == given_.class_names
            assert objects(found, crowds=crowds) == objects(given_, crowds=crowds)
            given_ = found


@given(names=NAMES, seed=st.integers(0, 2**16), count=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_masks_go_there_and_back(names: list[str], seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        try:
            writers.names_not_held(names, 'masks')
        except UserError:
            return
        pairs = []
        for index in range(count):
            mask = rng.integers(0, len(names), (HEIGHT, WIDTH), dtype=np.uint8)
            if len(names) > 1:
                mask[0, :5] = 255
                mask[1, 0] = 1
            cv2.imwrite(str(root / f'{index}.png'), np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8))
            pairs.append((str(root / f'{index}.png'), mask))
        (root / 'out').mkdir()
        writers.write_masks({'': pairs}, names, root / 'out')
        found = SegmentationFolder(str(root / 'out'), holdout=0)
        assert found.classes == tuple(names)
        for index, (_, mask) in enumerate(pairs):
            np.testing.assert_array_equal(found.read_mask(index), mask)


@given(
    names=st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=2, max_size=4, unique_by=str.casefold)
)
@settings(max_examples=15, deadline=None)
def test_a_folder_a_class_goes_there_and_back(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        try:
            writers.names_not_held(names, 'folders')
        except UserError:
            return
        pairs = []
        for index, name in enumerate(names):
            cv2.imwrite(str(root / f'{index}.png'), np.full((4, 4, 3), 40 * index, np.uint8))
            pairs.append((str(root / f'{index}.png'), name))
        (root / 'out').mkdir()
        writers.write_class_folders({'train': pairs, 'val': pairs}, root / 'out')
        found = ClassificationFolder(str(root / 'out'))
        assert found.classes == tuple(sorted(names))
        assert {
            (Path(path).name, found.classes[label])
            for path, label in zip(found.paths, found.labels, strict=True)
        } == {(Path(path).name, name) for path, name in pairs}
