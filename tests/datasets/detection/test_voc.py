"""VOC's XML: corners that count from one, lists, and what is broken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.detection.dataset import CocoDetection, VocDetection


def load(base: Path, split: str = 'train', **options: Any) -> CocoDetection:
    options = {'training': split == 'train', **options}
    return CocoDetection(str(base), f'annotations/{split}.json', split, **options)


VOC = """<annotation><filename>{name}.png</filename><size><width>80</width><height>60</height></size>
<object><name>cat</name><difficult>{difficult}</difficult>
<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc_folder(coco_folder: Path) -> Path:
    base = coco_folder.parent / 'voc'
    (base / 'Annotations').mkdir(parents=True)
    (base / 'ImageSets/Main').mkdir(parents=True)
    (coco_folder / 'train').rename(base / 'JPEGImages')
    for index in range(4):
        text = VOC.format(name=index, difficult=int(index == 3))
        (base / 'Annotations' / f'{index}.xml').write_text(text)
    (base / 'ImageSets/Main/train.txt').write_text('0\n2\n3\n7\n')
    return base


def test_voc_corners_count_from_one(voc_folder: Path) -> None:
    data = VocDetection(str(voc_folder), 'train', training=True)
    assert data.annotations.boxes.tolist() == [[10, 20, 30, 40]] * 3
    assert data.annotations.crowd.tolist() == [False, False, True]
    assert data.classes == ('cat',)
    assert '1 listed images without an XML file (7)' in str(data)
    assert len(VocDetection(str(voc_folder), training=True)) == 4


def test_voc_and_coco_describe_the_demo_data_alike(tmp_path: Path, root: Path) -> None:
    """The generator writes the same scenes in both formats."""
    import runpy

    make = runpy.run_path(str(root / 'tools/make_demo_data.py'))['make_demo_data']
    make(tmp_path / 'demo', train=12, val=2, test=1, workers=1)
    coco = CocoDetection(
        str(tmp_path / 'demo/coco'), 'annotations/instances_train2017.json', 'train2017', training=True
    )
    voc = VocDetection(str(tmp_path / 'demo/VOCdevkit/VOC2012'), 'train', training=True)
    assert voc.classes == tuple(name for name in coco.classes if name in voc.classes)
    ours = {Path(path).stem[-6:]: index for index, path in enumerate(voc.paths)}
    for index, path in enumerate(coco.paths):
        there = ours[Path(path).stem[-6:]]
        np.testing.assert_allclose(
            voc.annotations.boxes[voc.annotations.objects(there)],
            coco.annotations.boxes[coco.annotations.objects(index)],
        )


def test_broken_voc_files_are_named(voc_folder: Path) -> None:
    (voc_folder / 'Annotations/2.xml').write_text('<annotation><size></size></annotation>')
    with pytest.raises(UserError, match=r'2\.xml is no VOC annotation: <size/height> is missing'):
        VocDetection(str(voc_folder), 'train', training=True)
    (voc_folder / 'Annotations/2.xml').write_text('<annotation>')
    with pytest.raises(UserError, match=r'2\.xml is no VOC annotation'):
        VocDetection(str(voc_folder), 'train', training=True)
    with pytest.raises(UserError, match=r'there is no split .*vall\.txt. '):
        VocDetection(str(voc_folder), 'vall', training=True)


def test_real_voc_annotations_are_read(real_data: Path) -> None:
    data = VocDetection(str(real_data / 'VOCdevkit/VOC2012'), training=True)
    assert len(data) > 50
    assert {'person', 'cat', 'dog'} <= set(data.classes)
