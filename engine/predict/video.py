"""From a video file or a camera to an annotated video and a line of JSON per frame, in constant memory.

One thread decodes, some compute and draw, one encodes; a few frames wait between them. OpenCV turns the
frames as a phone's orientation note says.
"""

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from falconet.core.errors import UserError
from falconet.core.names import MARK, MARKS
from falconet.core.owned_files import check_writable
from falconet.core.prefetch import ahead
from falconet.engine.predict.inputs import CAMERA
from falconet.engine.predict.names import video_names
from falconet.engine.predict.progress import progress
from falconet.engine.predict.stream import answers, check_options
from falconet.tasks.model import VisionModel

WAITING = 4  # frames between two threads: 25 MB of 1080p
BATCH = 8  # frames of a file in a batch; a camera's are answered as they come
CAMERA_RATE = 25.0  # frames a second where a source does not say


class Watched(NamedTuple):
    """How many frames were predicted, the annotated video, the lines, and what was noticed, if anything."""

    frames: int
    video: Path
    lines: Path
    note: str


class Moment(NamedTuple):
    """Number of a frame, and its time in seconds."""

    number: int
    at: float


class _Done(NamedTuple):
    """A frame as it was read, the annotated one (maybe in the same memory), and its line."""

    frame: np.ndarray
    drawn: np.ndarray
    line: str


def predict_video(
    model: VisionModel,
    source: str,
    out: Path,
    *,
    score_threshold: float | None = None,
    tiles: int | None = None,
    seconds: float | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Watched:
    """Predict every frame; write `NAME.mp4` and `NAME.jsonl` with `frame` and `time` (seconds) of each.

    An interruption (Ctrl-C, the way to end a camera) leaves what was done until then.

    Args:
        model, score_threshold, tiles: as in `engine.predict.files.predict_files`.
        source: a video file, or 'camera:0'.
        out: folder to write to.
        seconds: stop after so much of it.
        name: of what is written; by default the source's own.
        overwrite: replace files there that Falconet did not make.

    Raises:
        UserError: no such camera, no video, no frame in it, or `out` cannot be written.
    """
    check_options(model, score_threshold=score_threshold, tiles=tiles)
    camera = source.startswith(CAMERA)
    name = name or video_names([source])[0]
    video, lines = out / f'{name}.mp4', out / f'{name}.jsonl'
    if not camera and os.path.realpath(source) in map(os.path.realpath, (video, lines)):
        raise UserError(f'{source} would be overwritten by its result: choose another --out than {out}')
    ours = [] if _is_marked(video) else [video]
    check_writable([*ours, lines], overwrite=overwrite, hint='Choose another --out')
    options = {'score_threshold': score_threshold, 'tiles': tiles}
    options |= {'batch_size': 1 if camera else BATCH, 'small_batches': not camera and tiles is None}
    started = False
    film = _Film(out / f'.{name}.partial.mp4')
    try:
        with ExitStack() as stack:
            # Closed in this order: threads that still read or write have ended before their file is closed.
            reel = stack.enter_context(closing(_Source(source, seconds)))
            about = {'made_by': MARK, 'source': source, 'class_names': model.classes, 'frame_rate': reel.rate}
            out.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lines.open('w', encoding='utf-8'))
            started = True
            file.write(json.dumps(about) + '\n')
            stack.enter_context(closing(film))

            def finish(moment: Moment, image: np.ndarray, result: Any) -> _Done:
                found = {key: value for key, value in result.summary().items() if key != 'path'}
                line = {'frame': moment.number, 'time': round(moment.at, 3), **found}
                return _Done(image, _frame(result, score_threshold), json.dumps(line) + '\n')

            def write(done: _Done) -> None:
                film.write(done.drawn, reel.rate)
                file.write(done.line)
                reel.reuse(done.frame)

            frames = ahead(reel.read, itertools.count(), threads=1, waiting=WAITING)
            reading = stack.enter_context(closing(frames))
            seen = stack.enter_context(closing(answers(model, _until_end(reading), finish, **options)))
            drawn = (future.result() for _, future in seen)
            writing = stack.enter_context(closing(ahead(write, drawn, threads=1, waiting=WAITING)))
            for _, written in progress(writing, reel.expected, what='frames'):
                written.result()
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error}') from error
    finally:
        if film.frames:
            _mark(film.path, video)
        elif started:
            lines.unlink(missing_ok=True)
    if not film.frames:
        raise UserError(f'{source} has no frame that can be read')
    if not video.is_file():
        raise UserError(f'cannot write to {out}: {video} is not there; was the folder removed?')
    note = ''
    if seconds is None and film.frames < reel.stated:
        note = f'{source} ends early: {film.frames} of the {reel.stated} frames that it names can be read'
    return Watched(film.frames, video, lines, note)


