"""Pictures that lie on their side, in every format and out again: boxes and masks stay on their objects."""

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from falconet.core.errors import UserError
from falconet.datasets.detection.folder import DetectionFolder
from falconet.datasets.segmentation.folder import SegmentationFolder
from falconet.tasks.build import build_dataset
from falconet.tools import convert_data

BOX = (20, 6, 52, 22)  # of the object, as shown
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)


def stored(image: Image.Image, orientation: int) -> Image.Image:
    """Return a picture as a camera stores it."""
    return image.transpose(STORED[orientation]) if orientation in STORED else image


def photographs(folder: Path, orientations: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Write a picture with one red object a file; return its box on the stored pixels, height and width."""
    folder.mkdir(parents=True)
    found = {}
    for place, orientation in enumerate(orientations):
        pixels = np.random.default_rng(place).integers(0, 120, (60, 80, 3), dtype=np.uint8)
        left, top, right, bottom = BOX
        pixels[top:bottom, left:right] = (250, 20, 20)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = stored(Image.fromarray(pixels), orientation)
        name = f'{orientation}.png'
        image.save(folder / name, exif=exif)
        rows, columns = np.nonzero(red(np.array(image)))
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        found[name] = (tuple(map(int, box)), image.height, image.width)
    return found


def red(image: np.ndarray) -> np.ndarray:
    return (image[..., 0] > 200) & (image[..., 1] < 80)


def coco(root: Path) -> Path:
    """Pictures with boxes and outlines drawn on the stored pixels, as some tools do."""
    images, objects = [], []
    for number, (name, (box, height, width)) in enumerate(
        photographs(root / 'images', (1, *SIDEWAYS)).items(), 1
    ):
        left, top, right, bottom = box
        images.append({'id': number, 'file_name': name, 'height': height, 'width': width})
        outline = [left, top, right, top, right, bottom, left, bottom]
        box_of = [left, top, right - left, bottom - top]
        entry = {'id': number, 'image_id': number, 'category_id': 1, 'iscrowd': 0, 'area': 512}
        objects.append({**entry, 'bbox': box_of, 'segmentation': [outline]})
    content = {'images': images, 'annotations': objects, 'categories': [{'id': 1, 'name': 'mark'}]}
    (root / 'labels.json').write_text(json.dumps(content))
    return root


def check_boxes(root: Path, count: int) -> None:
    """Every box must be where the object is."""
    config = Config({'val_dataloader': {'dataset': {'type': 'DetectionFolder', 'holdout': 0.0}}})
    dataset = build_dataset(config, 'val_dataloader', root=root, classes=None, seed=0)
    assert len(dataset) == count
    for index in range(count):
        (box,) = dataset.annotations.boxes[dataset.annotations.objects(index)]
        rows, columns = np.nonzero(red(dataset.read(index).image))
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # JPEG moves an edge by a pixel.
        np.testing.assert_allclose(box, expected, atol=1.01, err_msg=dataset.paths[index])


@pytest.mark.parametrize('kind', ['coco', 'voc', 'yolo', 'csv'])
def test_boxes_drawn_on_stored_pixels_stay_on_their_objects_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = coco(tmp_path / 'source')
    check_boxes(source, 5)
    monkeypatch.setattr(sys, 'argv', ['convert_data', str(source), str(tmp_path / kind), '--to', kind])
    convert_data.main()
    check_boxes(tmp_path / kind, 5)


def test_outlines_drawn_on_stored_pixels_become_masks_of_the_picture_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = coco(tmp_path / 'source')
    monkeypatch.setattr(sys, 'argv', ['convert_data', str(source), str(tmp_path / 'out'), '--to', 'masks'])
    convert_data.main()
    dataset = SegmentationFolder(str(tmp_path / 'out'), holdout=0, training=True)
    assert len(dataset) == 5
    for index in range(5):
        image = dataset.read(index).image
        assert image.shape[:2] == (60, 80)
        assert ((dataset.read_mask(index) == 1) == red(image)).all()


@pytest.mark.parametrize('drawn_on', ['stored', 'shown'])
def test_sizes_in_a_list_tell_which_pixels_its_boxes_mean(tmp_path: Path, drawn_on: str) -> None:
    found = photographs(tmp_path / 'images', SIDEWAYS)
    with (tmp_path / 'boxes.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['filename', 'width', 'height', 'class', 'xmin', 'ymin', 'xmax', 'ymax'])
        for name, (box, height, width) in found.items():
            if drawn_on == 'shown':
                box, height, width = BOX, 60, 80
            writer.writerow([name, width, height, 'mark', *box])
    check_boxes(tmp_path, 4)


@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('kind', ['yolo', 'csv'])
def test_boxes_of_formats_without_sizes_mean_the_picture_as_shown(
    tmp_path: Path, kind: str, ending: str
) -> None:
    """Of a TIFF Pillow says the size as shown, of other formats as stored."""
    photographs(tmp_path / 'images', tuple(range(1, 9)))
    left, top, right, bottom = BOX
    lines = ['image,xmin,ymin,xmax,ymax,label']
    (tmp_path / 'labels').mkdir()
    for path in sorted((tmp_path / 'images').iterdir()):
        with Image.open(path) as picture:
            options = {'jpg': {'quality': 100, 'subsampling': 0}, 'webp': {'lossless': True}}.get(ending, {})
            picture.save(path.with_suffix(f'.{ending}'), exif=picture.getexif(), **options)
        if ending != 'png':
            path.unlink()
        lines.append(f'{path.stem}.{ending},{left},{top},{right},{bottom},mark')
        values = ((left + right) / 160, (top + bottom) / 120, (right - left) / 80, (bottom - top) / 60)
        if kind == 'yolo':
            (tmp_path / f'labels/{path.stem}.txt').write_text(f'0 {" ".join(map(str, values))}')
    if kind == 'yolo':
        (tmp_path / 'classes.txt').write_text('mark')
    else:
        (tmp_path / 'boxes.csv').write_text('\n'.join(lines))
    check_boxes(tmp_path, 8)


@pytest.mark.parametrize('ending', ['png', 'tif'])
@pytest.mark.parametrize('noted', [True, False])
def test_a_mask_is_turned_as_its_own_note_says(tmp_path: Path, ending: str, noted: bool) -> None:
    """Masks of the stored pixels with the picture's note, and masks of the picture as shown without one."""
    photographs(tmp_path / 'images', tuple(range(1, 9)))
    (tmp_path / 'masks').mkdir()
    (tmp_path / 'classes.txt').write_text('background\nmark\n')
    for orientation in range(1, 9):
        mask = np.zeros((60, 80), np.uint8)
        mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
        exif = Image.Exif()
        exif[0x0112] = orientation if noted else 1
        image = stored(Image.fromarray(mask), orientation if noted else 1)
        image.save(tmp_path / f'masks/{orientation}.{ending}', exif=exif)
    for way, shown in (('auto', True), ('ignore', False)):
        if not shown and not noted:
            continue
        dataset = SegmentationFolder(str(tmp_path), holdout=0, training=True, exif=way)
        assert len(dataset) == 8
        for index in range(8):
            image, found = dataset.read(index).image, dataset.read_mask(index)
            assert found.shape == dataset.size(index) == image.shape[:2]
            assert ((found == 1) == red(image)).all(), dataset.paths[index]


SIZES: dict[str, tuple[str, str, str]] = {
    'no number': ('80', 'wide', 'width should be a number'),
    'a fraction': ('80', '80.5', 'width should be a whole number'),
    'nothing': ('80', '0', 'height and width must be 1 to'),
}


@pytest.mark.parametrize('fault', SIZES)
def test_a_size_that_is_none_is_named_with_its_line(tmp_path: Path, fault: str) -> None:
    photographs(tmp_path / 'images', (1,))
    old, new, message = SIZES[fault]
    text = 'filename,width,height,class,xmin,ymin,xmax,ymax\n1.png,80,60,mark,20,6,52,22\n'
    (tmp_path / 'boxes.csv').write_text(text.replace(old, new))
    with pytest.raises(UserError, match=rf'boxes\.csv, line 2: {message}'):
        DetectionFolder(str(tmp_path), holdout=0, training=True)


@pytest.mark.parametrize('name', ['images/9.png', 'p.json', 'p.csv', 'p.xml', 'p.yaml', 'classes.txt'])
def test_nothing_waits_for_a_pipe(tmp_path: Path, name: str) -> None:
    """It would wait forever."""
    source: Callable[[Path], Path] = coco
    os.mkfifo(source(tmp_path / 'data') / name)
    check_boxes(tmp_path / 'data', 5)
