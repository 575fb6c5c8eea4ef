"""Detection data: COCO and VOC files, what is wrong with them, and how boxes follow their picture."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.datasets.annotations import Problems
from falconet.datasets.detection.dataset import CocoDetection
from falconet.datasets.formats.coco import read_coco
from falconet.datasets.samples import Sample, SampleKey, Skipped, collate

BOXES = {'bbox_params': {'format': 'albumentations', 'clip': True, 'filter_invalid_bboxes': True}}


def load(base: Path, split: str = 'train', **options: Any) -> CocoDetection:
    options = {'training': split == 'train', **options}
    return CocoDetection(str(base), f'annotations/{split}.json', split, **options)


@pytest.fixture
def change(coco_folder: Path) -> Callable[[Callable[[dict], None]], Path]:
    """Apply a function to the training annotations; return the folder."""

    def apply(function: Callable[[dict], None]) -> Path:
        path = coco_folder / 'annotations/train.json'
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))
        return coco_folder

    return apply


def test_gaps_in_the_identifiers_are_closed_inside_and_kept_for_results(coco_folder: Path) -> None:
    data = load(coco_folder)
    assert data.classes == ('red', 'green')  # by identifier, not by position in the file
    assert data.annotations.category_ids == (3, 7)
    assert data.annotations.image_ids.tolist() == list(range(5, 53, 4))
    assert set(data.annotations.labels.tolist()) == {0, 1}


def test_the_log_line_counts_everything(coco_folder: Path) -> None:
    assert str(load(coco_folder)) == (
        '12 images (1 without objects), 21 objects of 2 classes: red 11, green 10; '
        '1 crowds (neither learnt nor counted)'
    )


def test_boxes_are_those_pycocotools_reads_on_real_annotations(real_data: Path) -> None:
    from pycocotools.coco import COCO

    base = real_data / 'coco'
    data = CocoDetection(str(base), 'annotations/instances_train2017.json', 'train2017', training=True)
    theirs = COCO(str(base / 'annotations/instances_train2017.json'))
    assert len(data) == len(theirs.imgs)
    for index, identifier in enumerate(data.annotations.image_ids.tolist()):
        where = data.annotations.objects(index)
        expected = {each['id']: each for each in theirs.loadAnns(theirs.getAnnIds(identifier))}
        assert set(data.annotations.object_ids[where].tolist()) == set(expected)
        for k in range(where.start, where.stop):
            entry = expected[int(data.annotations.object_ids[k])]
            x, y, w, h = entry['bbox']
            np.testing.assert_allclose(data.annotations.original_boxes[k], [x, y, x + w, y + h])
            assert data.annotations.category_ids[data.annotations.labels[k]] == entry['category_id']
            assert data.annotations.crowd[k] == entry['iscrowd']


def test_a_training_sample_has_boxes_as_fractions_and_an_empty_one_has_none(coco_folder: Path) -> None:
    data = load(coco_folder)
    sample = data[SampleKey(0, 0)]
    assert isinstance(sample, Sample)
    assert sample.target['boxes_unit'].dtype == np.float32
    pixels = sample.target['boxes_unit'] * [80, 60, 80, 60]
    np.testing.assert_allclose(pixels, data.annotations.boxes[data.annotations.objects(0)], atol=1e-3)
    assert sample.target['labels'].tolist() == [0, 1]
    empty = data[SampleKey(1, 0)]
    assert isinstance(empty, Sample)
    assert empty.target['boxes_unit'].shape == (0, 4)
    batch = collate([sample, empty])
    assert batch['targets'][1]['labels'].shape == (0,)


def test_several_files_become_one_data_set(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/test.json'
    content = json.loads(path.read_text())
    for entry in content['images']:
        entry['id'] += 1000
    for entry in content['annotations']:
        entry['image_id'] += 1000
    path.write_text(json.dumps(content))
    data = CocoDetection(
        str(coco_folder),
        ['annotations/train.json', 'annotations/test.json'],
        ['train', 'test'],
        training=True,
    )
    assert len(data) == 16
    assert Path(data.paths[15]).is_file()


def test_identifiers_that_repeat_across_files_are_an_error(coco_folder: Path) -> None:
    with pytest.raises(UserError, match=r'train\.json and .*test\.json: image id 5 occurs twice'):
        CocoDetection(
            str(coco_folder),
            ['annotations/train.json', 'annotations/test.json'],
            ['train', 'test'],
            training=True,
        )


def test_some_categories_only(coco_folder: Path) -> None:
    data = load(coco_folder, categories=['green'])
    assert data.classes == ('green',)
    assert set(data.annotations.labels.tolist()) == {0}
    assert not data.problems.found
    with pytest.raises(UserError, match=r"no category 'grean'. Did you mean green"):
        load(coco_folder, categories=['grean'])


def test_a_limit_takes_the_first_images_that_have_an_object(coco_folder: Path) -> None:
    data = load(coco_folder, limit=3)
    assert [Path(path).stem for path in data.paths] == ['0', '2', '3']
    assert data.annotations.starts.tolist() == [0, 2, 4, 6]


def first_object(key: str, value: object) -> Callable[[dict], None]:
    return lambda content: content['annotations'][0].update({key: value})


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (first_object('bbox', [1, 2, 0, 5]), '1 boxes dropped, zero or negative size'),
        (first_object('bbox', [10, 10, -5, 5]), '1 boxes dropped, zero or negative size'),
        (first_object('bbox', [90, 10, 5, 5]), '1 boxes dropped, outside their image'),
        (first_object('bbox', [float('nan'), 10, 5, 5]), '1 boxes dropped, not finite'),
        (first_object('bbox', [70, 10, 50, 20]), '1 boxes clipped to their image'),
        (first_object('image_id', 999), '1 objects dropped, of images that are not in the file'),
        (first_object('category_id', 999), '1 objects dropped, of categories that are not in the file'),
    ],
)
def test_bad_objects_are_dropped_counted_and_named_and_fatal_when_strict(
    change: Callable, damage: Callable, message: str
) -> None:
    base = change(damage)
    text = str(load(base))
    assert message in text
    assert '100' in text  # the object's identifier
    with pytest.raises(UserError, match=f'strict: .*\n.*{message}'):
        load(base, strict=True)
    assert 'clipped' in message or len(load(base).annotations.labels) == 21


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda content: content.pop('categories'), "no list 'categories'"),
        (lambda content: content.update(categories=[]), "'categories' is empty"),
        (lambda content: content['images'].append(content['images'][0]), 'image id 5 occurs twice'),
        (lambda content: content['images'][0].pop('width'), "each image needs 'id', 'file_name'"),
        (lambda content: content['annotations'][0].pop('bbox'), "each annotation needs 'id'"),
        (first_object('bbox', [1, 2, 3]), r"'bbox' = \[x, y, width, height\].*got \{'id': 100"),
        (first_object('id', 'abc'), r"got \{'id': 'abc'"),
        (lambda content: content['images'][0].update(id=2**70), 'does not fit 64 bits'),
        (lambda content: content['categories'].append({'id': 9, 'name': 'red'}), 'occurs twice'),
        (
            lambda content: content.update(annotations=[]),
            'nothing to learn: 12 images without a single object',
        ),
        (
            lambda content: [each.update(iscrowd=1) for each in content['annotations']],
            r'nothing to learn: .*\(22 crowds\)',
        ),
    ],
)
def test_a_file_that_makes_no_sense_is_an_error_that_names_it(
    change: Callable, damage: Callable, message: str
) -> None:
    base = change(damage)
    with pytest.raises(UserError, match=message):
        load(base)


def test_broken_files_are_named(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match=r'train\.json is no valid JSON, or truncated'):
        load(coco_folder)
    path.write_text('[]')
    with pytest.raises(UserError, match='is it a result file'):
        load(coco_folder)
    path.unlink()
    with pytest.raises(UserError, match=r'there is no annotation file .*train\.json. .*test\.json'):
        load(coco_folder)
    with pytest.raises(UserError, match='does not exist'):
        load(coco_folder / 'nowhere')


def test_missing_pictures_are_dropped_and_named_and_all_missing_is_an_error(coco_folder: Path) -> None:
    (coco_folder / 'train/3.png').unlink()
    data = load(coco_folder)
    assert len(data) == 11
    assert re.search(r'1 images dropped, no such file \(.*3\.png\)', str(data))
    sample = data[SampleKey(3, 0)]
    assert isinstance(sample, Sample)
    assert sample.info.path.endswith('4.png')
    with pytest.raises(UserError, match='none of the 12 images is there'):
        CocoDetection(str(coco_folder), 'annotations/train.json', 'elsewhere', training=True)


def test_a_picture_of_another_size_than_annotated_is_left_out_and_named(change: Callable) -> None:
    base = change(lambda content: content['images'][0].update(width=160))
    data = load(base, training=False)
    skipped = data[0]
    assert isinstance(skipped, Skipped)
    assert 'is 80x60 pixels, 160x60 by its annotations' in skipped.reason
    with pytest.raises(UserError, match='80x60 pixels, 160x60'):
        load(base, strict=True)


def test_classes_are_matched_by_name(coco_folder: Path) -> None:
    assert load(coco_folder, 'test', classes=('red', 'green')).classes == ('red', 'green')
    with pytest.raises(UserError, match=r'Only in test\.json: green\. Only in the model: blue'):
        load(coco_folder, 'test', classes=('red', 'blue'))
    with pytest.raises(UserError, match='their order does not'):
        load(coco_folder, 'test', classes=('green', 'red'))


def test_the_index_is_arrays_that_worker_processes_share(coco_folder: Path) -> None:
    """No Python object per image or box: reading one would copy its page into every worker."""
    annotations = load(coco_folder).annotations
    for name, value in vars(annotations).items():
        assert name in ('paths', 'class_names', 'category_ids') or isinstance(value, np.ndarray), name


def test_objects_of_one_image_stay_together(coco_folder: Path) -> None:
    """Annotation files list objects in any order."""
    path = coco_folder / 'annotations/train.json'
    content = json.loads(path.read_text())
    before = load(coco_folder).annotations
    content['annotations'].reverse()
    path.write_text(json.dumps(content))
    after = read_coco([path], [coco_folder / 'train'], categories=None, problems=Problems())
    for image in range(len(before)):
        ids = [set(each.object_ids[each.objects(image)].tolist()) for each in (before, after)]
        assert ids[0] == ids[1]


def test_numbers_written_as_strings_and_a_crowd_of_null_are_understood(coco_folder: Path) -> None:
    path = coco_folder / 'annotations/train.json'
    plain = load(coco_folder)
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        entry |= {key: str(entry[key]) for key in ('id', 'image_id', 'category_id')}
        entry['iscrowd'] = entry['iscrowd'] or None
    path.write_text(json.dumps(content))
    found = load(coco_folder)
    assert str(found) == str(plain)
    np.testing.assert_array_equal(found.annotations.boxes, plain.annotations.boxes)


def test_a_user_error_of_a_loading_process_keeps_its_message_only(coco_folder: Path) -> None:
    from falconet.datasets.loader import build_loader

    # Crops of different sizes, and no resize after them.
    data = load(coco_folder, augment=[{'type': 'RandomIoUCrop', 'min_ious': (0.1,)}])
    loader = build_loader(data, batch_size=12, num_workers=1, training=True, seed=0)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert str(caught.value).startswith('a batch needs images of one size')
    assert 'Traceback' not in str(caught.value)
