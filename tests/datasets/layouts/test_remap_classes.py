"""Classes merged and chosen, and a split made anew, on the way from one format to another."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.classification.folder import ClassificationFolder
from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.layouts.remap_classes import merges_of, new_classes, shares_of
from falconet.datasets.segmentation.folder import SegmentationFolder

Convert = Callable[..., tuple[int, str]]


@pytest.fixture
def convert(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Run tools/convert_data.py; return its exit code and what it printed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['convert_data.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(root / 'tools/convert_data.py'), run_name='__main__')
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out + printed.err

    return run


def test_classes_of_boxes_are_merged_and_chosen(coco_folder: Path, convert: Convert, tmp_path: Path) -> None:
    before = DetectionFolder(str(coco_folder), split='train').annotations
    assert convert(coco_folder, tmp_path / 'one', '--to', 'coco', '--merge', 'red,green=square')[0] == 0
    one = DetectionFolder(str(tmp_path / 'one'), split='train').annotations
    assert one.class_names == ('square',)
    assert len(one.boxes) == len(before.boxes)
    code, said = convert(coco_folder, tmp_path / 'green', '--to', 'coco', '--classes', 'green')
    assert code == 0
    assert 'left out: objects of red are left out; their pictures stay' in said
    green = DetectionFolder(str(tmp_path / 'green'), split='train').annotations
    assert green.class_names == ('green',)
    assert len(green) == len(before)
    assert len(green.boxes) == (before.labels == before.class_names.index('green')).sum()
    code, said = convert(coco_folder, tmp_path / 'turned', '--to', 'yolo', '--classes', 'green,red')
    assert DetectionFolder(str(tmp_path / 'turned'), split='train').classes == ('green', 'red')


def test_classes_of_masks_become_background(masks: Path, convert: Convert, tmp_path: Path) -> None:
    code, said = convert(masks, tmp_path / 'out', '--to', 'masks', '--classes', 'square')
    assert (code, 'dot become background' in said) == (0, True)
    ours, theirs = (SegmentationFolder(str(each), holdout=0) for each in (tmp_path / 'out', masks))
    assert ours.classes == ('background', 'square')
    for index in range(len(theirs)):
        expected = theirs.read_mask(index).copy()
        expected[expected == 2] = 0
        np.testing.assert_array_equal(ours.read_mask(index), expected)
    assert convert(masks, tmp_path / 'merged', '--to', 'masks', '--merge', 'dot=square')[0] == 0
    merged = SegmentationFolder(str(tmp_path / 'merged'), holdout=0)
    assert set(np.unique(merged.read_mask(0))) == {0, 1, 255}


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Ten pictures with masks of background, square and dot."""
    root = tmp_path / 'masks'
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for index in range(10):
        mask = np.zeros((24, 30), np.uint8)
        mask[4:12, 4 + index : 14 + index], mask[20, 20], mask[0] = 1, 2, 255
        noise = np.random.default_rng(index).integers(0, 255, (24, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f'masks/{index}.png'), mask)
        cv2.imwrite(str(root / f'images/{index}.png'), noise)
    (root / 'classes.txt').write_text('background\nsquare\ndot\n')
    return root


@pytest.mark.parametrize('kind', ['folders', 'coco', 'masks'])
def test_a_split_is_made_anew_with_copies_together(
    kind: str, folders: Path, coco_folder: Path, masks: Path, convert: Convert, tmp_path: Path
) -> None:
    source = {'folders': folders, 'coco': coco_folder, 'masks': masks}[kind]
    code, said = convert(source, tmp_path / 'out', '--to', kind, '--split', '0.6,0.2,0.2')
    assert code == 0, said
    assert ('the splits of the source (train, test) are given up' in said) == (kind != 'masks')
    dataset = {'folders': ClassificationFolder, 'coco': DetectionFolder, 'masks': SegmentationFolder}[kind]
    sizes = {split: len(dataset(str(tmp_path / 'out'), split=split)) for split in ('train', 'val', 'test')}
    total = {'folders': 36, 'coco': 16, 'masks': 10}[kind]
    assert sum(sizes.values()) == total
    assert all(0.1 * total <= sizes[split] <= 0.3 * total for split in ('val', 'test')), sizes


def test_one_share_of_three_may_be_nothing() -> None:
    assert shares_of('0.8,0.2') == {'train': 0.8, 'val': 0.2}
    assert shares_of('0.7,0.1,0.2') == {'train': 0.7, 'val': 0.1, 'test': 0.2}


@pytest.mark.parametrize('text', ['', '1', '0.5,0.6', '0.8,0.1,0.1,0', 'a,b', '0.8;0.2', '-1,2', 'nan,1'])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match='expected the shares of train and val'):
        shares_of(text)


def test_wrong_names_are_refused_with_the_right_ones(
    coco_folder: Path, convert: Convert, tmp_path: Path
) -> None:
    for options, said in (
        (('--classes', 'gren'), 'Did you mean green'),
        (('--merge', 'gren=red'), 'Did you mean green'),
        (('--merge', 'green'), 'expected names of classes and the name they get'),
        (('--classes', 'red,red'), 'each once'),
        (('--split', '0.5,0.1'), 'which add up to 1'),
        (('--merge', 'red=a\x07b'), 'cannot hold such a name'),
    ):
        code, printed = convert(coco_folder, tmp_path / 'out', '--to', 'coco', *options)
        assert (code, said in printed) == (2, True), printed
        assert not (tmp_path / 'out').exists()
    with pytest.raises(UserError, match='to be called b and c'):
        merges_of(['a=b', 'a=c'])
    assert new_classes(['a', 'b', 'c'], merge={'c': 'a'}, keep=None).index_of.tolist() == [0, 1, 0]
