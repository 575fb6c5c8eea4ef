"""Time and memory to load a COCO annotation file, against pycocotools, in one run.

    python benchmarks/coco_index.py --annotations data/coco/annotations/instances_train2017.json
    python benchmarks/coco_index.py --synthetic 118287 860001

The second writes a file of so many images and objects first (outlines of 30 points), for machines without
COCO. Each side is a process of its own. Ours also says what a worker process forked off afterwards adds
when it reads every sample's boxes: pages it had to copy, because it wrote to them.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import alternate, finish


def write_annotations(path: Path, images: int, objects: int) -> None:
    """Write a file like instances_train2017.json."""
    rng = random.Random(0)
    identifiers = rng.sample(range(1, 600_000), images)
    content: dict[str, Any] = {
        'images': [
            {
                'license': 3,
                'file_name': f'{identifier:012d}.jpg',
                'coco_url': f'http://images.cocodataset.org/train2017/{identifier:012d}.jpg',
                'height': 480,
                'width': 640,
                'date_captured': '2013-11-14 11:18:45',
                'flickr_url': 'http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg',
                'id': identifier,
            }
            for identifier in identifiers
        ],
        'annotations': [],
        'categories': [{'id': k, 'name': f'class {k}', 'supercategory': 'any'} for k in range(1, 81)],
    }
    for number in range(objects):
        x, y = rng.uniform(0, 600), rng.uniform(0, 440)
        width, height = rng.uniform(2, 640 - x), rng.uniform(2, 480 - y)
        outline = [round(rng.uniform(0, 480), 2) for _ in range(60)]
        content['annotations'].append(
            {
                'segmentation': [outline],
                'area': width * height / 2,
                'iscrowd': 0,
                'image_id': rng.choice(identifiers),
                'bbox': [round(value, 2) for value in (x, y, width, height)],
                'category_id': rng.randint(1, 80),
                'id': number + 1,
            }
        )
    path.write_text(json.dumps(content))


def memory_mb() -> float:
    """Peak resident memory of this process (Linux); `resource` would count that of its parent."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024


def measure_ours(path: Path) -> dict[str, float]:
    """Load with Falconet; then read every sample's boxes in a forked process."""
    from multiprocessing import get_context

    import numpy as np

    from falconet.datasets.annotations import Problems
    from falconet.datasets.formats.coco import read_coco

    before, begin = memory_mb(), time.perf_counter()
    found = read_coco([path], [path.parent], categories=None, problems=Problems())
    seconds, peak = time.perf_counter() - begin, memory_mb() - before

    def read_everything(queue: Any) -> None:
        start = private_mb()
        total = 0.0
        for index in range(len(found)):
            total += len(found.paths[index]) + float(np.sum(found.boxes[found.objects(index)]))
        queue.put(private_mb() - start)

    context = get_context('fork')
    queue = context.Queue()
    worker = context.Process(target=read_everything, args=(queue,))
    worker.start()
    added = queue.get()
    worker.join()
    size = sum(value.nbytes for value in vars(found).values() if isinstance(value, np.ndarray))
    return {
        'seconds': seconds,
        'peak_mb': peak,
        'index_mb': size / 2**20,
        'added_by_a_worker_mb': added,
    }


def private_mb() -> float:
    """Memory of this process that it shares with no other (Linux)."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith('Private_')) / 1024


def measure_theirs(path: Path) -> dict[str, float]:
    """Load with pycocotools."""
    from pycocotools.coco import COCO

    before, begin = memory_mb(), time.perf_counter()
    coco = COCO(str(path))
    result = {'seconds': time.perf_counter() - begin, 'peak_mb': memory_mb() - before}
    assert coco.anns
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description='Loading COCO annotations, against pycocotools.')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--annotations', type=Path, help='an annotation file')
    which.add_argument('--synthetic', type=int, nargs=2, metavar=('IMAGES', 'OBJECTS'), help='write one')
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    path = arguments.annotations or Path(tempfile.gettempdir()) / 'falconet_synthetic_coco.json'
    if arguments.side:
        finish(measure_ours(path) if arguments.side == 'ours' else measure_theirs(path))
    if arguments.synthetic:
        write_annotations(path, *arguments.synthetic)
        print(f'wrote {path}: {path.stat().st_size / 2**20:.0f} MB')
    results = alternate(('theirs', 'ours'), arguments.rounds)
    if arguments.synthetic:
        path.unlink()
    for key in ('seconds', 'peak_mb'):
        ours, theirs = (min(each[key] for each in results[side]) for side in ('ours', 'theirs'))
        print(f'{key}: ours {ours:.1f}, theirs {theirs:.1f}, ratio {ours / theirs:.2f}')


if __name__ == '__main__':
    main()
