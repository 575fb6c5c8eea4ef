"""Files that must stay, and class names of every kind, through the real command lines."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Command = Callable[..., Any]


def picture_of(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (40, 30), (200, 30, 40)).save(path)
    return path


@pytest.mark.parametrize(
    ('task', 'given', 'there'),
    [
        ('classification', 'elsewhere/holiday.jpg', 'holiday.jpg'),
        ('classification', 'elsewhere/a.jpeg', 'a.png'),
        ('segmentation', 'elsewhere/a.jpg', 'a_mask.png'),
        ('classification', 'elsewhere/a.jpg', 'predictions.json'),
        ('classification', 'elsewhere/a.jpg', 'contact_sheet.png'),
        ('classification', 'elsewhere/a.jpg', '.predictions.lines'),
    ],
)
def test_predicting_replaces_no_file_of_the_user_unless_told_to(
    command: Command, untrained: Callable, folders: Path, masks: Path, task: str, given: str, there: str
) -> None:
    checkpoint = untrained(task, masks if task == 'segmentation' else folders)
    picture_of(Path(given))
    users = Path('here') / there
    users.parent.mkdir()
    users.write_bytes(b'mine')
    done = command('predict', checkpoint, given, '--out', 'here')
    assert done.code == 2, done.output
    assert f'1 files that Falconet did not make would be overwritten: {users}' in done.output
    assert 'Choose another --out, or add --overwrite' in done.output
    # What is asked for is done, and results of an earlier run need no asking.
    told = command('predict', checkpoint, given, '--out', 'here', '--overwrite', but=[users.absolute()])
    assert told.code == 0, told.output
    results = [path.absolute() for path in Path('here').iterdir()]
    assert command('predict', checkpoint, given, '--out', 'here', but=results).code == 0


def test_predicting_never_replaces_its_own_input(
    command: Command, untrained: Callable, folders: Path
) -> None:
    picture = picture_of(Path('photos/a.png'))
    done = command('predict', untrained('classification', folders), picture, '--out', 'photos', '--overwrite')
    assert done.code == 2, done.output
    assert 'a.png would be overwritten by a result: choose another --out than photos' in done.output


@pytest.mark.parametrize(
    ('out', 'message'),
    [
        ('classification.pth', 'give a name that ends in .json'),
        ('notes.json', '1 files that Falconet did not make would be overwritten: notes.json'),
        ('confusion/metrics.json', 'confusion/confusion_matrix.png'),
    ],
)
def test_scores_replace_no_file_of_the_user(
    command: Command, untrained: Callable, folders: Path, out: str, message: str
) -> None:
    Path('notes.json').write_text('{"mine": 1}')
    Path('confusion').mkdir()
    Path('confusion/confusion_matrix.png').write_bytes(b'mine')
    done = command('test', untrained('classification', folders), '--out', out)
    assert done.code == 2, done.output
    assert message in done.output


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('best.pth', 'best.pth would be replaced, and there is no last.pth'),
        ('metrics.json', '1 files that Falconet did not make would be overwritten'),
        ('tiny.py', '1 files that Falconet did not make would be overwritten'),
    ],
)
def test_a_training_replaces_no_file_of_the_user(
    command: Command, write_config: Callable, file: str, message: str
) -> None:
    Path('run').mkdir()
    (Path('run') / file).write_bytes(b'mine')
    done = command('train', write_config(), '--work-dir', 'run')
    assert done.code == 2, done.output
    assert message in done.output


def test_a_training_in_the_folder_of_its_config_is_refused(command: Command, write_config: Callable) -> None:
    config = write_config()
    done = command('train', config, '--work-dir', config.parent)
    assert done.code == 2, done.output
    assert 'is the folder of tiny.py itself: give another --work-dir' in done.output


def test_a_folder_that_cannot_be_made_is_named(
    command: Command, untrained: Callable, write_config: Callable, folders: Path
) -> None:
    Path('taken').write_text('a file')
    checkpoint = untrained('classification', folders)
    for tool, arguments in (
        ('train', [write_config(), '--work-dir', 'taken/run']),
        ('predict', [checkpoint, folders, '--out', 'taken/out']),
        ('test', [checkpoint, '--out', 'taken/metrics.json']),
    ):
        done = command(tool, *arguments)
        assert done.code == 2, done.output
        assert 'taken' in done.output


NAMES = ['[b]', 'car [left]', 'car [right]', '$x^{$', '_hidden', ':cat:', '%s {0}', '猫']


def test_classes_of_any_name_train_score_and_predict(
    command: Command, write_config: Callable, folders: Path
) -> None:
    """The whole road: the table, the plot and the sheet come with the names as they are."""
    for split in ('train', 'test'):
        shutil.rmtree(folders / split / 'blue')
        for number, name in enumerate(NAMES):
            source = folders / split / ('green' if number % 2 else 'red')
            shutil.copytree(source, folders / split / name)
        for name in ('red', 'green'):
            shutil.rmtree(folders / split / name)
    done = command('train', write_config('train_cfg = dict(max_epochs=1)'), '--work-dir', 'run')
    assert done.code == 0, done.output
    for name in NAMES:
        assert name in done.output
    done = command('test', 'run/best.pth', '--out', 'scores/metrics.json')
    assert done.code == 0, done.output
    assert set(json.loads(Path('scores/metrics.json').read_text())['per_class']) == set(NAMES)
    assert Path('scores/confusion_matrix.png').stat().st_size > 1000
    done = command('predict', 'run/best.pth', folders / 'test', '--out', 'out')
    assert done.code == 0, done.output


def test_categories_of_any_name_are_scored_and_drawn(
    command: Command, untrained: Callable, coco_folder: Path
) -> None:
    file = coco_folder / 'annotations/test.json'
    content = json.loads(file.read_text())
    content['categories'] = [{'id': 3, 'name': '[/b]'}, {'id': 7, 'name': '[bold]$x^{$'}]
    file.write_text(json.dumps(content))
    checkpoint = untrained('detection', coco_folder, classes=('[/b]', '[bold]$x^{$'))
    done = command('test', checkpoint, '--out', 'scores/metrics.json')
    assert done.code == 0, done.output
    assert '[/b]' in done.output
    assert '[bold]$x^{$' in done.output
    assert Path('scores/precision_recall.png').stat().st_size > 1000
    done = command('predict', checkpoint, coco_folder / 'test', '--out', 'out')
    assert done.code == 0, done.output


def test_a_class_folder_whose_name_is_no_utf8_is_named(
    command: Command, write_config: Callable, folders: Path
) -> None:
    for split in ('train', 'test'):
        (folders / split / 'red').rename(folders / split / os.fsdecode(b'caf\xe9'))
    done = command('train', write_config(), '--work-dir', 'run')
    assert done.code == 2, done.output
    assert r"the name of a class folder is no UTF-8: b'caf\xe9'. Rename it" in done.output


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'background\ncaf\xe9\n', 'expected class names in UTF-8'),
        (b'square\nsquare\n', 'expected one class name a line, each once'),
        (b'', 'class'),
        (b'background\n', 'Only in the model: square'),
        (b'square\nbackground\n', 'order does not'),
        (b'background\ncircle\n', 'Only in'),
    ],
)
def test_a_class_list_that_cannot_be_used_is_named(
    command: Command, untrained: Callable, masks: Path, content: bytes, message: str
) -> None:
    (masks / 'classes.txt').write_bytes(content)
    done = command('test', untrained('segmentation', masks))
    assert done.code == 2, done.output
    assert message in done.output


def test_missing_classes_and_folders_are_named(command: Command, untrained: Callable, folders: Path) -> None:
    checkpoint = untrained('classification', folders)
    (folders / 'test/green').rename(folders / 'test/gren')
    done = command('test', checkpoint)
    assert done.code == 2, done.output
    assert 'Is gren meant to be green?' in done.output
    for path in (folders / 'test/blue').iterdir():
        path.unlink()
    (folders / 'test/gren').rename(folders / 'test/green')
    done = command('test', checkpoint)
    assert done.code == 2, done.output
    assert "class 'blue' has no images" in done.output
    done = command('test', checkpoint, '--data-root', 'nowhere')
    assert done.code == 2, done.output
    assert 'data root nowhere does not exist' in done.output
