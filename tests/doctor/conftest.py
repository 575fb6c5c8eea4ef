"""Clean folders of labelled pictures, one a task, for faults to be planted in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from falconet.doctor.examine import Examination, examine
from falconet.tasks.build import load_config

# What makes inputs about as large as the pictures here, and default boxes that do not follow a recipe.
OPTIONS = {
    'linear_folder': ['val_dataloader.dataset.augment.0.crop=160'],
    'ssdlite_folder': [
        *('val_dataloader.dataset.augment.0.height=320', 'val_dataloader.dataset.augment.0.width=320'),
        *('model.head.min_scale=0.2', 'model.head.match_threshold=0.5'),
    ],
    'deeplabv3_folder': ['val_dataloader.dataset.augment.0.size=160'],
}


def scene(seed: int, tint: int = 0) -> np.ndarray:
    """A picture of large soft blots, unlike those of other seeds; uint8 (120, 160, 3)."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    image[..., tint] //= 2
    return image


def write_scene(path: Path, seed: int, tint: int = 0) -> Path:
    """Write a scene."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == '.jpg' else []
    assert cv2.imwrite(str(path), scene(seed, tint), options)
    return path


Examine = Callable[..., Examination]


@pytest.fixture
def examined(root: Path) -> Examine:
    """Examine a folder with one of the configs for own data."""

    def run(name: str, data: Path, *options: str) -> Examination:
        config = load_config(root / f'configs/{name}.py', [*OPTIONS[name], *options])
        return examine(config, root=str(data))

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of two classes: 12 to learn from and 4 to score of each."""
    for tint, name in enumerate(('ant', 'bee')):
        for split, count in (('train', 12), ('val', 4)):
            for index in range(count):
                seed = 1000 * tint + 100 * (split == 'val') + index
                write_scene(tmp_path / f'data/{split}/{name}/{index}.png', seed, tint)
    return tmp_path / 'data'


class Coco:
    """Pictures with boxes in COCO's format, to be changed and written again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[str, dict[str, Any]] = {}

    def add_picture(self, split: str, name: str, seed: int, size: tuple[int, int] = (120, 160)) -> int:
        """Write a picture and name it in the split's file; return its id."""
        path = self.root / split / name
        if not path.exists():
            write_scene(path, seed)
        return self.name_picture(split, name, size)

    def name_picture(self, split: str, name: str, size: tuple[int, int] = (120, 160)) -> int:
        """Name a picture in the split's file; return its id."""
        images = self.content[split]['images']
        images.append({'id': len(images) + 1, 'file_name': name, 'height': size[0], 'width': size[1]})
        return len(images)

    def add_box(self, split: str, image: int, category: int, *box: float, **more: Any) -> None:
        """Add a box, x y width height."""
        objects = self.content[split]['annotations']
        entry = {'id': len(objects) + 1, 'image_id': image, 'category_id': category, 'bbox': list(box)}
        objects.append({**entry, 'area': box[2] * box[3], 'iscrowd': 0, **more})

    def write(self) -> None:
        """Write the files."""
        (self.root / 'annotations').mkdir(exist_ok=True)
        for split, content in self.content.items():
            (self.root / f'annotations/instances_{split}.json').write_text(json.dumps(content))


@pytest.fixture
def boxes(tmp_path: Path) -> Coco:
    """30 pictures to learn from and 6 to score, a cat or a dog in each; JPEG."""
    coco = Coco(tmp_path / 'boxes')
    for split, count in (('train', 30), ('val', 6)):
        categories = [{'id': 1, 'name': 'house cat'}, {'id': 2, 'name': 'dog'}]
        coco.content[split] = {'images': [], 'annotations': [], 'categories': categories}
        for index in range(count):
            image = coco.add_picture(split, f'{split}{index}.jpg', 100 * (split == 'val') + index)
            square = [[20, 20, 100, 20, 100, 90, 20, 90]]
            coco.add_box(split, image, 1 + index % 2, 20, 20, 80, 70, segmentation=square)
    coco.write()
    return coco


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """30 pictures with masks of background, road and sign to learn from, and 6 to score; JPEG."""
    root = tmp_path / 'masks'
    for split, count in (('train', 30), ('val', 6)):
        (root / 'masks' / split).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((120, 160), np.uint8)
            mask[20:60, 20:60], mask[80:100, 80:110] = 1, 2
            cv2.imwrite(str(root / f'masks/{split}/{index}.png'), mask)
            write_scene(root / f'images/{split}/{index}.jpg', 500 + 100 * (split == 'val') + index)
    (root / 'classes.txt').write_text('background\nroad\nsign\n')
    return root
