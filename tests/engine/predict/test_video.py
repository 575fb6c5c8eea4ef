"""Videos: every frame answered, with its time; what is wrong with one is said."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from falconet.core.errors import UserError
from falconet.engine.predict.inputs import find_inputs
from falconet.engine.predict.video import predict_video
from falconet.tasks.model import VisionModel


@pytest.fixture
def model() -> VisionModel:
    torch.manual_seed(0)
    return VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35},
        {'type': 'LinearHead'},
        classes=('dark', 'light'),
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
    ).eval()


def make_video(path: Path, frames: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10, (192, 160))
    for number in range(frames):
        writer.write(np.full((160, 192, 3), 20 * number, np.uint8))
    writer.release()
    return path


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_frame_is_answered_with_its_time_and_drawn(model: VisionModel, tmp_path: Path) -> None:
    source = make_video(tmp_path / 'a.mp4')
    for _ in range(2):  # what an earlier run made is replaced
        done = predict_video(model, str(source), tmp_path / 'out')
    about, *frames = lines_of(done.lines)
    assert about['frame_rate'] == 10
    assert [each['frame'] for each in frames] == list(range(12))
    assert [each['time'] for each in frames] == pytest.approx([number / 10 for number in range(12)], abs=0.02)
    drawn = cv2.VideoCapture(str(done.video))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert sorted(each.name for each in (tmp_path / 'out').iterdir()) == ['a.jsonl', 'a.mp4']
    assert predict_video(model, str(source), tmp_path / 'short', seconds=0.45).frames == 5


@pytest.mark.parametrize(
    ('head', 'taps'), [('SSDLiteHead', ('stage6_expand', 'last')), ('DeepLabV3Head', ('stage7',))]
)
def test_frames_that_are_painted_in_place_stay_apart(
    head: str, taps: tuple[str, ...], tmp_path: Path
) -> None:
    """Their memory is used again for later ones."""
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.1, 'taps': taps},
        {'type': head},
        classes=('background', 'cat'),
        preprocess=[{'type': 'Resize', 'height': 64, 'width': 64}],
    ).eval()
    writer = cv2.VideoWriter(str(tmp_path / 'a.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 10, (640, 482))
    for number in range(40):
        writer.write(np.full((482, 640, 3), (200, 4 * number, 20), np.uint8))
    writer.release()
    done = predict_video(model, str(tmp_path / 'a.mp4'), tmp_path / 'out')
    drawn = cv2.VideoCapture(str(done.video))
    shades = []
    while (frame := drawn.read()[1]) is not None:
        shades.append(np.median(frame, axis=(0, 1)).tolist())
    assert len(shades) == done.frames == 40
    assert [each['frame'] for each in lines_of(done.lines)[1:]] == list(range(40))
    blue, green, red = np.array(shades).T
    assert (np.diff(green) >= 0).all()  # each is brighter than the one before, masks and all
    assert len(set(green)) > 25
    assert blue.min() > red.max()


def test_a_users_video_is_not_replaced(model: VisionModel, tmp_path: Path) -> None:
    source = make_video(tmp_path / 'a.mp4')
    (tmp_path / 'out').mkdir()
    make_video(tmp_path / 'out/a.mp4')
    with pytest.raises(UserError, match='did not make'):
        predict_video(model, str(source), tmp_path / 'out')
    with pytest.raises(UserError, match='overwritten by its result'):
        predict_video(model, str(source), tmp_path)


def test_a_phones_video_is_seen_upright(model: VisionModel, tmp_path: Path) -> None:
    source = make_video(tmp_path / 'a.mp4')
    data = bytearray(source.read_bytes())
    place = data.index(b'tkhd') + 4 + 40  # the matrix of the track
    data[place : place + 36] = struct.pack('>9i', 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    done = predict_video(model, str(source), tmp_path / 'out')
    drawn = cv2.VideoCapture(str(done.video))
    assert drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == 160
    assert drawn.get(cv2.CAP_PROP_FRAME_HEIGHT) > 192  # and the caption


@pytest.mark.parametrize('content', [b'', b'no video'])
def test_a_file_without_frames_is_named(model: VisionModel, tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(UserError, match=r'a\.mp4 is no video that OpenCV can open'):
        predict_video(model, str(tmp_path / 'a.mp4'), tmp_path / 'out')


def test_a_camera_that_is_not_there_is_said(model: VisionModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='there is no camera 97'):
        predict_video(model, 'camera:97', tmp_path / 'out')


def test_patterns_videos_and_cameras_are_told_apart(folders: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / 'a.mp4', 1)
    found = find_inputs([str(folders / '**/[01].png'), video, 'camera:0'])
    assert len(found.pictures) == 12
    assert found.videos == [str(video), 'camera:0']
    for word, message in (('camera:x', 'camera:NUMBER'), (str(tmp_path / '*.gif'), 'nothing matches')):
        with pytest.raises(UserError, match=message):
            find_inputs([word])
