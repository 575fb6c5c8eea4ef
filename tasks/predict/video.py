"""From a video file or a camera to an annotated video and a line of JSON per frame, in constant memory.

One thread decodes and one draws and encodes, a few frames apart from the network. OpenCV turns the frames as
a phone's orientation note says.
"""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tasks.data.ahead import ahead
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.outputs import MARK, check_writable
from tasks.predict.inputs import CAMERA
from tasks.predict.names import short
from tasks.predict.progress import progress

WAITING = 4  # frames between two threads: 25 MB of 1080p
CAMERA_RATE = 25.0  # frames a second where a source does not say


class Watched(NamedTuple):
    """How many frames were predicted, the annotated video, the lines, and what was noticed, if anything."""

    frames: int
    video: Path
    lines: Path
    note: str


def predict_video(
    model: VisionModel,
    source: str,
    out: Path,
    *,
    score_threshold: float | None = None,
    tiles: int | None = None,
    seconds: float | None = None,
    overwrite: bool = False,
) -> Watched:
    """Predict every frame; write `NAME.mp4` and `NAME.jsonl` with `frame` and `time` (seconds) of each.

    An interruption (Ctrl-C, the way to end a camera) leaves what was done until then.

    Args:
        model, score_threshold, tiles: as in `tasks.predict.files.predict_files`.
        source: a video file, or 'camera:0'.
        out: folder to write to.
        seconds: stop after so much of it.
        overwrite: replace files there that Kestrel did not make.

    Raises:
        UserError: no such camera, no video, no frame in it, or `out` cannot be written.
    """
    import cv2

    camera = source.startswith(CAMERA)
    name = f'camera{source.removeprefix(CAMERA)}' if camera else short(Path(source).stem)
    video, lines = out / f'{name}.mp4', out / f'{name}.jsonl'
    if not camera and Path(source).resolve() in {video.resolve(), lines.resolve()}:
        raise UserError(f'{source} would be overwritten by its result: choose another --out than {out}')
    ours = [] if _is_marked(video) else [video]
    check_writable([*ours, lines], overwrite=overwrite, hint='Choose another --out')
    capture = cv2.VideoCapture(int(source.removeprefix(CAMERA)) if camera else source)
    partial = out / f'.{name}.partial.mp4'
    writer: Any = None
    count = 0
    try:
        if not capture.isOpened():
            raise UserError(
                f'there is no camera {source.removeprefix(CAMERA)}, or another program uses it'
                if camera
                else f'{source} is no video that OpenCV can open: empty, cut off or of another format'
            )
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate <= 1000 else CAMERA_RATE
        stated = max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT))) if not camera else 0
        start = time.monotonic()

        def read(number: int) -> tuple[int, float, np.ndarray] | None:
            good, frame = capture.read()
            if not good:
                return None
            at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            at = time.monotonic() - start if camera else at if at > 0 or number == 0 else number / rate
            return number, at, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

        def answers() -> Iterator[tuple[int, float, Any]]:
            for _, reading in ahead(read, itertools.count(), threads=1, waiting=WAITING):
                got = reading.result()
                if got is None or (seconds is not None and got[1] > seconds):
                    return
                number, at, image = got
                (result,) = model.predict_each([image], score_threshold=score_threshold, tiles=tiles)
                yield number, at, result

        def write(answer: tuple[int, float, Any]) -> dict[str, Any]:
            nonlocal writer
            number, at, result = answer
            drawn = _frame(result, score_threshold)
            if writer is None:
                writer = _open_writer(partial, rate, drawn)
            writer.write(drawn)
            about = {key: value for key, value in result.summary().items() if key != 'path'}
            return {'frame': number, 'time': round(at, 3), **about}

        out.mkdir(parents=True, exist_ok=True)
        with lines.open('w', encoding='utf-8') as file:
            about = {'made_by': MARK, 'source': source, 'class_names': model.classes, 'frame_rate': rate}
            file.write(json.dumps(about) + '\n')
            total = min(stated, round(seconds * rate)) if seconds else stated
            work = ahead(write, answers(), threads=1, waiting=WAITING)
            for _, writing in progress(work, total or None, what='frames'):
                file.write(json.dumps(writing.result()) + '\n')
                count += 1
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error}') from error
    finally:
        capture.release()
        if writer is not None:
            writer.release()
            _mark(partial, video)
        if not count:
            lines.unlink(missing_ok=True)
    if not count:
        raise UserError(f'{source} has no frame that can be read')
    if not video.is_file():
        raise UserError(f'cannot write to {out}: {video} is not there; was the folder removed?')
    early = stated and seconds is None and count < stated
    note = f'{source} ends early: {count} of the {stated} frames that it names can be read' if early else ''
    return Watched(count, video, lines, note)


def _frame(result: Any, score_threshold: float | None) -> np.ndarray:
    """Return the annotated frame, BGR uint8 with even sides, of one size whatever is found."""
    import cv2

    if score_threshold is not None:
        drawn: Image.Image = result.draw(score_threshold=score_threshold)
    else:
        drawn = result.preview() if hasattr(result, 'preview') else result.draw()
    image = cv2.cvtColor(np.asarray(drawn), cv2.COLOR_RGB2BGR)
    down, right = image.shape[0] % 2, image.shape[1] % 2
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE) if down or right else image


def _open_writer(path: Path, rate: float, frame: np.ndarray) -> Any:
    import cv2

    size = (frame.shape[1], frame.shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate, size)
    if not writer.isOpened():
        raise UserError(f'cannot write the video {path}: is there room, and may one write there?')
    return writer


def _mark(partial: Path, video: Path) -> None:
    """Put a finished video in its place, with the note that Kestrel made it in a box that players skip."""
    if not partial.exists():  # the folder is gone
        return
    note = MARK.encode()
    with partial.open('ab') as file:
        file.write((8 + len(note)).to_bytes(4, 'big') + b'free' + note)
    partial.replace(video)


def _is_marked(video: Path) -> bool:
    """Whether a video carries the note at its end."""
    try:
        with video.open('rb') as file:
            file.seek(-len(MARK), 2)
            return file.read() == MARK.encode()
    except OSError:
        return False
