"""One small set of pictures with boxes, written in every format and as several tools lay it out."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from falconet.datasets.annotations import Annotations, Problems
from falconet.datasets.formats.coco import read_coco
from falconet.datasets.formats.voc import write_voc


@dataclass
class Exported:
    """The training pictures of the `coco_folder` fixture, without its crowd, to be written elsewhere."""

    content: dict[str, Any]
    pictures: Path
    annotations: Annotations

    def lines(self, image: dict[str, Any], *, segments: bool = False, digits: int = 6) -> list[str]:
        """The lines of a YOLO label file."""
        ids = sorted(each['id'] for each in self.content['categories'])
        lines = []
        for each in self.content['annotations']:
            if each['image_id'] != image['id']:
                continue
            x, y, width, height = each['bbox']
            if segments:
                points = [x, y, x + width, y, x + width, y + height, x, y + height]
                values = [value / (80, 60)[place % 2] for place, value in enumerate(points)]
            else:
                values = [(x + width / 2) / 80, (y + height / 2) / 60, width / 80, height / 60]
            words = ' '.join(f'{value:.{digits}f}' for value in values)
            lines.append(f'{ids.index(each["category_id"])} {words}')
        return lines

    def rows(self) -> list[tuple[Any, ...]]:
        """Picture, corners and class of every object."""
        names = {each['id']: each['name'] for each in self.content['categories']}
        files = {each['id']: each['file_name'] for each in self.content['images']}
        return [
            (files[each['image_id']], x, y, x + w, y + h, names[each['category_id']])
            for each in self.content['annotations']
            for x, y, w, h in [each['bbox']]
        ]

    def copy_pictures(self, folder: Path) -> Path:
        """Copy the pictures into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for each in self.content['images']:
            shutil.copy(self.pictures / each['file_name'], folder)
        return folder


@pytest.fixture
def exported(coco_folder: Path) -> Exported:
    file = coco_folder / 'annotations/train.json'
    content = json.loads(file.read_text())
    content['annotations'] = [each for each in content['annotations'] if not each['iscrowd']]
    content['images'].sort(key=lambda each: each['file_name'])
    file.write_text(json.dumps(content))
    pictures = coco_folder / 'train'
    annotations = read_coco([file], [pictures], categories=None, problems=Problems())
    return Exported(content, pictures, annotations)


Writer = Callable[[Exported, Path], None]


def coco_roboflow(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'train')
    (root / 'train/_annotations.coco.json').write_text(json.dumps(set_.content))


def coco_cvat(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'images/default')
    (root / 'annotations').mkdir()
    (root / 'annotations/instances_default.json').write_text(json.dumps(set_.content))


def coco_label_studio(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'images')
    images = [{**each, 'file_name': f'images\\{each["file_name"]}'} for each in set_.content['images']]
    (root / 'result.json').write_text(json.dumps({**set_.content, 'images': images}))


def coco_fiftyone(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'data')
    (root / 'labels.json').write_text(json.dumps(set_.content))


def voc_cvat(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'JPEGImages')
    (root / 'Annotations').mkdir()
    write_voc(root / 'Annotations', set_.annotations)
    (root / 'ImageSets/Main').mkdir(parents=True)
    names = [f'{Path(each["file_name"]).stem}\n' for each in set_.content['images']]
    (root / 'ImageSets/Main/default.txt').write_text(''.join(names))


def voc_roboflow(set_: Exported, root: Path) -> None:
    write_voc(set_.copy_pictures(root / 'train'), set_.annotations)


def voc_fiftyone(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'data')
    (root / 'labels').mkdir()
    write_voc(root / 'labels', set_.annotations)


def _yolo(set_: Exported, labels: Path, **options: Any) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for image in set_.content['images']:
        text = ''.join(f'{line}\n' for line in set_.lines(image, **options))
        (labels / f'{Path(image["file_name"]).stem}.txt').write_text(text)


def yolo_roboflow(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'train/images')
    _yolo(set_, root / 'train/labels')
    (root / 'data.yaml').write_text("train: ../train/images\nnc: 2\nnames: ['red', 'green']\n")


def yolo_fiftyone(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'images/train')
    _yolo(set_, root / 'labels/train')
    (root / 'dataset.yaml').write_text('names:\n  0: red\n  1: green\npath: .\ntrain: ./images/train/\n')


def yolo_cvat(set_: Exported, root: Path) -> None:
    _yolo(set_, set_.copy_pictures(root / 'obj_train_data'))
    (root / 'obj.names').write_text('red\ngreen\n')
    (root / 'obj.data').write_text('classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n')
    (root / 'train.txt').write_text('data/obj_train_data/0.png\n')


def yolo_label_studio(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'images')
    _yolo(set_, root / 'labels')
    (root / 'classes.txt').write_text('red\ngreen\n')
    (root / 'notes.json').write_text('{"categories": [], "info": {}}')


def yolo_segments(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'images')
    _yolo(set_, root / 'labels', segments=True)
    (root / 'data.yaml').write_text('names: [red, green]\n')


def csv_plain(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'images')
    lines = ['image,xmin,ymin,xmax,ymax,label', *(','.join(map(str, row)) for row in set_.rows())]
    with_objects = {row[0] for row in set_.rows()}
    empty = [each['file_name'] for each in set_.content['images'] if each['file_name'] not in with_objects]
    lines += [f'{name},,,,,' for name in empty]
    (root / 'boxes.csv').write_text('\n'.join(lines) + '\n')


def csv_roboflow(set_: Exported, root: Path) -> None:
    set_.copy_pictures(root / 'train')
    lines = ['filename,width,height,class,xmin,ymin,xmax,ymax']
    lines += [f'{file},80,60,{name},{a},{b},{c},{d}' for file, a, b, c, d, name in set_.rows()]
    (root / 'train/_annotations.csv').write_text('\n'.join(lines))


def labelme(set_: Exported, root: Path) -> None:
    root.mkdir(exist_ok=True)
    set_.copy_pictures(root)
    for image in set_.content['images']:
        shapes = [
            {'label': name, 'points': [[a, b], [c, d]], 'shape_type': 'rectangle'}
            for file, a, b, c, d, name in set_.rows()
            if file == image['file_name']
        ]
        content = {'shapes': shapes, 'imagePath': image['file_name'], 'imageHeight': 60, 'imageWidth': 80}
        (root / f'{Path(image["file_name"]).stem}.json').write_text(json.dumps(content))


WRITERS: dict[str, Writer] = {
    each.__name__: each
    for each in (
        *(coco_roboflow, coco_cvat, coco_label_studio, coco_fiftyone, voc_cvat, voc_roboflow, voc_fiftyone),
        *(yolo_roboflow, yolo_fiftyone, yolo_cvat, yolo_label_studio, yolo_segments),
        *(csv_plain, csv_roboflow, labelme),
    )
}


@pytest.fixture
def write(exported: Exported, tmp_path: Path) -> Callable[[str], Path]:
    """Write the set in a tool's layout; return its folder."""

    def into(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        WRITERS[name](exported, root)
        return root

    return into
