"""Does an exported program say what the model says? Measured on pictures, and held against limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from falconet.datasets.files import find_images
from falconet.deploy.program import EXAMPLES, Program, named
from falconet.tasks.model import VisionModel
from falconet.tasks.predictor import to_image

# What differences may be: of scores; of boxes, in pixels; the share of pixels of another class; of a head's
# own outputs, relative to the largest of them.
LIMITS = {'scores': 1e-4, 'boxes': 0.05, 'mask': 1e-3, 'outputs': 1e-4}
# Detections below this are compared only where nothing scores higher: there are many of nearly equal scores,
# and which of them are left depends on the last bit.
SURE = 0.01
CHECKED = 32  # pictures of a folder that are compared; every further one says the same


def chosen_pictures(program: Program, model: VisionModel, chosen: Sequence[str | Path]) -> list[np.ndarray]:
    """Return pictures and those of folders as the program takes them, batches uint8 (B, H, W, 3)."""
    images = [to_image(path) for path in find_images([str(each) for each in chosen])[:CHECKED]]
    if program.transforms is None:
        return [np.stack([model.to_input(image) for image in images])]
    if program.picture is None:
        return [image[None] for image in images]
    height, width = program.picture
    return [np.stack([np.asarray(cv2.resize(image, (width, height))) for image in images])]


def examples(program: Program) -> list[np.ndarray]:
    """Return generated pictures as the program takes them, batches uint8 (B, H, W, 3)."""
    if program.picture is None:
        return [generated_pictures(size, count=1, seed=seed) for seed, size in enumerate(EXAMPLES)]
    return [generated_pictures(program.picture)]


def expected_answer(model: VisionModel, program: Program, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a program of `model` is to say, computed by the model itself.

    Args:
        model: with its batch norms apart, as trained.
        program: says which pictures and which outputs.
        pictures: RGB uint8 (B, H, W, 3).
    """
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    geometry = program.geometry_of(pictures.shape[1:3])
    with torch.no_grad():
        if program.transforms is not None:
            images = program.transforms.on_tensors(images)
        outputs = model.infer(images)
        answer = named(outputs) if program.raw else program.form.finish(model.head, outputs, geometry)
    return {name: each.cpu().numpy() for name, each in answer.items()}


def differences(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], *, task: str | None
) -> dict[str, float]:
    """Return the largest differences, under the names of `LIMITS`; infinite where something is missing.

    Args:
        expected, found: outputs of a program by name.
        task: whose answers they are; None for a head's own outputs.
    """
    if any(each.shape != found[name].shape for name, each in expected.items()):
        return {'outputs': float('inf')}
    if task == 'classification':
        return {'scores': apart(expected['scores'], found['scores'])}
    if task == 'detection':
        return box_differences(expected, found)
    if task == 'segmentation':
        return {
            'mask': float((expected['mask'] != found['mask']).mean()),
            'scores': apart(expected['scores'], found['scores']),
            'outputs': relative(expected['cells'], found['cells']),
        }
    return {'outputs': max(relative(each, found[name]) for name, each in expected.items())}


def box_differences(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Compare detections as sets: every sure one of either side must be among those of the other."""
    largest = {'scores': 0.0, 'boxes': 0.0}
    for row in range(len(expected['count'])):
        sides = [
            {key: each[key][row, : each['count'][row]] for key in ('boxes', 'scores', 'labels')}
            for each in (expected, found)
        ]
        for one, other in (sides, sides[::-1]):
            for place in range(min(sure_ones(one['scores']), len(one['scores']))):
                gaps = np.abs(other['boxes'] - one['boxes'][place]).max(axis=1, initial=0)
                gaps[other['labels'] != one['labels'][place]] = np.inf
                # Of several boxes at one place, the one that scores alike.
                off = np.abs(other['scores'] - one['scores'][place])
                twin = int(np.argmin(gaps / LIMITS['boxes'] + off / LIMITS['scores'])) if len(gaps) else None
                gap, off = (np.inf, np.inf) if twin is None else (gaps[twin], off[twin])
                largest = {
                    'scores': max(largest['scores'], float(off)),
                    'boxes': max(largest['boxes'], float(gap)),
                }
    return largest


def sure_ones(scores: np.ndarray) -> int:
    """Return how many of the detections, best first, are compared: the sure ones, or the best five."""
    return int((scores > SURE).sum()) or min(5, len(scores))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference; infinite where one is not a number."""
    largest = float(np.abs(one.astype(np.float64) - other).max(initial=0))
    return largest if np.isfinite(largest) else float('inf')


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference as a share of the largest number, or of 1."""
    return apart(one, other) / max(1.0, float(np.abs(one).max(initial=0)))


def too_large(measured: Mapping[str, float]) -> dict[str, float]:
    """Return the differences that are beyond their limits."""
    return {name: value for name, value in measured.items() if not value <= LIMITS[name]}


def generated_pictures(size: tuple[int, int], *, count: int = 4, seed: int = 0) -> np.ndarray:
    """Return patches of colour under fine noise, RGB uint8 (count, height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 7, 9, 3), dtype=np.uint8)
    smooth: Any = [cv2.resize(each, size[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse]
    noise = random.normal(0, 12, (count, *size, 3))
    return (np.stack(smooth) + noise).clip(0, 255).astype(np.uint8)