class _Source:
    """A video or camera, opened.

    Attributes:
        rate: frames a second.
        stated: how many frames a file says that it has; 0 where it does not say.
        expected: how many will be read, as far as is known.
    """

    def __init__(self, source: str, seconds: float | None) -> None:
        import cv2

        self.camera = source.startswith(CAMERA)
        self.seconds = seconds
        number = source.removeprefix(CAMERA)
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we name the source ourselves
        try:
            self.capture = cv2.VideoCapture(int(number) if self.camera else source)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self.capture.isOpened():
            raise UserError(
                f'there is no camera {number}, or another program uses it'
                if self.camera
                else f'{source} is no video that OpenCV can open: empty, cut off or of another format'
            )
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= 1000 else CAMERA_RATE
        self.stated = 0 if self.camera else max(0, round(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.expected = (min(self.stated, round(seconds * self.rate)) if seconds else self.stated) or None
        self.start = time.monotonic()
        self._spare: deque[np.ndarray] = deque(maxlen=2 * WAITING)

    def read(self, number: int) -> tuple[Moment, np.ndarray] | None:
        """Return the next frame, RGB uint8; None behind the last."""
        import cv2

        # New memory for every frame costs more than converting its colours: the system clears each page.
        good, frame = self.capture.read(self._spare.pop()) if self._spare else self.capture.read()
        if not good:
            return None
        at = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self.camera:
            at = time.monotonic() - self.start
        elif at <= 0:  # not every format says
            at = number / self.rate
        if self.seconds is not None and at > self.seconds:
            return None
        return Moment(number, at), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)

    def reuse(self, frame: np.ndarray) -> None:
        """Take back the memory of a frame that nobody looks at any more."""
        self._spare.append(frame)

    def close(self) -> None:
        self.capture.release()


class _Film:
    """A video that is being written, opened with its first frame."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self._writer: Any = None

    def write(self, frame: np.ndarray, rate: float) -> None:
        """Append a frame, RGB uint8 with even sides, each of the first one's size; it becomes BGR."""
        import cv2

        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*'mp4v'), rate, size)
            if not self._writer.isOpened():
                raise UserError(
                    f'cannot write the video {self.path}: is there room, and may one write there?'
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR, dst=frame))
        self.frames += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def _until_end(reading: Any) -> Iterator[tuple[Moment, np.ndarray]]:
    for _, future in reading:
        if (got := future.result()) is None:
            return
        yield got


def _frame(result: Any, score_threshold: float | None) -> np.ndarray:
    """Return the annotated frame, RGB uint8 with even sides, of one size whatever is found.

    It may be the result's own picture, painted over.
    """
    import cv2

    options = {} if score_threshold is None else {'score_threshold': score_threshold}
    paint = getattr(result, 'painted', None)
    image = np.array(result.draw(**options)) if paint is None else paint(in_place=True, **options)
    down, right = image.shape[0] % 2, image.shape[1] % 2
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE) if down or right else image


def _mark(partial: Path, video: Path) -> None:
    """Put a finished video in its place, with the note that Falconet made it in a box that players skip."""
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
            file.seek(-max(map(len, MARKS)), 2)
            return file.read().endswith(tuple(mark.encode() for mark in MARKS))
    except OSError:
        return False
