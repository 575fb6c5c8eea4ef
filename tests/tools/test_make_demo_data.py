"""What the generated data set promises to its readers, checked on a very small one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

# pycocotools' masks answer NumPy 2's __array__ call in the older way.
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')

SCRIPT = Path(__file__).parents[2] / 'tools' / 'make_demo_data.py'
# Few enough to be drawn in this process.
SETTINGS = {'seed': 3, 'train': 4, 'val': 2, 'test': 1}
SPLITS = ('train', 'val', 'test')


def load_tool() -> ModuleType:
    """Import the script by its path: ``tools`` is not a package."""
    spec = importlib.util.spec_from_file_location('make_demo_data', SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


tool = load_tool()


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete data set of 4 + 2 + 1 scenes."""
    out = tmp_path_factory.mktemp('demo') / 'data'
    assert tool.make_demo_data(out, **SETTINGS)
    return out


def digests(root: Path) -> dict[str, str]:
    """Map every file's relative path to the hash of its bytes."""
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def read_coco(root: Path, split: str) -> Any:
    """Load annotations with pycocotools; Any, because its stubs know no compressed RLE."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / 'coco' / 'annotations' / f'instances_{split}.json'))


def annotations_of(coco: Any, image: dict[str, Any]) -> list[dict[str, Any]]:
    return coco.loadAnns(coco.getAnnIds(imgIds=[image['id']]))


def images_of(coco: Any) -> list[dict[str, Any]]:
    return list(coco.imgs.values())


def voc_stem(image: dict[str, Any]) -> str:
    return f'2012_{image["id"]:06d}'


def test_the_same_seed_gives_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    tool.make_demo_data(tmp_path / 'again', **SETTINGS)
    assert digests(tmp_path / 'again') == digests(demo)


def test_another_seed_gives_other_pictures(demo: Path, tmp_path: Path) -> None:
    tool.make_demo_data(tmp_path / 'other', **{**SETTINGS, 'seed': 4})
    mine, other = digests(demo), digests(tmp_path / 'other')
    pictures = [name for name in mine if name.startswith('coco/train2017')]
    assert not {mine[name] for name in pictures} & set(other.values())


def test_worker_processes_do_not_change_the_bytes(tmp_path: Path) -> None:
    common = [sys.executable, str(SCRIPT), '--train', '6', '--val', '1', '--test', '2']
    for workers in ('1', '2'):
        command = [*common, '--workers', workers, str(tmp_path / workers)]
        subprocess.run(command, check=True, capture_output=True)
    assert digests(tmp_path / '1') == digests(tmp_path / '2')


def test_image_folder_holds_square_crops_by_class(demo: Path) -> None:
    for split in SPLITS:
        folder = demo / 'classification' / split
        assert sorted(path.name for path in folder.iterdir()) == sorted(tool.CLASSES)
        crops = list(folder.glob('*/*.jpg'))
        assert crops
        for crop in crops:
            with Image.open(crop) as picture:
                assert (picture.mode, picture.size) == ('RGB', (96, 96))


def test_crops_of_different_splits_come_from_different_scenes(demo: Path) -> None:
    scenes = [
        {path.stem.rsplit('_', 1)[0] for path in (demo / 'classification' / split).rglob('*.jpg')}
        for split in SPLITS
    ]
    assert all(not one & other for one, other in itertools.combinations(scenes, 2))


def test_the_size_of_one_split_changes_no_picture_of_another(demo: Path, tmp_path: Path) -> None:
    """Each split is drawn from a stream of its own."""
    tool.make_demo_data(tmp_path / 'other', **{**SETTINGS, 'train': 2, 'val': 1})
    mine, other = digests(demo), digests(tmp_path / 'other')
    for split in SPLITS:
        folder = f'coco/{split}2017/'
        shared = {name for name in other if name.startswith(folder)}
        assert shared
        assert all(other[name] == mine[name] for name in shared)
    pictures = [mine[name] for name in mine if name.startswith('coco/') and name.endswith('.jpg')]
    assert len(set(pictures)) == len(pictures) == 7


@pytest.mark.parametrize('split', [f'{each}2017' for each in SPLITS])
def test_coco_box_and_area_are_those_of_the_mask(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    assert coco.anns
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        box = [left, top, columns.max() - left + 1, rows.max() - top + 1]
        assert annotation['bbox'] == box
        assert annotation['area'] == mask.sum() >= 64


def test_coco_masks_of_one_image_do_not_overlap(demo: Path) -> None:
    coco = read_coco(demo, 'train2017')
    for image in images_of(coco):
        masks = [coco.annToMask(annotation) for annotation in annotations_of(coco, image)]
        assert not masks or np.sum(masks, axis=0).max() == 1


def test_coco_holds_the_cases_a_loader_must_survive(demo: Path) -> None:
    coco = read_coco(demo, 'train2017')
    categories = coco.loadCats(coco.getCatIds())
    assert [category['name'] for category in categories] == list(tool.CLASSES)
    assert coco.getCatIds() != list(range(1, 7)), 'category ids have gaps'
    assert np.diff(sorted(coco.imgs)).max() > 1, 'image ids have gaps'
    assert any(not annotations_of(coco, image) for image in images_of(coco)), 'a negative'
    crowds = [annotation for annotation in coco.anns.values() if annotation['iscrowd']]
    assert crowds
    assert all(isinstance(crowd['segmentation'], dict) for crowd in crowds)


def test_coco_images_exist_and_differ_in_size(demo: Path) -> None:
    images = images_of(read_coco(demo, 'train2017'))
    for image in images:
        with Image.open(demo / 'coco' / 'train2017' / image['file_name']) as picture:
            assert picture.size == (image['width'], image['height'])
    assert len({(image['width'], image['height']) for image in images}) > 1


def test_a_polygon_repeats_a_mask_with_holes_and_touching_corners() -> None:
    mask = (np.random.default_rng(0).random((24, 31)) < 0.6).astype(np.uint8)
    coco: Any = COCO()
    coco.imgs = {1: {'height': 24, 'width': 31}}
    annotation = {'image_id': 1, 'segmentation': tool.mask_to_polygons(mask)}
    assert np.array_equal(coco.annToMask(annotation), mask)


def test_voc_lists_name_the_images_of_coco(demo: Path) -> None:
    voc = demo / 'VOCdevkit' / 'VOC2012'
    for folder in ('Segmentation', 'Main'):
        lists = voc / 'ImageSets' / folder
        named = {name: (lists / f'{name}.txt').read_text().split() for name in SPLITS}
        for name, stems in named.items():
            assert stems == [voc_stem(i) for i in images_of(read_coco(demo, f'{name}2017'))]
        assert set((lists / 'trainval.txt').read_text().split()) == {*named['train'], *named['val']}
    assert (voc / 'classes.txt').read_text().split() == ['background', *tool.CLASSES]


@pytest.mark.parametrize('split', [f'{each}2017' for each in SPLITS])
def test_voc_masks_hold_the_class_of_the_coco_mask_or_void(demo: Path, split: str) -> None:
    coco, voc = read_coco(demo, split), demo / 'VOCdevkit' / 'VOC2012'
    class_of = {category: index for index, category in enumerate(coco.getCatIds(), start=1)}
    for image in images_of(coco):
        stem = voc_stem(image)
        assert (voc / 'JPEGImages' / f'{stem}.jpg').read_bytes() == (
            demo / 'coco' / split / image['file_name']
        ).read_bytes()
        classes_png = Image.open(voc / 'SegmentationClass' / f'{stem}.png')
        instances_png = Image.open(voc / 'SegmentationObject' / f'{stem}.png')
        assert classes_png.mode == instances_png.mode == 'P'
        palette = classes_png.getpalette() or []
        assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0], "VOC's colours"
        classes, instances = np.array(classes_png), np.array(instances_png)
        assert set(np.unique(classes)) <= {*range(7), 255}
        expected_classes, expected_instances = np.zeros_like(classes), np.zeros_like(classes)
        for number, annotation in enumerate(annotations_of(coco, image), start=1):
            mask = coco.annToMask(annotation) == 1
            crowd = annotation['iscrowd']
            expected_classes[mask] = 255 if crowd else class_of[annotation['category_id']]
            expected_instances[mask] = 255 if crowd else number
        known = classes != 255
        assert np.array_equal(known, instances != 255)
        assert np.array_equal(classes[known], expected_classes[known])
        assert np.array_equal(instances[known], expected_instances[known])
        assert known.mean() > 0.7, 'void is a thin border, not the picture'


@pytest.mark.parametrize('split', [f'{each}2017' for each in SPLITS])
def test_voc_xml_agrees_with_the_coco_boxes(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    for image in images_of(coco):
        path = demo / 'VOCdevkit' / 'VOC2012' / 'Annotations' / f'{voc_stem(image)}.xml'
        root = ElementTree.parse(path).getroot()
        assert root.findtext('folder') == 'VOC2012'
        assert root.findtext('filename') == f'{voc_stem(image)}.jpg'
        size = [int(root.findtext(f'size/{tag}') or 0) for tag in ('width', 'height', 'depth')]
        assert size == [image['width'], image['height'], 3]
        described = [
            (
                entry.findtext('name'),
                [int(entry.findtext(f'bndbox/{t}') or 0) for t in ('xmin', 'ymin', 'xmax', 'ymax')],
                int(entry.findtext('difficult') or 0),
            )
            for entry in root.iter('object')
        ]
        expected = []
        for annotation in annotations_of(coco, image):
            left, top, width, height = annotation['bbox']
            corners = [left + 1, top + 1, left + width, top + height]
            name = coco.cats[annotation['category_id']]['name']
            expected.append((name, corners, annotation['iscrowd']))
        assert described == expected


def test_a_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'coco').mkdir()
    (tmp_path / 'coco' / 'precious.txt').write_text('mine')
    before = digests(tmp_path)
    assert tool.main([str(tmp_path), '--train', '1', '--val', '1', '--test', '1', '--force']) == 2
    assert digests(tmp_path) == before
    assert 'was not made by this tool' in capsys.readouterr().err


def test_a_repeat_skips_and_other_settings_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path), '--train', '1', '--val', '1', '--test', '1']
    assert tool.main(command) == 0
    written = (tmp_path / 'demo.json').stat().st_mtime_ns
    capsys.readouterr()
    assert tool.main(command) == 0
    assert 'already complete' in capsys.readouterr().out
    assert (tmp_path / 'demo.json').stat().st_mtime_ns == written
    assert tool.main([*command, '--seed', '1']) == 0
    assert json.loads((tmp_path / 'demo.json').read_text())['settings']['seed'] == 1


def test_an_interrupted_run_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tool, 'write_lists', interrupt)
        with pytest.raises(KeyboardInterrupt):
            tool.make_demo_data(tmp_path, train=1, val=1, test=1)
    assert json.loads((tmp_path / 'demo.json').read_text())['state'] == 'in progress'
    assert tool.make_demo_data(tmp_path, train=1, val=1, test=1)
    assert not tool.make_demo_data(tmp_path, train=1, val=1, test=1)


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    tool.make_demo_data(tmp_path, train=1, val=1, test=1)
    (tmp_path / 'VOCdevkit' / 'VOC2012' / 'classes.txt').unlink()
    assert tool.make_demo_data(tmp_path, train=1, val=1, test=1)
    assert (tmp_path / 'VOCdevkit' / 'VOC2012' / 'classes.txt').exists()


def test_help_does_not_import_the_heavy_libraries() -> None:
    command = [sys.executable, '-X', 'importtime', str(SCRIPT), '--help']
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.rsplit('|', 1)[-1].strip() for line in result.stderr.splitlines()}
    assert not imported & {'numpy', 'cv2', 'PIL', 'pycocotools', 'rich'}


def test_drawing_does_not_wait_for_torch(fresh_process: Callable[[str], str]) -> None:
    """Every one of the processes that draw imports the writers."""
    fresh_process("""
        import falconet.datasets.formats.coco, falconet.datasets.formats.voc
        from falconet.datasets.formats.masks import IGNORE
        assert not {'torch', 'mmengine'} & set(sys.modules)
        from falconet.heads.base import IGNORE as label
        assert IGNORE == label
    """)
