"""Pictures of every bad kind through the real command lines: what is said, with which exit code."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., Any]
NOISE = np.random.default_rng(0).integers(0, 255, (200, 260, 3), dtype=np.uint8)


def text(path: Path) -> None:
    path.write_bytes(b'hello, world\n')


def empty(path: Path) -> None:
    path.touch()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.symlink_to(path.parent / 'gone.jpg')


def huge(path: Path) -> None:
    Image.new('1', (25_000, 25_000)).save(path, format='png')


def cut_off(path: Path) -> None:
    Image.fromarray(NOISE).save(path, format='jpeg')
    path.write_bytes(path.read_bytes()[:5000])


def half_with_an_end(path: Path, **options: Any) -> None:
    Image.fromarray(NOISE).save(path, format='jpeg', **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b'\xff\xd9')


def half_png(path: Path) -> None:
    Image.fromarray(NOISE).save(path, format='png')
    path.write_bytes(path.read_bytes()[:40_000])


def line(path: Path) -> None:
    Image.fromarray(np.zeros((30_000, 1, 3), np.uint8)).save(path, format='png')


def followed_by_a_video(path: Path) -> None:
    Image.fromarray(NOISE).save(path, format='jpeg')
    path.write_bytes(path.read_bytes() + b'ftypmp42' + bytes(range(256)) * 40)


def in_depth(values: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        Image.fromarray(np.tile(values, (40, 40))).save(path, format='tiff')

    return write


REFUSED = {
    'a text': (text, 'a.jpg', 'not a picture OpenCV can decode'),
    'nothing': (empty, 'a.jpg', 'empty file'),
    'a pipe': (pipe, 'a.jpg', 'is no regular file'),
    'a link to nothing': (folder, 'a.jpg', 'cannot be read (No such file'),
    'too large': (huge, 'a.png', 'is too large'),
    'cut off': (cut_off, 'a.jpg', 'truncated JPEG (5,000 bytes)'),
    'half with an end marker': (half_with_an_end, 'a.jpg', 'its data end before the picture does'),
    'half a PNG': (half_png, 'a.png', 'truncated PNG (40,000 bytes)'),
}
READ = {
    'a line of 30,000 pixels': (line, 'a.png'),
    'a phone with a video behind it': (followed_by_a_video, 'a.jpg'),
    'float': (in_depth(np.array([[0.1, 0.9]], np.float32)), 'a.tif'),
    '16 bits': (in_depth(np.array([[100, 60_000]], np.uint16)), 'a.tif'),
    '32 bits': (in_depth(np.array([[100, 2_000_000]], np.int32)), 'a.tif'),
    'a name of 255 bytes': (followed_by_a_video, 'x' * 251 + '.jpg'),
    'a name that is no UTF-8': (followed_by_a_video, os.fsdecode(b'caf\xe9.jpg')),
    'a name in brackets': (followed_by_a_video, '[bold] $x^{$ %s.jpg'),
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of one good picture."""
    (tmp_path / 'pictures').mkdir()
    Image.fromarray(NOISE).save(tmp_path / 'pictures' / 'good.png')
    return tmp_path / 'pictures'


@pytest.mark.parametrize('name', REFUSED)
def test_a_bad_picture_is_left_out_by_name_and_the_others_are_predicted(
    command: Command, untrained: Callable[..., Path], pictures: Path, folders: Path, name: str
) -> None:
    make, file, message = REFUSED[name]
    make(pictures / file)
    done = command('predict', untrained('classification', folders), pictures, '--out', 'out')
    assert done.code == 0, done.output
    assert message in done.output
    listing = json.loads(Path('out/predictions.json').read_text())
    assert message in listing['skipped'][str(pictures / file)]
    assert [Path(each['path']).name for each in listing['predictions']] == ['good.png']
    assert listing['complete']


@pytest.mark.parametrize('name', READ)
def test_an_unusual_picture_is_predicted(
    command: Command, untrained: Callable[..., Path], pictures: Path, folders: Path, name: str
) -> None:
    make, file = READ[name]
    make(pictures / file)
    done = command('predict', untrained('classification', folders), pictures, '--out', 'out')
    assert done.code == 0, done.output
    assert '2 pictures predicted, 0 skipped' in done.output
    assert len(json.loads(Path('out/predictions.json').read_text())['predictions']) == 2


@pytest.mark.parametrize('tool', ['predict', 'test'])
def test_nothing_but_bad_pictures_is_an_error(
    command: Command, untrained: Callable[..., Path], folders: Path, tool: str
) -> None:
    for path in folders.rglob('test/*/*'):
        path.write_bytes(b'no picture')
    arguments = [folders / 'test', '--out', 'out'] if tool == 'predict' else []
    done = command(tool, untrained('classification', folders), *arguments)
    assert done.code == 2, done.output
    assert 'none of the 12 ' in done.output


def test_one_bad_picture_of_many_is_scored_around_and_named(
    command: Command, untrained: Callable[..., Path], folders: Path
) -> None:
    half_with_an_end(folders / 'test/red/9.jpg')
    done = command('test', untrained('classification', folders), '--out', 'scores.json')
    assert done.code == 0, done.output
    assert 'damaged JPEG' in done.output
    report = json.loads(Path('scores.json').read_text())
    assert report['images'] == 12
    assert '9.jpg' in str(report)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('', "there is no file or folder '': name one"),
        ('nowhere', 'there is no file or folder nowhere'),
        ('nothing_inside', 'no pictures (.jpg, .png, ...) in nothing_inside'),
        ('notes.txt', 'none of the 1 files is a readable picture'),
    ],
)
def test_inputs_that_are_none_are_refused(
    command: Command, untrained: Callable[..., Path], folders: Path, name: str, message: str
) -> None:
    Path('nothing_inside').mkdir()
    Path('notes.txt').write_text('mine')
    done = command('predict', untrained('classification', folders), name, '--out', 'out')
    assert done.code == 2, done.output
    assert message in done.output


@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_a_picture_that_lies_on_its_side_is_turned_in_every_tool_alike(
    command: Command, untrained: Callable[..., Path], folders: Path, orientation: int
) -> None:
    shutil.rmtree(folders / 'train')
    upright = folders.parent / 'upright'
    turns = {3: 180, 6: 90, 8: -90}[orientation]
    for path in sorted(folders.rglob('*.png')):
        other = upright / path.relative_to(folders)
        other.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as opened:
            opened.resize((40, 20)).save(other)
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(other) as opened:
            opened.rotate(turns, expand=True).save(path, exif=exif)
    checkpoint = untrained('classification', folders)
    reports = []
    for data in (folders, upright):
        scores = Path(f'{data.name}_scores/metrics.json')
        done = command('test', checkpoint, '--data-root', data, '--out', scores)
        assert done.code == 0, done.output
        reports.append(json.loads(scores.read_text()))
        assert command('predict', checkpoint, data, '--out', f'{data.name}_out').code == 0
    assert reports[0]['top1'] == reports[1]['top1']
    turned, plain = (
        json.loads(Path(f'{name}_out/predictions.json').read_text())['predictions']
        for name in ('data', 'upright')
    )
    assert [each['turned'] for each in turned] == [True] * 12
    assert not any(each['turned'] for each in plain)
    assert {(each['width'], each['height']) for each in turned} == {(40, 20)}
    assert [each['label'] for each in turned] == [each['label'] for each in plain]
