"""Pictures that VOC's lists name and no XML describes are left out, and said."""

from pathlib import Path

import numpy as np
from PIL import Image

from falconet.datasets.detection.folder import DetectionFolder

XML = """<annotation><filename>{name}.png</filename><size><width>20</width><height>10</height></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
</annotation>"""


def test_listed_pictures_without_an_annotation_are_named(tmp_path: Path) -> None:
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    for name in ('a', 'b', 'c'):
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / f'JPEGImages/{name}.png')
    for name in ('a', 'b'):
        (tmp_path / f'Annotations/{name}.xml').write_text(XML.format(name=name))
    (tmp_path / 'ImageSets/Main/train.txt').write_text('a\nc\n')
    (tmp_path / 'ImageSets/Main/val.txt').write_text('b\n')
    data = DetectionFolder(str(tmp_path), training=True)
    assert len(data) == 1
    assert 'left out 1 pictures of the lists without XML: c' in str(data)
