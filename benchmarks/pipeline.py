"""Reading and augmenting pictures, per core, against torchvision v2's pipeline, in one run.

    python benchmarks/pipeline.py --data-root data/intel --photos data/VOCdevkit/VOC2012/JPEGImages

Both sides make batches of normalised training pictures, 224 px by a random crop of half the area or more and
a flip, on one core, in turns. Ours: the data set of `configs/linear_intel.py`, its loader's batches, and the
model's normalisation. Theirs: torchvision's `ImageFolder` with `transforms.v2`, in each of the two orders
that its documentation shows (on tensors; on Pillow's pictures), of which the faster is compared. Time is the
processor's, so other programs disturb little.

Small: Intel's scenes, 150 px. Large: photographs enlarged to 12 megapixels with a little noise, as a sensor
has it, and saved at quality 92 (about 3 MB each). Cached: the large ones again, with `cache=dict(limit=...)`,
once they are in it.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ['OMP_NUM_THREADS'] = '1'
sys.path.append(str(Path(__file__).resolve().parents[1]))

BATCH = 16
SCALE = (0.5, 1.0)
WIDE, HIGH = 4032, 3024


def enlarge(photographs: Sequence[Path], folder: Path) -> None:
    """Write photographs of 12 megapixels into a class folder."""
    import cv2
    import numpy as np

    target = folder / 'photos'
    target.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, path in enumerate(photographs):
        image = cv2.imread(str(path))
        if image is None:
            sys.exit(f'cannot read {path}')
        height, width = image.shape[:2]
        size = (WIDE, HIGH) if width >= height else (HIGH, WIDE)
        large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        noisy = large + rng.normal(0, 4, large.shape)
        written = cv2.imwrite(
            str(target / f'{index}.jpg'),
            noisy.clip(0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 92],
        )
        assert written


def ours(root: Path, split: str, cache: dict[str, Any] | None = None) -> Callable[[Sequence[int], int], Any]:
    """Return what makes a batch of some pictures in some epoch, as training gets it."""
    import torch

    from falconet.datasets.classification.dataset import ImageFolder
    from falconet.datasets.images.reading import reading_of
    from falconet.datasets.samples import SampleKey, collate
    from falconet.tasks.normalise import Normalise

    augment = [
        {'type': 'RandomResizedCrop', 'size': (224, 224), 'scale': SCALE},
        {'type': 'HorizontalFlip', 'p': 0.5},
    ]
    data = ImageFolder(str(root), split, augment=augment, training=True)
    data.reading = reading_of({'cache': cache}, training=True)
    normalise = Normalise.from_config('imagenet')

    def batch(indices: Sequence[int], epoch: int) -> torch.Tensor:
        samples = data.__getitems__([SampleKey(index, epoch) for index in indices])
        return normalise(collate(samples)['images'])  # type: ignore[arg-type]  # all can be read

    return batch


def theirs(root: Path, *, on_tensors: bool) -> Callable[[Sequence[int], int], Any]:
    """Return the same of torchvision's."""
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    first = [v2.ToImage()] if on_tensors else []
    last = [] if on_tensors else [v2.ToImage()]
    transform = v2.Compose([
        *first,
        v2.RandomResizedCrop(224, scale=SCALE, antialias=True),
        v2.RandomHorizontalFlip(),
        *last,
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    nested = root / root.name
    data = ImageFolder(str(nested if nested.is_dir() else root), transform)

    def batch(indices: Sequence[int], epoch: int) -> torch.Tensor:
        return torch.stack([data[index][0] for index in indices])

    return batch


def pictures_per_second(
    batch: Callable[[Sequence[int], int], Any], indices: Sequence[int], epoch: int
) -> float:
    """Return the speed over these pictures."""
    begin = time.process_time()
    for start in range(0, len(indices), BATCH):
        batch(indices[start : start + BATCH], epoch)
    return len(indices) / (time.process_time() - begin)


def in_turns(sides: dict[str, Any], indices: Sequence[int], rounds: int) -> dict[str, float]:
    """Return the median speed of every side; the first round, which warms up, is left out."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in range(rounds + 1):
        for name, batch in sides.items():
            speed = pictures_per_second(batch, indices, epoch)
            if epoch:
                speeds[name].append(speed)
    return {name: statistics.median(each) for name, each in speeds.items()}


def report(title: str, speeds: dict[str, float]) -> None:
    """Print the speeds, and the ratios to torchvision's faster one."""
    best = max(speed for name, speed in speeds.items() if name.startswith('torchvision'))
    for name, speed in speeds.items():
        ratio = '' if name.startswith('torchvision') else f'  ratio {speed / best:.2f}'
        print(f'{title:28} {name:24} {speed:8.1f} pictures/s{ratio}', flush=True)


def spread(paths: Sequence[Path], count: int) -> Iterator[Path]:
    """Yield `count` paths evenly from a list."""
    for index in range(count):
        yield paths[index * len(paths) // count]


def main() -> None:
    parser = argparse.ArgumentParser(description='Reading and augmenting pictures, against torchvision v2.')
    parser.add_argument('--data-root', required=True, help='folder that holds seg_train (Intel scenes)')
    parser.add_argument('--photos', required=True, help='folder of photographs to enlarge')
    parser.add_argument('--small', type=int, default=320, help='Intel pictures in a round')
    parser.add_argument('--large', type=int, default=16, help='12-megapixel pictures in a round')
    parser.add_argument('--rounds', type=int, default=5)
    arguments = parser.parse_args()

    import cv2
    import torch

    from falconet.engine.cpu import tune_cpu

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    tune_cpu()
    root = Path(arguments.data_root)
    sides = {
        'Falconet': ours(root, 'seg_train'),
        'torchvision, tensors': theirs(root / 'seg_train', on_tensors=True),
        'torchvision, Pillow': theirs(root / 'seg_train', on_tensors=False),
    }
    report('Intel, 150 px', in_turns(sides, range(arguments.small), arguments.rounds))
    photographs = sorted(Path(arguments.photos).glob('*.jpg'))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / 'large'
        enlarge(list(spread(photographs, arguments.large)), folder)
        sides = {
            'Falconet': ours(Path(scratch), 'large'),
            'Falconet, cached': ours(
                Path(scratch), 'large', {'limit': '500MB', 'folder': f'{scratch}/cache'}
            ),
            'torchvision, tensors': theirs(folder, on_tensors=True),
            'torchvision, Pillow': theirs(folder, on_tensors=False),
        }
        report('12 megapixels', in_turns(sides, range(arguments.large), arguments.rounds))


if __name__ == '__main__':
    main()
