"""VOC's files: what is written is read back, and both kinds of second column are understood."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.annotations import Annotations, ImageRecord, Problems, build_annotations
from falconet.datasets.formats.voc import read_split, read_voc, write_split, write_voc


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Of two images, one without objects; a box beyond its image, and a difficult object."""
    boxes = np.array([[0, 0, 12, 20], [3, 4, 70, 8], [1, 1, 2, 2]], dtype=np.float64)
    first = build_annotations(
        [ImageRecord(index + 1, str(tmp_path / f'JPEGImages/{index}.png'), (30, 40)) for index in range(3)],
        owners=np.array([0, 2, 2]),
        boxes=boxes,
        labels=np.array([1, 0, 1]),
        crowd=np.array([False, True, False]),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        object_ids=np.array([1, 2, 3]),
        class_names=['cat', 'dog'],
        category_ids=[1, 2],
        problems=Problems(),
    )
    (tmp_path / 'Annotations').mkdir()
    write_voc(tmp_path / 'Annotations', first)
    files = sorted((tmp_path / 'Annotations').glob('*.xml'))
    assert [file.name for file in files] == ['0.xml', '1.xml', '2.xml']
    again = read_voc(files, tmp_path / 'JPEGImages', classes=None, problems=Problems())
    for field in dataclasses.fields(Annotations):
        ours, theirs = (list(getattr(each, field.name)) for each in (again, first))
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('a.b\nc\n', ['a.b', 'c']),
        ('a.b -1\nc  1\nd  0\n', ['a.b', 'c', 'd']),  # one class's list
        ('/JPEGImages/c.jpg /SegmentationClassAug/c.png\n', ['c']),
    ],
)
def test_a_second_column_is_understood(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / 'train.txt').write_text(text)
    assert read_split(tmp_path, 'train') == names


def test_a_list_is_read_as_it_was_written_and_by_its_other_spellings(tmp_path: Path) -> None:
    write_split(tmp_path, 'trainaug', ['2007_000032', '2007_000039'])
    assert read_split(tmp_path, 'aug', spellings=('trainaug',)) == ['2007_000032', '2007_000039']


@pytest.mark.parametrize(
    ('split', 'message'),
    [
        ('trian', r'there is no split .*trian\.txt\. Did you mean train\? Write it\.'),
        ('twice', r'twice\.txt names c more than once'),
        ('empty', r'empty\.txt is empty'),
        ('latin', r'latin\.txt cannot be read: .*utf-8'),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path: Path, split: str, message: str) -> None:
    for name, content in {'train': b'a', 'twice': b'c\nd\nc', 'empty': b'\n', 'latin': b'\xe9'}.items():
        (tmp_path / f'{name}.txt').write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path, split, hint='Write it.')


XML = """<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>60</height></size>
<object><name>cat</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>
<ymax>{box[3]}</ymax></bndbox></object></annotation>"""


def read_xml(folder: Path, *boxes: tuple[float, ...], width: object = 80) -> tuple[Annotations, Problems]:
    files = [folder / f'{number}.xml' for number in range(len(boxes))]
    for file, box in zip(files, boxes, strict=True):
        file.write_text(XML.format(name=file.stem, width=width, box=box))
    problems = Problems()
    return read_voc(files, folder, classes=None, problems=problems), problems


@pytest.mark.parametrize('width', [10**9, 'inf', '80.5', -1, 'True'])
def test_an_image_of_a_size_that_none_has_is_named(tmp_path: Path, width: object) -> None:
    with pytest.raises(UserError, match=r'0\.xml is no VOC annotation: '):
        read_xml(tmp_path, (1, 1, 20, 20), width=width)


def test_boxes_that_cannot_be_are_counted_and_named(tmp_path: Path) -> None:
    """Fractions among pixels are dropped; the first pixel itself is a box as any other."""
    good, first = (1, 1, 20, 20), (1, 1, 1, 1)
    found, problems = read_xml(tmp_path, good, (0.25, 0.5, 0.75, 1), (1, 1, 1e18, 4), first)
    assert len(found.boxes) == 2
    assert '1 boxes dropped, in the first pixel' in str(problems)
    assert f'farther out than 1,000,000 pixels ({tmp_path}/2.jpg object 3' in str(problems)
    with pytest.raises(UserError, match='all 2 boxes lie in the first pixel'):
        read_xml(tmp_path, (0.25, 0.5, 0.75, 1), (0.1, 0.1, 0.2, 0.3))


def test_a_list_may_come_from_windows_and_is_named_where_it_is_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / 'train.txt').write_bytes(b'\xef\xbb\xbfa\r\nb\r\n')
    assert read_split(tmp_path, 'train') == ['a', 'b']
    (tmp_path / 'train.txt').write_bytes('café\n'.encode('latin-1'))
    with pytest.raises(UserError, match=r'train\.txt cannot be read: .*utf-8'):
        read_split(tmp_path, 'train')
