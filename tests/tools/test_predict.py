"""tools/predict.py on videos, cameras, tiles and folders that go: what it makes, and what it says."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from falconet.engine.predict import files, video

Command = Callable[..., Any]


def make_video(path: Path, *, frames: int = 12, codec: str = 'mp4v') -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (96, 64))
    random = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(random.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    return path


def make_pictures(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir()
    for number, size in enumerate(sizes):
        assert cv2.imwrite(str(folder / f'{number}.png'), np.full((*size, 3), 90, np.uint8))
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def frames_of(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.fixture
def checkpoint(untrained: Callable[..., Path], tmp_path: Path) -> Path:
    return untrained('classification', tmp_path)


def test_a_video_that_ends_early_is_predicted_as_far_as_it_goes(
    command: Command, checkpoint: Path, tmp_path: Path
) -> None:
    content = make_video(tmp_path / 'a.avi', codec='MJPG').read_bytes()
    (tmp_path / 'a.avi').write_bytes(content[: len(content) // 2])
    done = command('predict', checkpoint, tmp_path / 'a.avi', '--out', 'out')
    assert not done.code, done.output
    lines = lines_of(tmp_path / 'out/a.jsonl')
    assert 3 <= len(lines) < 12
    assert f'ends early: {len(lines)} of the 12 frames' in done.output
    assert frames_of(tmp_path / 'out/a.mp4') == len(lines)


@pytest.mark.parametrize('share', [0.0, 0.5])
def test_a_video_without_its_index_is_named(
    command: Command, checkpoint: Path, tmp_path: Path, share: float
) -> None:
    content = make_video(tmp_path / 'a.mp4').read_bytes()
    (tmp_path / 'a.mp4').write_bytes(content[: int(share * len(content))])
    done = command('predict', checkpoint, tmp_path / 'a.mp4', '--out', 'out')
    assert done.code == 2
    assert 'a.mp4 is no video that OpenCV can open' in done.output
    assert not (tmp_path / 'out').exists()


def test_a_video_without_frames_is_named(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    content = make_video(tmp_path / 'a.avi', codec='MJPG').read_bytes()
    (tmp_path / 'a.avi').write_bytes(content[: content.index(b'movi') + 4])
    done = command('predict', checkpoint, tmp_path / 'a.avi', '--out', 'out')
    assert done.code == 2
    assert 'a.avi' in done.output
    assert not [*(tmp_path / 'out').glob('*')]


def test_a_phones_video_comes_out_upright(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / 'a.mp4')
    data = bytearray(source.read_bytes())
    place = data.index(b'tkhd') + 4 + 40  # the matrix of the track
    data[place : place + 36] = struct.pack('>9i', 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    assert command('predict', checkpoint, source, '--out', 'out').code == 0
    drawn = cv2.VideoCapture(str(tmp_path / 'out/a.mp4')).read()[1]
    assert drawn.shape[0] > drawn.shape[1]


def test_a_camera_that_is_not_there_is_said(command: Command, checkpoint: Path) -> None:
    done = command('predict', checkpoint, 'camera:97')
    assert done.code == 2
    assert 'there is no camera 97' in done.output


@pytest.mark.parametrize('seconds', ['0', '-1', 'nan'])
def test_a_duration_that_is_none_is_refused(command: Command, checkpoint: Path, seconds: str) -> None:
    done = command('predict', checkpoint, 'a.mp4', '--seconds', seconds)
    assert done.code == 2
    assert 'must be above 0' in done.output


def test_videos_of_one_name_do_not_replace_each_other(
    command: Command, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / 'b').mkdir()
    sources = [make_video(tmp_path / 'a.mp4', frames=3), make_video(tmp_path / 'b/a.mp4', frames=5)]
    assert command('predict', checkpoint, *sources, '--out', 'out').code == 0
    assert [len(lines_of(tmp_path / f'out/{name}.jsonl')) for name in ('a', 'a_2')] == [3, 5]


def test_a_folder_that_goes_while_a_video_is_predicted_is_said(
    command: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = video._Film.write

    def gone(film: Any, *arguments: Any) -> None:
        write(film, *arguments)
        shutil.rmtree(tmp_path / 'out', ignore_errors=True)

    monkeypatch.setattr(video._Film, 'write', gone)
    done = command('predict', checkpoint, make_video(tmp_path / 'a.mp4'), '--out', 'out')
    assert done.code == 2
    assert 'was the folder removed?' in done.output


def test_a_folder_that_goes_while_pictures_are_predicted_is_said(
    command: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = files.save_picture

    def gone(picture: Any, path: Path) -> None:
        if path.name == '2.png':
            shutil.rmtree(tmp_path / 'out')
        save(picture, path)

    monkeypatch.setattr(files, 'save_picture', gone)
    pictures = make_pictures(tmp_path / 'pictures', *[(20, 30)] * 5)
    done = command('predict', checkpoint, pictures, '--out', 'out')
    assert done.code == 2
    assert 'Was the folder removed?' in done.output


def test_an_interruption_leaves_a_whole_video_with_as_many_lines(
    command: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(items: Iterator[Any], *_: Any, **__: Any) -> Iterator[Any]:
        for number, item in enumerate(items):
            yield item
            if number == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(video, 'progress', interrupted)
    done = command('predict', checkpoint, make_video(tmp_path / 'a.mp4', frames=40), '--out', 'out')
    assert done.code
    lines = lines_of(tmp_path / 'out/a.jsonl')
    assert 4 <= len(lines) < 40
    assert frames_of(tmp_path / 'out/a.mp4') == len(lines)


def test_tiles_of_pictures_that_are_smaller_than_a_tile(
    command: Command, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    pictures = make_pictures(tmp_path / 'pictures', (1, 1), (20, 30), (33, 500))
    for task in ('detection', 'segmentation'):
        done = command('predict', untrained(task, tmp_path), pictures, '--tiles', 64, '--out', task)
        assert not done.code, done.output
        found = json.loads((tmp_path / task / 'predictions.json').read_text())['predictions']
        assert [(each['height'], each['width']) for each in found] == [(1, 1), (20, 30), (33, 500)]


def test_tiles_are_refused_for_a_classifier_before_anything_is_written(
    command: Command, checkpoint: Path, tmp_path: Path
) -> None:
    pictures = make_pictures(tmp_path / 'pictures', (20, 30))
    done = command('predict', checkpoint, pictures, '--tiles', 2, '--out', 'out')
    assert done.code == 2
    assert 'tiles are for detection and segmentation; this model is for classification' in done.output
    assert not (tmp_path / 'out').exists()
