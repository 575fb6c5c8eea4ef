"""What is written in a format is read as what was given, and what a format cannot hold is said first."""

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet.datasets.classification.folder import ClassificationFolder
from falconet.datasets.detection.folder import DetectionFolder
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


def objects(dataset: DetectionFolder) -> dict[str, set[tuple[object, ...]]]:
    found = dataset.annotations
    return {
        Path(path).name: {
            (found.class_names[found.labels[k]], *found.boxes[k].tolist())
            for k in range(*found.objects(index).indices(len(found.labels)))
        }
        for index, path in enumerate(found.paths)
    }


@pytest.mark.parametrize('kind', ['coco', 'voc', 'yolo', 'csv'])
@pytest.mark.parametrize('source', ['coco_cvat', 'voc_fiftyone', 'yolo_roboflow', 'csv_plain', 'labelme'])
def test_there_and_back_is_the_identity(
    source: str, kind: str, write: Callable[[str], Path], convert: Convert, tmp_path: Path
) -> None:
    root = write(source)
    before = {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}
    assert convert(root, tmp_path / 'there', '--to', kind)[0] == 0
    there = DetectionFolder(str(tmp_path / 'there'), kind, holdout=0)
    assert objects(there) == objects(DetectionFolder(str(root), holdout=0))
    assert convert(tmp_path / 'there', tmp_path / 'back', '--to', 'coco')[0] == 0
    assert objects(DetectionFolder(str(tmp_path / 'back'), holdout=0)) == objects(there)
    assert {path: path.read_bytes() for path in root.rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('kind', ['coco', 'voc', 'yolo', 'csv'])
def test_splits_are_kept_and_what_cannot_be_held_is_said(
    kind: str, coco_folder: Path, convert: Convert, tmp_path: Path
) -> None:
    code, printed = convert(coco_folder, tmp_path / 'out', '--to', kind, '--link')
    assert code == 0
    assert ('1 crowds are left out' in printed) == (kind in ('yolo', 'csv'))
    assert ('the order of the classes' in printed) == (kind in ('voc', 'csv'))
    for split, count in (('train', 12), ('test', 4)):
        ours = DetectionFolder(str(tmp_path / 'out'), split=split)
        theirs = DetectionFolder(str(coco_folder), split=split)
        assert len(ours) == len(theirs) == count
        plain = len(theirs.annotations.crowd) - theirs.annotations.crowd.sum()
        assert len(ours.annotations.crowd) - ours.annotations.crowd.sum() == plain
    assert all(path.is_symlink() for path in (tmp_path / 'out').rglob('*.png'))


def test_nothing_is_replaced(coco_folder: Path, convert: Convert, tmp_path: Path) -> None:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').write_text('x')
    code, printed = convert(coco_folder, tmp_path / 'out', '--to', 'yolo')
    assert code == 2
    assert 'is not empty: nothing there is replaced' in printed
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['mine.txt']


def test_outlines_become_masks(coco_folder: Path, convert: Convert, tmp_path: Path) -> None:
    assert convert(coco_folder, tmp_path / 'out', '--to', 'masks')[0] == 0
    for split in ('train', 'test'):
        ours = SegmentationFolder(str(tmp_path / 'out'), split=split)
        theirs = SegmentationFolder(str(coco_folder), split=split)
        assert ours.classes == theirs.classes
        by_parent = {tuple(Path(path).parts[-2:])[-1]: index for index, path in enumerate(theirs.paths)}
        for index, path in enumerate(ours.paths):
            there = by_parent[Path(path).name.rpartition('_')[2]]
            np.testing.assert_array_equal(ours.read_mask(index), theirs.read_mask(there))


def test_a_list_of_labels_becomes_folders(folders: Path, convert: Convert, tmp_path: Path) -> None:
    lines = ['image,label,split']
    for path in sorted(folders.rglob('*.png')):
        lines.append(f'{path.relative_to(folders).as_posix()},{path.parent.name},{path.parts[-3]}')
    (folders / 'labels.csv').write_text('\n'.join(lines))
    code, _ = convert(folders, tmp_path / 'out', '--to', 'folders', '--data-format', 'csv')
    assert code == 0
    shutil.rmtree(folders)
    assert len(ClassificationFolder(str(tmp_path / 'out'), training=True)) == 24
    assert len(ClassificationFolder(str(tmp_path / 'out'))) == 12
