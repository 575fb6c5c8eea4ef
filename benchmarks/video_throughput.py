"""Frames a second of a whole `predict` of a video against the network alone, in turns, in one run.

    python benchmarks/video_throughput.py work_dirs/ssdlite_coco/best.pth --photographs data/coco/val2017

The video is made first: photographs, each panned for three seconds. 'Whole' decodes it, predicts, draws,
encodes and writes a line of JSON per frame. 'Network' is nothing but forward passes, with all threads, of one
frame at a time as an application would call it, or of eight: the very network that the whole has, folded
or in OpenVINO as `tools/predict.py --engine` chooses. 'Copy' decodes the video and encodes it again. What
network and copy take of the cores together is the least that the whole can take. 'Lines only' is the whole
without the annotated video. A program of tools/export.py instead of a checkpoint is measured in its engine.
Beside the ratio of speeds stands that of processor times, which tells more on a machine with other work: what
the whole would reach of a network that keeps every core busy, if it did so, too.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
RATE = 25
PANNED = 3 * RATE  # frames of each photograph


def make_video(path: Path, photographs: Path, *, seconds: int, size: tuple[int, int]) -> None:
    """Write a video of photographs that move by."""
    width, height = size
    names = sorted(photographs.rglob('*.jpg'))[: -(-seconds * RATE // PANNED)]
    pictures = [each for each in map(cv2.imread, map(str, names)) if each is not None]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), RATE, size)
    for number in range(seconds * RATE):
        picture = pictures[(number // PANNED) % len(pictures)]
        part = (number % PANNED) / PANNED
        across = min(picture.shape[1], picture.shape[0] * width / height) * 0.8
        down = across * height / width
        left, top = (picture.shape[1] - across) * part, (picture.shape[0] - down) * part
        view = picture[int(top) : int(top + down), int(left) : int(left + across)]
        writer.write(cv2.resize(view, size, interpolation=cv2.INTER_CUBIC))
    writer.release()


def frames_of(path: Path, count: int) -> list[np.ndarray]:
    """Return the first frames, RGB."""
    capture = cv2.VideoCapture(str(path))
    return [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB) for _ in range(count)]


def timed(call: Callable[[], int]) -> tuple[float, float]:
    """Return frames a second, and milliseconds of processor time a frame."""
    start, busy = time.perf_counter(), time.process_time()
    frames = call()
    return frames / (time.perf_counter() - start), 1000 * (time.process_time() - busy) / frames


def main() -> None:
    parser = argparse.ArgumentParser(description='Video prediction against its network alone.')
    parser.add_argument('checkpoint', help='a .pth, or a program of tools/export.py')
    parser.add_argument('--photographs', type=Path, required=True, metavar='DIR')
    parser.add_argument('--size', type=int, nargs=2, default=(1920, 1080), metavar=('W', 'H'))
    parser.add_argument('--seconds', type=int, default=60, help='of the video (default 60)')
    parser.add_argument('--part', type=float, default=4, help='seconds of it a turn (default 4)')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each side (default 5)')
    parser.add_argument(
        '--engine', choices=('auto', 'torch'), default='torch', help='as tools/predict.py (default torch)'
    )
    parser.add_argument('--whole', action='store_true', help='predict all of it once, for the peak memory')
    arguments = parser.parse_args()
    import resource

    import torch

    from falconet.checkpoints.load import load_model
    from falconet.engine.cpu import tune_cpu
    from falconet.engine.predict.video import _Film, predict_video
    from falconet.tools.predict import fit

    tune_cpu()  # as the command does
    model = fit(load_model(arguments.checkpoint), None, arguments.engine)
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / 'video.mp4'
        make_video(video, arguments.photographs, seconds=arguments.seconds, size=tuple(arguments.size))
        inputs = np.stack([model.to_input(each) for each in frames_of(video, 8)])
        images = torch.from_numpy(inputs).permute(0, 3, 1, 2)
        count = round(arguments.part * RATE)

        @torch.inference_mode()
        def network(batch: int) -> int:
            for number in range(count // batch):
                start = number % (8 // batch) * batch
                model.predictor.network(images[start : start + batch])
            return count // batch * batch

        def copy() -> int:
            capture, target = cv2.VideoCapture(str(video)), str(Path(scratch) / 'copy.mp4')
            writer = cv2.VideoWriter(target, cv2.VideoWriter.fourcc(*'mp4v'), RATE, tuple(arguments.size))
            for _ in range(count):
                writer.write(capture.read()[1])
            writer.release()
            return count

        def whole() -> int:
            return predict_video(model, str(video), Path(scratch) / 'out', seconds=arguments.part).frames

        def counted(film: Any, frame: np.ndarray, rate: float) -> None:
            film.frames += 1
            film.path.touch()

        def lines_only() -> int:
            with mock.patch.object(_Film, 'write', counted):
                return whole()

        sides = {
            'network, 1 at a time': lambda: network(1),
            'network, 8 at a time': lambda: network(8),
            'copy': copy,
            'whole': whole,
            'lines only': lines_only,
        }
        if arguments.whole:
            whole_video = predict_video(model, str(video), Path(scratch) / 'all')
            print(f'{whole_video.frames} frames of {arguments.seconds} s predicted')
        else:
            for call in sides.values():
                call()
            found = {side: [] for side in sides}
            for _ in range(arguments.rounds):
                for side, call in sides.items():
                    found[side].append(timed(call))
                print({side: f'{turns[-1][0]:.1f}/s {turns[-1][1]:.1f} ms' for side, turns in found.items()})
            for side, turns in found.items():
                speed, busy = (statistics.median(each) for each in zip(*turns, strict=True))
                pairs = list(zip(found['whole'], turns, strict=True))
                ratios = [ours[0] / turn[0] for ours, turn in pairs]
                of_time = statistics.median(turn[1] / ours[1] for ours, turn in pairs)
                print(
                    f'{side}: {speed:.1f} frames/s, {busy:.1f} ms of processor a frame; whole is '
                    f'{statistics.median(ratios):.2f} of it ({min(ratios):.2f} to {max(ratios):.2f}), '
                    f'{of_time:.2f} by processor time'
                )
    print(f'{model.task.name}, {torch.get_num_threads()} threads, images {inputs.shape[1:3]}')
    print(f'peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB')


if __name__ == '__main__':
    main()
