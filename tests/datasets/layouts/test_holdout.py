"""A share is set aside of every class alike, near copies on one side, the same way everywhere."""

import hashlib
from collections import Counter
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falconet.datasets.classification.folder import ClassificationFolder
from falconet.datasets.images.near_duplicates import groups
from falconet.datasets.layouts.holdout import hold_out

SETS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60)


@given(SETS, st.sampled_from([0.0, 0.1, 0.2, 0.5]))
def test_no_group_is_torn_and_the_share_is_not_exceeded(rows: list[tuple[int, int]], share: float) -> None:
    names = [f'{index}.png' for index in range(len(rows))]
    group = [row[1] for row in rows]
    chosen = set(hold_out(names, [row[0] for row in rows], share=share, groups=group))
    for each in set(group):
        inside = {name for name, other in zip(names, group, strict=True) if other == each}
        assert inside <= chosen or not inside & chosen
    assert not (share == 0 and chosen)
    if share and len(set(group)) > 1:
        assert len(chosen) < len(names)


@given(SETS)
def test_without_copies_the_share_of_every_class_is_met_by_rank(rows: list[tuple[int, int]]) -> None:
    names = [f'{index}.png' for index in range(len(rows))]
    strata = [row[0] for row in rows]
    chosen = hold_out(names, strata, share=0.2)
    assert chosen == hold_out(names, strata, share=0.2, groups=range(len(names)))
    for stratum, count in Counter(strata).items():
        inside = [name for name, other in zip(names, strata, strict=True) if other == stratum]
        least = 1 if count > 1 else 0
        expected = min(max(round(0.2 * count), least), max(count - 1, 0)) if count > 1 else round(0.2)
        ranked = sorted(inside, key=lambda name: hashlib.sha256(name.encode()).digest())
        assert set(inside) & set(chosen) == set(ranked[:expected])


def test_near_copies_are_one_group_and_stay_on_one_side(folders: Path) -> None:
    paths = sorted((folders / 'train').rglob('*.png'))
    for path in paths[::3]:
        image = cv2.imread(str(path))
        cv2.imwrite(str(path.with_name(f'{path.stem}_again.jpg')), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    root = str(folders / 'train')
    parts = [ClassificationFolder(root, training=training) for training in (True, False)]
    assert parts[0].held_out == parts[1].held_out
    sides = [
        {Path(path).with_suffix('').as_posix().removesuffix('_again') for path in each.paths}
        for each in parts
    ]
    assert not sides[0] & sides[1]
    assert '16 of them are copies or near copies, in 8 groups that stay on one side' in str(parts[0])
    kept = ClassificationFolder(root, training=False, held_out=['blue/0.png', 'red/1.png'])
    assert [Path(path).name for path in kept.paths] == ['0.png', '1.png']  # of an earlier run, as it is


def test_pictures_that_cannot_be_read_are_alone(folders: Path) -> None:
    paths = sorted(map(str, (folders / 'train/red').iterdir()))
    Path(paths[0]).write_bytes(b'')
    Path(paths[2]).write_bytes(Path(paths[1]).read_bytes())
    assert groups(paths) == [0, 1, 1, 3, 4, 5, 6, 7]


def test_one_picture_many_times_is_split_all_the_same_and_said(folders: Path) -> None:
    for path in (folders / 'train').rglob('*.png'):
        path.write_bytes((folders / 'train/red/0.png').read_bytes())
    dataset = ClassificationFolder(str(folders / 'train'))
    assert len(dataset) == 6
    assert 'every picture is nearly a copy of another' in str(dataset)


@pytest.mark.parametrize('layout', ['voc_cvat', 'csv_plain', 'labelme', 'coco_cvat'])
def test_pictures_that_no_annotation_names_are_counted_and_named(
    layout: str, write: object, exported: object
) -> None:
    from falconet.datasets.detection.folder import DetectionFolder

    root: Path = write(layout)  # type: ignore[operator]
    assert 'no annotation names them' not in str(DetectionFolder(str(root), training=True))
    picture = next(root.rglob('3.png'))
    for name in ('extra.png', 'other.png'):
        picture.with_name(name).write_bytes(picture.read_bytes())
    dataset = DetectionFolder(str(root), training=True)
    assert len(dataset.unnamed) == 2
    assert 'left out, for no annotation names them: 2 pictures (' in str(dataset)
    assert 'extra.png' in str(dataset)
    assert 'extra.png' not in str(DetectionFolder(str(root)))
