"""How many small objects a detector finds in a large picture with tiles and without.

    python benchmarks/tiles.py work_dirs/ssdlite_demo/best.pth

The picture is made first, out of what tools/make_demo_data.py draws: one background, objects apart from each
other. An object is found by a box of its class that scores 0.3 or more with an IoU of at least 0.5.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DRAWN_FROM, IOU = 0.3, 0.5
APART = 40  # pixels between two objects


def make_picture(
    width: int, height: int, *, objects: int, sizes: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture, RGB uint8, its boxes xyxy (K, 4) and their classes' names (K,)."""
    from tools import make_demo_data as demo

    rng = np.random.default_rng(seed)
    image = demo.paint_background(rng, height, width).astype(np.float32)
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
    image += rng.standard_normal((height, width, 1), np.float32) * 2
    return np.clip(image, 0, 255).astype(np.uint8), np.array(boxes, np.float32), np.array(names)


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


def main() -> None:
    parser = argparse.ArgumentParser(description='Small objects found with tiles and without.')
    parser.add_argument('checkpoint', help='of configs/demo/ssdlite_demo.py, or a program made of it')
    parser.add_argument('--tiles', type=int, nargs='+', default=[8, 12, 16], metavar='N')
    parser.add_argument('--objects', type=int, default=40)
    parser.add_argument('--sizes', type=int, nargs=2, default=(60, 160), help='pixels, least and largest')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save', metavar='FILE', help='write the picture with the last answer')
    arguments = parser.parse_args()
    from tasks.checkpoints.load import load_model

    model = load_model(arguments.checkpoint)
    picture, boxes, names = make_picture(
        4000, 3000, objects=arguments.objects, sizes=tuple(arguments.sizes), seed=arguments.seed
    )
    result: Any = None
    for tiles in (None, *arguments.tiles):
        start = time.process_time()
        result = model.predict(picture, tiles=tiles)
        hits, extra = count_found(result, boxes, names)
        how = f'tiles {tiles}' if tiles else 'without'
        busy = time.process_time() - start
        print(f'{how}: {hits} of {len(boxes)} objects found, {extra} other boxes, {busy:.1f} s of processor')
    if arguments.save:
        result.draw().save(arguments.save)


if __name__ == '__main__':
    main()
