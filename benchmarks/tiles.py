"""What tiles find in a large picture: a detector's small objects, a segmentation network's pixels.

    python benchmarks/tiles.py work_dirs/ssdlite_demo/best.pth
    python benchmarks/tiles.py work_dirs/deeplabv3_demo/best.pth --objects 45 --sizes 150 450

The picture is made first, out of what tools/make_demo_data.py draws: one background, objects apart from each
other. An object is found by a box of its class that scores 0.3 or more with an IoU of at least 0.5. Masks are
scored by their mean IoU in the whole picture and where tiles overlap: with scores blended, and with each
pixel's class taken from the tile in which it lies farthest inside.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
DRAWN_FROM, IOU = 0.3, 0.5
APART = 40  # pixels between two objects


def make_picture(
    width: int, height: int, *, objects: int, sizes: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture, RGB uint8, its boxes xyxy (K, 4), their classes' names (K,), and the mask.

    The mask is uint8 (H, W): 0 background, then the demo's classes in their order.
    """
    from falconet.tools import make_demo_data as demo

    rng = np.random.default_rng(seed)
    image = demo.paint_background(rng, height, width).astype(np.float32)
    mask = np.zeros((height, width), np.uint8)
    boxes, names = [], []
    while len(boxes) < objects:
        name = demo.CLASSES[len(boxes) % len(demo.CLASSES)]
        sprite = demo.draw_sprite(rng, name, size=float(rng.uniform(*sizes)), light=-1.5)
        rows, columns = sprite.alpha.shape
        left, top = int(rng.integers(width - columns)), int(rng.integers(height - rows))
        near = [
            left < box[2] + APART
            and left + columns > box[0] - APART
            and top < box[3] + APART
            and top + rows > box[1] - APART
            for box in boxes
        ]
        if any(near):
            continue
        demo.stamp(image, sprite, left, top, light=-1.5)
        seen_rows, seen_columns = np.nonzero(sprite.alpha > 0.4)
        start = np.array([left + seen_columns.min(), top + seen_rows.min()])
        boxes.append(np.concatenate([start, [left + seen_columns.max() + 1, top + seen_rows.max() + 1]]))
        names.append(name)
        mask[top : top + rows, left : left + columns][sprite.alpha > 0.5] = demo.CLASSES.index(name) + 1
    image += rng.standard_normal((height, width, 1), np.float32) * 2
    picture = np.clip(image, 0, 255).astype(np.uint8)
    return picture, np.array(boxes, np.float32), np.array(names), mask


def count_found(result: object, boxes: np.ndarray, names: np.ndarray) -> tuple[int, int]:
    """Return how many objects have a box, and how many boxes have no object of their own."""
    import torch
    from torchvision.ops import box_iou

    found = result.above(DRAWN_FROM)  # type: ignore[attr-defined]
    overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(found.boxes)).numpy()
    labels = np.array([found.class_names[label] for label in found.labels], dtype=str)
    good = (overlap >= IOU) & (names[:, None] == labels[None])
    hits = int(good.any(axis=1).sum()) if good.size else 0
    return hits, len(found) - hits


def mean_iou(mask: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """Return the mean IoU over the classes of some pixels."""
    from falconet.tasks.segmentation.metric import count_pixels

    classes = int(max(mask.max(), truth.max())) + 1
    pixels = count_pixels(truth[where][None], mask[where][None], classes)
    right, true = pixels.diagonal(), pixels.sum(axis=1)
    return float((right / (true + pixels.sum(axis=0) - right))[true > 0].mean())


def pasted(model: Any, picture: np.ndarray, places: Sequence[Any]) -> np.ndarray:
    """Return the mask in which each pixel has the class of one tile."""
    from falconet.tasks.segmentation.tiles import join_masks

    parts = [picture[top:bottom, left:right].copy() for left, top, right, bottom in places]
    return join_masks([model.predict(part).mask for part in parts], places)


def overlap_of(picture: np.ndarray, places: Sequence[Any]) -> np.ndarray:
    """Return where several tiles lie over each other, bool (H, W)."""
    times = np.zeros(picture.shape[:2], np.uint8)
    for left, top, right, bottom in places:
        times[top:bottom, left:right] += 1
    return times > 1


def main() -> None:
    parser = argparse.ArgumentParser(description='What is found in a large picture with tiles and without.')
    parser.add_argument('checkpoint', help='of a demo config, or a program made of it')
    parser.add_argument('--tiles', type=int, nargs='+', default=[8, 12, 16], metavar='N')
    parser.add_argument('--objects', type=int, default=40)
    parser.add_argument('--sizes', type=int, nargs=2, default=(60, 160), help='pixels, least and largest')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save', metavar='FILE', help='write the picture with the last answer')
    arguments = parser.parse_args()
    import resource

    from falconet.checkpoints.load import load_model
    from falconet.tasks.tiles import tile_places

    model = load_model(arguments.checkpoint)
    picture, boxes, names, truth = make_picture(
        4000, 3000, objects=arguments.objects, sizes=tuple(arguments.sizes), seed=arguments.seed
    )
    result: Any = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for tiles in (None, *arguments.tiles):
        start = time.process_time()
        result = model.predict(picture, tiles=tiles)
        busy = time.process_time() - start
        how = f'tiles {tiles}' if tiles else 'without'
        if model.task.name == 'detection':
            hits, extra = count_found(result, boxes, names)
            said = f'{hits} of {len(boxes)} objects found, {extra} other boxes'
        else:
            said = f'mean IoU {mean_iou(result.mask, truth, np.ones(truth.shape, bool)):.4f}'
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f'{how}: {said}, {busy:.1f} s of processor, peak memory {(after - before) / 1024:+.0f} MB')
        if tiles and model.task.name == 'segmentation':
            places = tile_places(picture.shape[0], picture.shape[1], tiles)
            other, shared = pasted(model, picture, places), overlap_of(picture, places)
            each = [mean_iou(mask, truth, shared) for mask in (result.mask, other)]
            differ = float((result.mask != other)[shared].mean())
            print(
                f'    where tiles overlap, {shared.mean():.0%} of the picture: blended {each[0]:.4f}, pasted '
                f'{each[1]:.4f}; {differ:.2%} of these pixels differ'
            )
    if arguments.save:
        result.draw().save(arguments.save)


if __name__ == '__main__':
    main()
