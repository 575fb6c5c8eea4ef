"""Reading very many pictures from tar shards: start-up, memory, speed and where a run resumes.

    python benchmarks/shards.py --pictures 100000 --side 96

Makes that many JPEGs of noise and shapes, packs them as tools/pack_shards.py does, and prints: packing; the
data set's start-up, with the index made and found again; what the process grows by; pictures a second of a
training's batches, by processor time in one process, beside `ImageFolder` over the same files; what a loading
process takes for itself; and how long the first batch of a run takes that resumes at 90 % of an epoch.
"""

import argparse
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ['OMP_NUM_THREADS'] = '1'
sys.path.append(str(Path(__file__).resolve().parents[1]))

BATCH, CLASSES, SHARD = 64, 100, 100_000_000
LOADED = 6400  # pictures of a measurement of speed


def make(folder: Path, pictures: int, side: int) -> list[tuple[str, int]]:
    """Write pictures into class folders; return (file, class index) of each."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    samples = []
    for index in range(pictures):
        label = index % CLASSES
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (side, side))
        image = cv2.circle(
            image, (side // 2, side // 2), 5 + index % 29, (label, 255 - label, index % 256), -1
        )
        file = folder / f'class{label:03d}' / f'{index:07d}.jpg'
        if index < CLASSES:
            file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        samples.append((str(file), label))
    return samples


def private_mb(process: int) -> float:
    """Memory in MB that a process has to itself."""
    lines = Path(f'/proc/{process}/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith('Private_')) / 1024


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """Return what an action returns, and the processor's seconds that it took."""
    begin = time.process_time()
    return action(), time.process_time() - begin


def pictures_per_second(data: Any) -> float:
    """Return the speed of training batches, in this process and by its processor time."""
    from falconet.datasets.loader import build_loader

    loader = build_loader(data, batch_size=BATCH, num_workers=0, training=True, seed=0)
    batches = iter(loader)
    next(batches)
    begin = time.process_time()
    for _ in range(LOADED // BATCH):
        next(batches)
    return LOADED / (time.process_time() - begin)


def first_batch(data: Any, start: int) -> tuple[float, list[float]]:
    """Return the seconds until the first of two workers' batches from `start` on, and their memory in MB."""
    from falconet.datasets.loader import build_loader, close_loader

    loader = build_loader(data, batch_size=BATCH, num_workers=2, training=True, seed=0)
    loader.sampler.start = start  # type: ignore[attr-defined]
    begin = time.perf_counter()
    batches = iter(loader)
    next(batches)
    seconds = time.perf_counter() - begin
    workers = [private_mb(worker.pid) for worker in loader._iterator._workers]  # type: ignore[union-attr]
    close_loader(loader)
    return seconds, workers


def main() -> None:
    parser = argparse.ArgumentParser(description='Reading very many pictures from tar shards (Linux).')
    parser.add_argument('--pictures', type=int, default=100_000)
    parser.add_argument('--side', type=int, default=96, help='of a picture, in pixels')
    parser.add_argument('--folder', help='for the pictures and shards; by default a temporary one')
    arguments = parser.parse_args()

    from falconet.datasets.classification.dataset import ImageFolder
    from falconet.datasets.classification.shards import ImageShards
    from falconet.datasets.shards.write import pack

    augment = [
        {'type': 'RandomResizedCrop', 'size': (64, 64), 'scale': (0.5, 1.0)},
        {'type': 'HorizontalFlip', 'p': 0.5},
    ]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        os.environ['XDG_CACHE_HOME'] = f'{scratch}/cache'
        samples = make(Path(scratch) / 'folders', arguments.pictures, arguments.side)
        shards = Path(scratch) / 'shards'
        names = [f'class{label:03d}' for label in range(CLASSES)]
        counts, seconds = timed(lambda: pack({'train': samples}, names, shards, size=SHARD))
        total = sum(file.stat().st_size for file in shards.glob('*.tar'))
        print(f'{len(samples):,} pictures, {total / 1e6:.0f} MB in {counts["train"]} shards: {seconds:.1f} s')

        def open_shards() -> ImageShards:
            return ImageShards(str(shards), 'train-*.tar', augment=augment, training=True)

        _, seconds = timed(open_shards)
        data, again = timed(open_shards)
        print(f'start-up: {seconds:.2f} s of processor time, {again:.2f} s once the index is there')
        tracemalloc.start()
        kept = open_shards()
        print(f'memory of the data set: {tracemalloc.get_traced_memory()[0] / 1e6:.0f} MB')
        tracemalloc.stop()
        del kept
        folders, seconds = timed(lambda: ImageFolder(f'{scratch}/folders', augment=augment, training=True))
        print(f'start-up of ImageFolder over the same files: {seconds:.2f} s')
        speeds = [pictures_per_second(each) for each in (data, folders)]
        print(f'pictures a second and core: {speeds[0]:.0f} from shards, {speeds[1]:.0f} from folders')
        for share in (0.0, 0.9):
            start = int(share * len(data)) // BATCH * BATCH
            seconds, workers = first_batch(data, start)
            print(f'first batch from {share:.0%} of an epoch, two workers: {seconds:.2f} s')
        print(f'a loading process, for itself: {max(workers):.0f} MB')


if __name__ == '__main__':
    main()
