"""Write a small generated data set once, in the layouts of three real ones.

The same scenes (six kinds of toy-like objects on varied backgrounds) appear as an image folder
of crops (``classification/``), as COCO (``coco/``) and as Pascal VOC (``VOCdevkit/VOC2012/``), so
every task can be tried without a download. Recipes and checkpoints may be picked on the split val;
nothing is ever picked on test. The same settings give the same bytes, on any number of workers.

    python tools/make_demo_data.py data/demo
"""

from __future__ import annotations

import argparse
import colorsys
import contextlib
import importlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    import cv2
    import numpy as np

    from falconet.datasets.annotations import Annotations
else:

    class LazyModule:
        """Import a module at its first use, so that ``--help`` does not wait for it."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(importlib.import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    cv2, np = LazyModule('cv2'), LazyModule('numpy')

VERSION = 3  # raise it whenever the same settings would give other bytes
MARKER = 'demo.json'
FOLDERS = ('classification', 'coco', 'VOCdevkit')
# Our split -> folder name in COCO. A split's position is its stream of random numbers.
SPLITS = {'train': 'train2017', 'val': 'val2017', 'test': 'test2017'}
TEST_IDS = 500_000  # picture identifiers of the split test start here, above those of the other two
MOST_SCENES = 35_000  # of a split, so that they do
COCO_NAME, VOC_NAME = '{:012d}.jpg', '2012_{:06d}.jpg'
CLASSES = ('balloon', 'cone', 'fish', 'kite', 'mushroom', 'star')
CATEGORY_IDS = (1, 3, 4, 8, 13, 17)  # with gaps like COCO's, to catch code that assumes 1..N
VOID = 255
CROP_SIDE = 96
MIN_CROP_SHARE = 0.7  # of an object that must be visible to become a classification picture
JPEG_QUALITY = 90
SUPERSAMPLING = 2

TOY_COLOURS = (
    (222, 62, 54), (240, 128, 40), (246, 186, 48), (240, 224, 92), (150, 196, 62), (52, 150, 84),
    (42, 164, 160), (90, 184, 232), (48, 104, 204), (92, 72, 172), (168, 88, 190), (238, 122, 164),
    (150, 92, 58), (240, 228, 204), (96, 110, 128),
)  # fmt: skip
# A class prefers some colours (positions above) but shares them with others and may wear any, so
# colour is a hint, as in real pictures, and never decides.
FAVOURITES = {
    'balloon': (0, 11, 11), 'cone': (1, 1, 0), 'fish': (6, 7, 8),
    'kite': (4, 5, 10), 'mushroom': (0, 12, 13), 'star': (2, 3, 2),
}  # fmt: skip
FAVOURITE_SHARE = 0.85
# How often the body is plain, striped, dotted, marbled.
TEXTURES = ('plain', 'stripes', 'dots', 'marble')
TEXTURE_SHARES = {
    'balloon': (0.5, 0.4, 0.05, 0.05), 'cone': (0.85, 0.05, 0.05, 0.05),
    'fish': (0.5, 0.25, 0.05, 0.2), 'kite': (0.8, 0.05, 0.1, 0.05),
    'mushroom': (0.6, 0.05, 0.3, 0.05), 'star': (0.75, 0.05, 0.1, 0.1),
}  # fmt: skip


class Part(NamedTuple):
    """One filled outline (``width`` 0) or one stroke of an object, in its own unit coordinates."""

    points: np.ndarray  # (N, 2) x, y; y points down
    paint: str  # a key of the palette
    width: float = 0.0  # stroke width in the same unit


class Sprite(NamedTuple):
    """A drawn object, cut out: ``colour`` is already multiplied by ``alpha``."""

    colour: np.ndarray  # (H, W, 3) float32, 0..255
    alpha: np.ndarray  # (H, W) float32, 0..1


@dataclass
class SceneObject:
    """What is known about one labelled object (or one crowd) of a scene."""

    class_index: int  # 0..5, position in CLASSES
    full_pixels: int  # pixels it would cover uncut and in front of everything
    is_truncated: bool  # the image border cuts it
    is_crowd: bool = False


@dataclass
class Scene:
    """A finished picture and whose pixel is whose."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    owner: np.ndarray  # (H, W) uint8: 0 = no object, k = objects[k - 1]
    objects: list[SceneObject]


# --- Outlines of the classes and of the clutter ---------------------------------------------------


def arc(
    centre: tuple[float, float], radii: tuple[float, float], start: float = 0, stop: float = 360
) -> np.ndarray:
    """Return (N, 2) points of an elliptic arc; angles in degrees, 90 points down."""
    angles = np.radians(np.linspace(start, stop, 40))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii + centre


def polygon(*points: tuple[float, float]) -> np.ndarray:
    """Return the given corners as an (N, 2) float array."""
    return np.array(points, dtype=np.float64)


def balloon(rng: np.random.Generator) -> list[Part]:
    """Pear-shaped body, knot, wavy string."""
    angles = np.linspace(0, 2 * np.pi, 60)
    narrowing = 1 - rng.uniform(0.15, 0.4) * ((1 - np.cos(angles)) / 2) ** 2
    body = np.stack([0.68 * np.sin(angles) * narrowing, -0.2 - 0.8 * np.cos(angles)], axis=1)
    heights = np.linspace(0.7, rng.uniform(1.0, 1.35), 20)
    sway = rng.uniform(0.04, 0.12) * np.sin((heights - 0.7) * rng.uniform(5, 9))
    return [
        Part(np.stack([sway, heights], axis=1), 'line', 0.05),
        Part(polygon((0, 0.5), (0.13, 0.75), (-0.13, 0.75)), 'shade'),
        Part(body, 'body'),
    ]


def cone(rng: np.random.Generator) -> list[Part]:
    """Traffic cone: foot plate, tapering body, one to three bands."""
    top, bottom = rng.uniform(0.09, 0.15), rng.uniform(0.48, 0.6)

    def band(upper: float, lower: float) -> np.ndarray:
        widths = [top + (bottom - top) * (level + 1) / 1.7 for level in (upper, lower)]
        edges = [
            arc((0, level), (width, 0.22 * width), 0, 180)
            for level, width in zip((upper, lower), widths, strict=True)
        ]
        return np.concatenate([edges[0], edges[1][::-1]])

    count = int(rng.integers(1, 4))
    levels = np.linspace(-0.75, 0.55, 2 * count + 1)
    foot = polygon((-0.72, 0.62), (0.72, 0.62), (0.9, 0.86), (0.9, 1), (-0.9, 1), (-0.9, 0.86))
    parts = [Part(foot, 'shade'), Part(band(-1, 0.7), 'body')]
    parts.append(Part(arc((0, -1), (top, 0.3 * top)), 'dark'))
    parts += [Part(band(levels[i], levels[i + 1]), 'light') for i in range(1, 2 * count, 2)]
    return parts


def fish(rng: np.random.Generator) -> list[Part]:
    """Oval body facing left or right, forked tail, fins, eye and gill."""
    height, fork = rng.uniform(0.34, 0.56), rng.uniform(0.62, 0.85)
    angles = np.linspace(0, 2 * np.pi, 60)
    body = np.stack(
        [0.72 * np.cos(angles) - 0.2, height * np.sin(angles) * (1 - 0.28 * np.cos(angles))], axis=1
    )
    tail = polygon((0.35, 0), (0.78, -0.5), (1, -0.52), (fork, 0), (1, 0.52), (0.78, 0.5))
    back = polygon((-0.4, -0.5), (-0.1, -1.6), (0.35, -1.35), (0.3, -0.4)) * (1, height)
    belly = polygon((-0.2, 0.5), (0.05, 1.45), (0.3, 1.3), (0.2, 0.4)) * (1, height)
    side = polygon((-0.22, 0.02), (0.14, -0.04), (0.1, 0.22))
    eye = (-0.6, -0.3 * height)
    parts = [Part(tail, 'accent'), Part(back, 'accent'), Part(belly, 'accent'), Part(body, 'body')]
    parts += [Part(arc((-0.5, 0), (0.2, 0.75 * height), -60, 60), 'shade', 0.05)]
    parts += [Part(side, 'accent'), Part(arc(eye, (0.12, 0.12)), 'light')]
    parts += [Part(arc((eye[0] - 0.02, eye[1]), (0.065, 0.065)), 'dark')]
    flip = (rng.choice([-1, 1]), 1)
    return [part._replace(points=part.points * flip) for part in parts]


def kite(rng: np.random.Generator) -> list[Part]:
    """Diamond of four panels on a cross of spars, tail with bows."""
    half, level = rng.uniform(0.55, 0.75), rng.uniform(-0.45, -0.2)
    top, right, bottom, left = (0, -1), (half, level), (0, 0.75), (-half, level)
    middle = (0, level)
    corners = (top, right, bottom, left, top)
    paints = ('body', 'accent', 'body', 'accent') if rng.random() < 0.6 else ('body', 'shade') * 2
    heights = np.linspace(0.75, rng.uniform(1.3, 1.7), 24)
    sway = rng.uniform(0.08, 0.2) * np.sin((heights - 0.75) * rng.uniform(5, 8))
    tail = np.stack([sway, heights], axis=1)
    parts = [Part(tail, 'line', 0.05)]
    for knot in tail[7::8]:
        bow = polygon((-0.16, -0.09), (0.16, 0.09), (0.16, -0.09), (-0.16, 0.09)) + knot
        parts.append(Part(bow, 'accent'))
    for first, second, paint in zip(corners[:-1], corners[1:], paints, strict=True):
        parts.append(Part(polygon(middle, first, second), paint))
    spars = (polygon(top, bottom), polygon(left, right))
    return parts + [Part(spar, 'line', 0.035) for spar in spars]


def mushroom(rng: np.random.Generator) -> list[Part]:
    """Domed cap, often spotted, on a stem."""
    cap_height, stem = rng.uniform(0.65, 1.1), rng.uniform(0.17, 0.3)
    foot = stem * rng.uniform(1.1, 1.5)
    bend = rng.uniform(-0.12, 0.12)
    stem_outline = np.concatenate([polygon((-stem, 0), (stem, 0)), arc((bend, 0.85), (foot, 0.16), 0, 180)])
    under = rng.uniform(0.1, 0.2)
    cap = np.concatenate([arc((0, 0), (0.9, cap_height), 180, 360), arc((0, 0), (0.9, under), 0, 180)])
    parts = [Part(stem_outline, 'cream'), Part(cap, 'body')]
    parts.append(Part(arc((0, 0.03), (0.76, under * 0.8)), 'cream_shade'))
    parts.append(Part(polygon((-stem, 0), (stem, 0), (stem, 0.3), (-stem, 0.3)), 'cream'))
    if rng.random() < 0.6:
        for x, y in ((-0.5, -0.3), (0.02, -0.34), (0.5, -0.28), (-0.24, -0.7), (0.28, -0.68)):
            radius = rng.uniform(0.07, 0.15)
            centre = (x + rng.uniform(-0.06, 0.06), y * cap_height)
            parts.append(Part(arc(centre, (radius, radius * cap_height)), 'light'))
    return parts


def star(rng: np.random.Generator) -> list[Part]:
    """Five-pointed star, with facets like folded paper or plump like a starfish."""
    angles = np.radians(np.arange(10) * 36 - 90)
    inner = rng.uniform(0.4, 0.52)
    if rng.random() < 0.4:
        fine = np.linspace(0, 2 * np.pi, 120)
        reach = inner + (1 - inner) * np.abs(np.cos(2.5 * (fine + np.pi / 2))) ** 1.6
        return [Part(np.stack([np.cos(fine), np.sin(fine)], axis=1) * reach[:, None], 'body')]
    radii = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    tips = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    parts = [Part(tips, 'body')]
    if rng.random() < 0.6:
        for i in range(0, 10, 2):
            parts.append(Part(np.stack([np.zeros(2), tips[i], tips[i + 1]]), 'shade'))
    return parts


def clutter(rng: np.random.Generator) -> list[Part]:
    """Something that is none of the classes: gem, pebble, leaf, ring, stick or dome."""
    kind = rng.integers(6)
    count = int(rng.integers(3, 8))
    angles = np.sort(np.arange(count) + rng.uniform(-0.25, 0.25, count)) * 2 * np.pi / count
    if kind == 0:
        return [Part(np.stack([np.cos(angles), np.sin(angles)], axis=1), 'body')]
    if kind == 1:
        fine = np.linspace(0, 2 * np.pi, 80)
        waves = [rng.uniform(-0.12, 0.12) * np.cos(k * fine + k) for k in (2, 3, 4)]
        reach = 0.8 + np.sum(waves, axis=0)
        return [Part(np.stack([np.cos(fine), np.sin(fine)], axis=1) * reach[:, None], 'body')]
    if kind == 2:
        bulge = rng.uniform(0.3, 0.6) * np.sin(np.linspace(0, np.pi, 30))
        along = np.linspace(-1, 1, 30)
        leaf = np.concatenate([np.stack([along, bulge], 1), np.stack([along, -bulge], 1)[::-1]])
        return [Part(leaf, 'body'), Part(polygon((-1, 0), (1, 0)), 'shade', 0.06)]
    if kind == 3:
        return [Part(arc((0, 0), (1, 1)), 'body', rng.uniform(0.2, 0.5))]
    if kind == 4:
        return [Part(polygon((-1, 0), (rng.uniform(-0.3, 0.3), 0.1), (1, 0)), 'body', 0.14)]
    return [Part(arc((0, 0), (1, rng.uniform(0.5, 1)), 180, 360), 'body')]


OUTLINES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    'balloon': balloon, 'cone': cone, 'fish': fish,
    'kite': kite, 'mushroom': mushroom, 'star': star,
}  # fmt: skip
# Degrees either way: a cone rarely lies on its side; 36 is every position of a star.
TURNS = {'balloon': 24, 'cone': 22, 'fish': 25, 'kite': 30, 'mushroom': 26, 'star': 36}


# --- From outline to picture ----------------------------------------------------------------------


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, *, cells: tuple[int, int] = (3, 3)
) -> np.ndarray:
    """Return (height, width) float32 noise, 0..1, coarser with fewer ``cells`` (rows, columns)."""
    total = np.zeros((height, width), np.float32)
    for octave in range(5):
        shape = [min(n * 2**octave, side) for n, side in zip(cells, (height, width), strict=True)]
        grid = rng.random(shape, dtype=np.float32)
        total += 0.55**octave * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return (total - total.min()) / (np.ptp(total) + 1e-6)


def make_palette(rng: np.random.Generator, favourites: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the paints of one object: name -> (3,) float RGB, 0..255."""
    first, second = (int(k) for k in rng.choice(len(TOY_COLOURS), 2, replace=False))
    if favourites and rng.random() < FAVOURITE_SHARE:
        first = int(rng.choice(favourites))

    def vary(colour: tuple[int, int, int]) -> np.ndarray:
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
        hue = (hue + rng.uniform(-0.03, 0.03)) % 1
        saturation *= rng.uniform(0.7, 1.05)
        varied = colorsys.hsv_to_rgb(hue, min(saturation, 1), min(value * rng.uniform(0.8, 1.1), 1))
        return np.array(varied) * 255

    body, cream = vary(TOY_COLOURS[first]), vary((240, 224, 196))
    return {
        'body': body, 'accent': vary(TOY_COLOURS[second]), 'shade': body * 0.72,
        'cream': cream, 'cream_shade': cream * 0.72, 'light': vary((246, 244, 238)),
        'dark': vary((40, 36, 44)), 'line': vary((70, 62, 60)),
    }  # fmt: skip


def make_texture(
    rng: np.random.Generator,
    across: np.ndarray,
    down: np.ndarray,
    shares: tuple[float, ...] | None,
) -> np.ndarray:
    """Return how far (0..1) the second colour shows at object coordinates ``across``, ``down``."""
    kind = rng.choice(TEXTURES, p=shares)
    if kind == 'plain':
        return np.zeros_like(across)
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(2.2, 4.5)
    u = (across * np.cos(angle) + down * np.sin(angle)) * frequency
    v = (down * np.cos(angle) - across * np.sin(angle)) * frequency
    if kind == 'stripes':
        return np.clip(np.sin(np.pi * u) * 3 + 0.5, 0, 1)
    if kind == 'dots':
        distance = np.hypot(u - np.round(u), v - np.round(v))
        return np.clip((rng.uniform(0.22, 0.34) - distance) * 8 + 0.5, 0, 1)
    noise = fractal_noise(rng, *across.shape)
    return np.clip((noise - 0.5) * 6 + 0.5, 0, 1)


def draw_sprite(rng: np.random.Generator, name: str | None, *, size: float, light: float) -> Sprite:
    """Draw one object of class ``name`` (None: clutter), about ``size`` pixels long.

    ``light`` is the direction the light comes from, in radians.
    """
    parts = OUTLINES[name](rng) if name else clutter(rng)
    turn = TURNS[name] if name else 180
    everything = np.concatenate([part.points for part in parts])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = size / (high - low).max()
    stretch, angle = np.sqrt(rng.uniform(0.75, 1.33)), np.radians(rng.uniform(-turn, turn))
    turning = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_pixels = turning @ np.diag([scale * stretch, scale / stretch])

    margin = 2 + max(part.width for part in parts) * scale
    placed = (everything - (low + high) / 2) @ to_pixels.T
    origin = placed.min(axis=0) - margin
    width, height = (int(v) for v in np.ceil(placed.max(axis=0) + margin - origin))
    big = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    drawn, cover = np.zeros((*big, 4), np.uint8), np.zeros(big, np.uint8)
    palette = make_palette(rng, FAVOURITES[name] if name else ())
    for part in parts:
        points = (part.points - (low + high) / 2) @ to_pixels.T - origin
        outline = [np.round(points * SUPERSAMPLING * 16).astype(np.int32)]
        textured = 255 if part.paint == 'body' else 0
        paint = (*(float(c) for c in palette[part.paint]), textured)
        if part.width:
            # Thinner than a pixel and a half, a string would fall apart into dots in the mask.
            thickness = max(round(max(part.width * scale, 1.5) * SUPERSAMPLING), 1)
            cv2.polylines(drawn, outline, False, paint, thickness, cv2.LINE_AA, 4)
            cv2.polylines(cover, outline, False, 255, thickness, cv2.LINE_AA, 4)
        else:
            cv2.fillPoly(drawn, outline, paint, cv2.LINE_AA, 4)
            cv2.fillPoly(cover, outline, 255, cv2.LINE_AA, 4)
    small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha /= 255

    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    pixels = np.stack([columns, rows], axis=-1) + (origin + 0.5).astype(np.float32)
    to_object = (np.linalg.inv(to_pixels).T * scale * 2 / size).astype(np.float32)
    across, down = np.moveaxis(pixels @ to_object, -1, 0)
    amount = make_texture(rng, across, down, TEXTURE_SHARES[name] if name else None)
    amount = amount[..., None] * small[..., 3:] / 255
    second = palette['accent'] * alpha[..., None]
    colour = small[..., :3] * (1 - amount) + second * amount
    shading = shade(alpha, light=light, gloss=rng.uniform(0, 90), relief=rng.uniform(0.5, 1.2))
    colour = colour * shading[0][..., None] + (shading[1] * alpha)[..., None]
    return Sprite(np.clip(colour, 0, 255 * alpha[..., None]).astype(np.float32), alpha)


def shade(alpha: np.ndarray, *, light: float, gloss: float, relief: float) -> tuple[np.ndarray, np.ndarray]:
    """Light a silhouette as if it were inflated.

    Returns the diffuse factor and the highlight (0..255 to add), both (H, W).
    """
    inside = np.pad((alpha > 0.5).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    radius = max(float(depth.max()), 1.0)
    rise = np.sqrt(1 - (1 - np.clip(depth / radius, 0, 1)) ** 2) * radius * relief
    rise = cv2.GaussianBlur(rise, (0, 0), 0.6 + 0.12 * radius)
    slope_x = cv2.Sobel(rise, -1, 1, 0, scale=0.125)
    slope_y = cv2.Sobel(rise, -1, 0, 1, scale=0.125)
    towards = -(slope_x * math.cos(light) + slope_y * math.sin(light))
    steepness = np.sqrt(1 + slope_x**2 + slope_y**2)
    lit = (0.75 + 0.66 * towards) / steepness
    diffuse = np.clip(0.42 + 0.72 * lit, 0.3, 1.3)
    highlight = gloss * np.clip(lit - 0.05, 0, 1) ** 16 * 4
    return diffuse, np.minimum(highlight, 160)


def stamp(image: np.ndarray, sprite: Sprite, left: int, top: int, *, light: float) -> None:
    """Blend a sprite and its soft shadow into ``image`` (H, W, 3) float32, in place."""
    height, width = image.shape[:2]
    reach = 4 + round(0.06 * max(sprite.alpha.shape))
    shadow = cv2.GaussianBlur(np.pad(sprite.alpha, 2 * reach), (0, 0), reach / 2)
    shift_x, shift_y = round(-math.cos(light) * reach), round(-math.sin(light) * reach)
    layers = (
        (left - 2 * reach + shift_x, top - 2 * reach + shift_y, 0.38 * shadow, None),
        (left, top, sprite.alpha, sprite.colour),
    )
    for x, y, alpha, colour in layers:
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + alpha.shape[1], width), min(y + alpha.shape[0], height)
        if x0 >= x1 or y0 >= y1:
            continue
        window = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        image[y0:y1, x0:x1] *= 1 - alpha[window][..., None]
        if colour is not None:
            image[y0:y1, x0:x1] += colour[window]


# --- Scenes ---------------------------------------------------------------------------------------


def paint_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return an (height, width, 3) uint8 RGB backdrop of one of six kinds."""
    kind = rng.choice(['hills', 'meadow', 'water', 'wood', 'bricks', 'bokeh'])
    tones = {
        'hills': ((112, 168, 216), (226, 222, 208)),
        'meadow': ((70, 104, 48), (156, 166, 84)),
        'water': ((36, 96, 128), (138, 192, 196)),
        'wood': ((112, 76, 48), (196, 152, 104)),
        'bricks': ((140, 88, 72), (198, 160, 136)),
        'bokeh': ((48, 66, 82), (176, 142, 118)),
    }[kind]
    tint = (rng.uniform(0.8, 1.15) * rng.uniform(0.9, 1.1, 3)).astype(np.float32)
    dark, bright = (np.array(tone * tint, np.float32) for tone in tones)
    if rng.random() < 0.3:  # the same surface in another material's colours
        dark, bright = dark[::-1], bright[::-1]
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    cells = {'water': (14, 2), 'wood': (2, 24), 'meadow': (7, 16)}.get(kind, (3, 3))
    noise = fractal_noise(rng, height, width, cells=cells)
    level = noise
    if kind == 'hills':
        level = 0.75 * rows / height + 0.4 * noise
    elif kind == 'water':
        level = 0.7 * noise + 0.3 * (0.5 + 0.5 * np.sin(rows / rng.uniform(3, 7) + 9 * noise))
    elif kind == 'wood':
        plank = rng.uniform(28, 60)
        tone = rng.random(16, dtype=np.float32)[(columns / plank).astype(int)]
        level = (0.6 * noise + 0.4 * tone) * np.clip(np.abs(columns % plank - 1) / 2, 0.35, 1)
    elif kind == 'bricks':
        tall = rng.uniform(16, 34)
        row = (rows / tall).astype(int)
        along = columns + (row % 2) * tall
        tone = rng.random((32, 16), dtype=np.float32)[row, (along / (2 * tall)).astype(int)]
        joint = (rows % tall < 2.5) | (along % (2 * tall) < 2.5)
        level = np.where(joint, 1.0 + 0.2 * noise, 0.45 * noise + 0.45 * tone)
    image = dark + (bright - dark) * level.astype(np.float32)[..., None]
    if kind == 'hills':
        for layer in range(3):
            ridge = fractal_noise(rng, 1, width, cells=(1, 3))[0]
            line = height * (0.35 + 0.2 * layer) + height * 0.2 * (ridge - 0.5)
            ground = tint * [(122, 148, 150), (98, 134, 88), (84, 108, 52)][layer]
            edge = np.clip(rows - line + 0.5, 0, 1).astype(np.float32)[..., None]
            speckle = fractal_noise(rng, height, width, cells=(12, 12))[..., None]
            image += (ground.astype(np.float32) * (0.7 + 0.5 * speckle) - image) * edge
    elif kind == 'bokeh':
        for _ in range(14):
            glow = np.zeros((height, width), np.uint8)
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(glow, centre, int(rng.integers(6, 30)), 255, -1, cv2.LINE_AA)
            spot = np.array(TOY_COLOURS[rng.integers(len(TOY_COLOURS))]) * 0.6 + 90
            strength = glow[..., None] * np.float32(rng.uniform(0.2, 0.55) / 255)
            image += (spot.astype(np.float32) - image) * strength
    if rng.random() < 0.4:  # dappled light
        image *= 0.8 + 0.4 * fractal_noise(rng, height, width, cells=(2, 2))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def scatter_marks(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw hanging wires and confetti behind the objects into a uint8 ``image``, in place."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(0, 4)):
        along = np.linspace(-0.1, 1.1, 30)
        start, end = rng.uniform(0, height, 2)
        sag = rng.uniform(-0.25, 0.25) * height * 4 * along * (1 - along)
        points = np.stack([along * width, start + (end - start) * along + sag], axis=1)
        tone = tuple(float(c) for c in rng.uniform(20, 200) * rng.uniform(0.8, 1.2, 3))
        wire = [np.round(points * 16).astype(np.int32)]
        cv2.polylines(image, wire, False, tone, int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    for _ in range(rng.integers(0, 22)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        corners = centre + rng.normal(0, rng.uniform(1.5, 5), (int(rng.integers(3, 6)), 2))
        tone = tuple(float(c) for c in np.array(TOY_COLOURS[rng.integers(len(TOY_COLOURS))]) * 0.9)
        hull = cv2.convexHull(np.round(corners * 16).astype(np.int32))
        cv2.fillConvexPoly(image, hull, tone, cv2.LINE_AA, 4)


class SceneBuilder:
    """Places things back to front and keeps every labelled object recognisably visible."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.height, self.width = (int(n) for n in rng.integers((208, 272), (273, 353)))
        self.light = math.radians(rng.uniform(-150, -30))  # from above
        backdrop = paint_background(rng, self.height, self.width)
        scatter_marks(rng, backdrop)  # before it is float: OpenCV smooths lines in uint8 only
        self.image = backdrop.astype(np.float32)
        self.owner = np.zeros((self.height, self.width), np.uint8)
        self.objects: list[SceneObject] = []

    def place(
        self,
        sprites: list[tuple[Sprite, int, int]],
        label: SceneObject | None,
        *,
        max_overlap: float = 1.0,
    ) -> bool:
        """Stamp sprites (with left, top) as one object, or as clutter if ``label`` is None.

        Returns False and changes nothing if this would hide any labelled object too far, or if
        more than the share ``max_overlap`` of it would cover other objects.
        """
        # A canvas just around the sprites, part of which may lie outside the picture.
        x = min(left for _, left, _ in sprites)
        y = min(top for _, _, top in sprites)
        right = max(left + sprite.alpha.shape[1] for sprite, left, _ in sprites)
        bottom = max(top + sprite.alpha.shape[0] for sprite, _, top in sprites)
        cover = np.zeros((bottom - y, right - x), bool)
        for sprite, left, top in sprites:
            rows, columns = sprite.alpha.shape
            cover[top - y : top - y + rows, left - x : left - x + columns] |= sprite.alpha > 0.4
        x0, y0 = max(x, 0), max(y, 0)
        inside = cover[y0 - y : self.height - y, x0 - x : self.width - x]
        owner = self.owner.copy()
        region = owner[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]]
        if np.count_nonzero(region[inside]) > max_overlap * inside.sum():
            return False
        region[inside] = len(self.objects) + 1 if label else 0
        if label:
            label.full_pixels = int(cover.sum())
            label.is_truncated = bool(label.full_pixels > inside.sum())
        objects = [*self.objects, label] if label else self.objects
        visible = np.bincount(owner.ravel(), minlength=len(objects) + 1)[1:]
        for pixels, known in zip(visible, objects, strict=True):
            if pixels < max(90, 0.35 * known.full_pixels):
                return False
        self.owner, self.objects = owner, objects
        for sprite, left, top in sprites:
            stamp(self.image, sprite, left, top, light=self.light)
        return True

    def add_one(self, class_index: int | None) -> None:
        """Draw one object (or clutter, for None) and look for a spot where it fits."""
        rng = self.rng
        smallest, largest = (16, 66) if class_index is None else (30, 140)
        size = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        name = None if class_index is None else CLASSES[class_index]
        sprite = draw_sprite(rng, name, size=size, light=self.light)
        rows, columns = sprite.alpha.shape
        for attempt in range(16):
            left = int(rng.integers(-columns // 4, self.width - 3 * columns // 4))
            top = int(rng.integers(-rows // 4, self.height - 3 * rows // 4))
            label = None if class_index is None else SceneObject(class_index, 0, False)
            # A free spot if there is one soon: scenes stay legible, yet many objects do overlap.
            if self.place([(sprite, left, top)], label, max_overlap=0.08 if attempt < 8 else 1):
                return

    def add_crowd(self, class_index: int) -> None:
        """Place a dense cluster of tiny objects of one class, labelled as one crowd."""
        rng = self.rng
        centre = rng.uniform(0.3, 0.7, 2) * (self.width, self.height)
        sprites = []
        for _ in range(rng.integers(14, 26)):
            left, top = np.round(centre + rng.uniform(-1, 1, 2) * (46, 28)).astype(int)
            sprite = draw_sprite(rng, CLASSES[class_index], size=rng.uniform(13, 19), light=self.light)
            sprites.append((sprite, int(left), int(top)))
        self.place(sprites, SceneObject(class_index, 0, False, is_crowd=True))

    def finish(self) -> Scene:
        """Develop the photograph: light fall-off, exposure, slight blur and sensor noise."""
        rng, shape = self.rng, (self.height, self.width)
        falloff = fractal_noise(rng, *shape, cells=(1, 1))[..., None]
        contrast, offset = rng.uniform(0.8, 1.1), rng.uniform(-12, 12)
        tint = (contrast * rng.uniform(0.94, 1.06, 3)).astype(np.float32)
        image = self.image * (0.85 + 0.3 * falloff) * tint + (118 * (1 - contrast) + offset)
        sigma = rng.uniform(0, 0.8)
        if sigma > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        image += rng.standard_normal((*shape, 1), np.float32) * rng.uniform(1, 4)
        return Scene(np.clip(np.round(image), 0, 255).astype(np.uint8), self.owner, self.objects)


def make_scene(rng: np.random.Generator, *, is_negative: bool, has_crowd: bool) -> Scene:
    """Compose one scene; a negative one holds clutter only."""
    builder = SceneBuilder(rng)
    if has_crowd:
        builder.add_crowd(int(rng.integers(len(CLASSES))))
    count = 0 if is_negative else int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.04, 0.06, 0.1, 0.2, 0.28, 0.32]))
    things: list[int | None] = [int(k) for k in rng.integers(len(CLASSES), size=count)]
    things += [None] * int(rng.integers(1, 4))
    for position in rng.permutation(len(things)):
        builder.add_one(things[position])
    return builder.finish()


# --- Files ----------------------------------------------------------------------------------------


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, width, height in pixels of a (H, W) mask's true pixels."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, width, height


def mask_to_polygons(mask: np.ndarray) -> list[list[int]]:
    """Return COCO polygons along the pixel edges of a (H, W) uint8 mask, exact to the pixel.

    A polygon cannot have a hole, so a piece with one is cut in two through the hole.
    """
    polygons: list[list[int]] = []
    count, pieces = cv2.connectedComponents(mask, connectivity=4)
    for number in range(1, count):
        piece = (pieces == number).astype(np.uint8)
        # At twice the size, border pixel i lies beside pixel edge (i + 1) // 2.
        doubled = piece.repeat(2, axis=0).repeat(2, axis=1)
        contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        holes = [c for c, links in zip(contours, tree[0], strict=True) if links[3] >= 0]
        if holes:
            cut = int(holes[0][:, 0, 0].min() + holes[0][:, 0, 0].max()) // 4
            for half in (np.s_[:, :cut], np.s_[:, cut:]):
                part = np.zeros_like(piece)
                part[half] = piece[half]
                polygons += mask_to_polygons(part)
            continue
        edges = (contours[0][:, 0] + 1) // 2
        moved = np.any(edges != np.roll(edges, 1, axis=0), axis=1)
        polygons.append(edges[moved].ravel().tolist())
    return polygons


def describe_object(scene: Scene, number: int) -> dict[str, Any]:
    """Describe object ``number`` (1-based); its box is (left, top, width, height), its outline COCO's."""
    from pycocotools import mask as coco_mask

    known = scene.objects[number - 1]
    mask = (scene.owner == number).astype(np.uint8)
    if known.is_crowd:
        encoded: Any = coco_mask.encode(np.asfortranarray(mask))
        segmentation: Any = {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')}
    else:
        left, top, width, height = tight_box(mask)
        outlines = mask_to_polygons(mask[top : top + height, left : left + width])
        segmentation = [(np.reshape(outline, (-1, 2)) + (left, top)).ravel().tolist() for outline in outlines]
    return {
        'label': known.class_index,
        'bbox': tight_box(mask),
        'area': float(mask.sum()),
        'crowd': known.is_crowd,
        'truncated': known.is_truncated,
        'outline': segmentation,
    }


def write_voc_masks(scene: Scene, root: Path, stem: str) -> None:
    """Write class and instance masks; borders (2 pixels) and crowds are void."""
    from falconet.datasets.formats.masks import write_mask

    square = np.ones((3, 3), np.uint8)
    is_border = cv2.dilate(scene.owner, square) != cv2.erode(scene.owner, square)
    classes = [VOID if known.is_crowd else known.class_index + 1 for known in scene.objects]
    instances = [VOID if c == VOID else k for k, c in enumerate(classes, start=1)]
    for folder, values in (('SegmentationClass', classes), ('SegmentationObject', instances)):
        indices = np.array([0, *values], np.uint8)[scene.owner]
        indices[is_border] = VOID
        write_mask(root / folder / f'{stem}.png', indices)


def write_jpeg(image: np.ndarray, path: Path) -> None:
    """Write an (H, W, 3) uint8 RGB picture."""
    from PIL import Image

    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


def write_crops(
    rng: np.random.Generator, scene: Scene, annotations: list[dict[str, Any]], root: Path, stem: str
) -> None:
    """Write a square crop with some context around every object that shows enough of itself."""
    height, width = scene.owner.shape
    for number, (known, annotation) in enumerate(zip(scene.objects, annotations, strict=True), 1):
        left, top, wide, high = annotation['bbox']
        side = min(round(max(wide, high) * rng.uniform(1.1, 1.3)), height, width)
        jitter = rng.uniform(-0.05, 0.05, 2) * side
        hidden = annotation['area'] < MIN_CROP_SHARE * known.full_pixels
        if known.is_crowd or hidden or max(wide, high) < 28:
            continue
        x = int(np.clip(left + wide / 2 - side / 2 + jitter[0], 0, width - side))
        y = int(np.clip(top + high / 2 - side / 2 + jitter[1], 0, height - side))
        shrinks = side > CROP_SIDE
        crop = cv2.resize(
            scene.image[y : y + side, x : x + side],
            (CROP_SIDE, CROP_SIDE),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
        )
        write_jpeg(crop, root / CLASSES[known.class_index] / f'{stem}_{number}.jpg')


def write_scene(task: tuple[str, int], *, out: Path, seed: int) -> dict[str, Any]:
    """Make scene ``task`` = (split, index) and write its pictures; return what is in it."""
    split, index = task
    split_id = list(SPLITS).index(split)
    rng = np.random.default_rng([seed, split_id, index])
    is_negative = index % 25 == 2  # fixed shares: even a very small data set holds each kind
    scene = make_scene(rng, is_negative=is_negative, has_crowd=index % 16 == 1 and not is_negative)
    # Odd, even and high: splits never share an id. Neither contiguous nor regular, like real ids.
    image_id = 1 + 2 * (7 * index + int(rng.integers(7))) + (TEST_IDS if split == 'test' else split_id)
    annotations = [describe_object(scene, number + 1) for number in range(len(scene.objects))]

    name, voc = VOC_NAME.format(image_id), out / 'VOCdevkit' / 'VOC2012'
    stem = Path(name).stem
    photograph = out / 'coco' / SPLITS[split] / COCO_NAME.format(image_id)
    write_jpeg(scene.image, photograph)
    try:
        os.link(photograph, voc / 'JPEGImages' / name)
    except OSError:  # the file system has no hard links
        shutil.copyfile(photograph, voc / 'JPEGImages' / name)
    write_voc_masks(scene, voc, stem)
    write_crops(rng, scene, annotations, out / 'classification' / split, stem)
    return {'id': image_id, 'size': scene.owner.shape, 'objects': annotations}


def gather(scenes: list[dict[str, Any]], folder: Path, name: str) -> Annotations:
    """Return the objects of scenes whose pictures lie in ``folder``, named by ``name`` from their id."""
    from falconet.datasets.annotations import ImageRecord, Problems, build_annotations

    objects = [each for scene in scenes for each in scene['objects']]

    def column(key: str, dtype: type = np.float64) -> np.ndarray:
        return np.array([each[key] for each in objects], dtype=dtype)

    xywh = column('bbox').reshape(-1, 4)
    return build_annotations(
        [ImageRecord(each['id'], str(folder / name.format(each['id'])), each['size']) for each in scenes],
        owners=np.repeat(np.arange(len(scenes)), [len(scene['objects']) for scene in scenes]),
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=column('label', np.int32),
        crowd=column('crowd', bool),
        areas=column('area'),
        object_ids=1001 + 3 * np.arange(len(objects)),
        class_names=CLASSES,
        category_ids=CATEGORY_IDS,
        problems=Problems(),
    )


def write_lists(out: Path, records: dict[str, list[dict[str, Any]]]) -> None:
    """Write what the pictures' objects are, as COCO and VOC, and VOC's image lists and class names."""
    from falconet.datasets.classes import write_classes
    from falconet.datasets.formats.coco import write_coco
    from falconet.datasets.formats.voc import write_split, write_voc

    voc = out / 'VOCdevkit' / 'VOC2012'
    for split, scenes in records.items():
        objects = [each for scene in scenes for each in scene['objects']]
        folder = out / 'coco' / SPLITS[split]
        write_coco(
            out / 'coco' / 'annotations' / f'instances_{SPLITS[split]}.json',
            gather(scenes, folder, COCO_NAME),
            folder,
            outlines=[each['outline'] for each in objects],
            description=f'generated by make_demo_data, version {VERSION}',
            licence='Apache-2.0',
            supercategory='toy',
        )
        write_voc(
            voc / 'Annotations',
            gather(scenes, voc / 'JPEGImages', VOC_NAME),
            source={'database': 'make_demo_data', 'annotation': 'generated', 'image': 'generated'},
            truncated=[each['truncated'] for each in objects],
            segmented=True,
        )

    lists = {
        split: [Path(VOC_NAME.format(scene['id'])).stem for scene in scenes]
        for split, scenes in records.items()
    }
    lists['trainval'] = sorted(lists['train'] + lists['val'])
    for name, stems in lists.items():
        for folder in ('Segmentation', 'Main'):
            write_split(voc / 'ImageSets' / folder, name, stems)
    write_classes(voc / 'classes.txt', ('background', *CLASSES))


# --- Running --------------------------------------------------------------------------------------


def use_one_thread() -> None:
    """Keep OpenCV from starting threads of its own: the scenes are spread over processes."""
    cv2.setNumThreads(1)


def write_scenes(
    tasks: list[tuple[str, int]], *, out: Path, seed: int, workers: int
) -> Generator[dict[str, Any], None, None]:
    """Write all scenes and yield their records in the order of ``tasks``."""
    work = partial(write_scene, out=out, seed=seed)
    if workers < 2 or len(tasks) < 8:  # starting processes would take longer than the work
        use_one_thread()
        yield from map(work, tasks)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context('spawn')  # forking a process that holds threads is not safe
    with ProcessPoolExecutor(workers, context, initializer=use_one_thread) as pool:
        yield from pool.map(work, tasks, chunksize=4)


def show_progress(records: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """Pass records on; a bar on a terminal, otherwise a line at each quarter."""
    if sys.stdout.isatty():
        from rich.progress import track

        yield from track(records, 'drawing scenes', total)
        return
    for number, record in enumerate(records, start=1):
        if number * 4 // total > (number - 1) * 4 // total:
            print(f'drew {number} of {total} scenes', flush=True)
        yield record


def read_marker(out: Path) -> dict[str, Any] | None:
    """Return this tool's marker in ``out``, or None if there is none."""
    try:
        marker = json.loads((out / MARKER).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(marker, dict) and marker.get('generator') == 'make_demo_data'
    return marker if is_ours else None


def write_marker(out: Path, marker: dict[str, Any]) -> None:
    """Write the marker in one step, so that an interruption never leaves half of it."""
    fresh = out / f'{MARKER}.new'
    fresh.write_text(json.dumps(marker, indent=2) + '\n', encoding='utf-8')
    fresh.replace(out / MARKER)


def count_files(out: Path) -> int:
    """Count the data files below ``out``."""
    return sum(path.is_file() for folder in FOLDERS for path in (out / folder).rglob('*'))


def make_demo_data(
    out: Path,
    *,
    seed: int = 0,
    train: int = 500,
    val: int = 100,
    test: int = 100,
    force: bool = False,
    workers: int = 0,
) -> bool:
    """Write the data set into ``out``; return False if it is there already.

    ``train``, ``val`` and ``test`` count scenes; ``workers`` 0 means one process per core. Raises
    FileExistsError, touching nothing, if ``out`` holds files that this tool did not write.
    """
    counts = {'train': train, 'val': val, 'test': test}
    settings = {'seed': seed, **counts}
    wanted = {'generator': 'make_demo_data', 'version': VERSION, 'settings': settings}
    marker = read_marker(out)
    if marker is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f'{out} exists and was not made by this tool: expected a new or empty folder, or one '
            f"with this tool's {MARKER}. Nothing was changed. Give another folder as OUT."
        )
    complete = {**wanted, 'state': 'complete', 'files': count_files(out)}
    if marker == complete and not force:
        return False

    out.mkdir(parents=True, exist_ok=True)
    write_marker(out, {**wanted, 'state': 'in progress'})
    for folder in FOLDERS:
        if (out / folder).exists():
            shutil.rmtree(out / folder)
    voc = out / 'VOCdevkit' / 'VOC2012'
    for name in ('JPEGImages', 'SegmentationClass', 'SegmentationObject', 'Annotations'):
        (voc / name).mkdir(parents=True)
    for name in ('Segmentation', 'Main'):
        (voc / 'ImageSets' / name).mkdir(parents=True)
    for name in (*SPLITS.values(), 'annotations'):
        (out / 'coco' / name).mkdir(parents=True)
    for split in SPLITS:
        for name in CLASSES:
            (out / 'classification' / split / name).mkdir(parents=True)

    tasks = [(split, index) for split, count in counts.items() for index in range(count)]
    scenes = write_scenes(tasks, out=out, seed=seed, workers=workers or os.cpu_count() or 1)
    with contextlib.closing(scenes):
        records = list(show_progress(scenes, len(tasks)))
    drawn = iter(records)
    write_lists(out, {split: list(islice(drawn, count)) for split, count in counts.items()})
    write_marker(out, {**complete, 'files': count_files(out)})
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def scene_count(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= MOST_SCENES:
            raise argparse.ArgumentTypeError(
                f'got {text!r}, expected a number of scenes from 1 to {MOST_SCENES}'
            )
        return int(text)

    parser = argparse.ArgumentParser(
        description='Write a small generated data set as image folder, COCO and Pascal VOC.'
    )
    parser.add_argument('out', nargs='?', type=Path, default=Path('data/demo'), metavar='OUT',
                        help='folder to write (default: data/demo)')  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='another seed, other scenes (default 0)')
    parser.add_argument(
        '--train', type=scene_count, default=500, metavar='N', help='training scenes (default 500)'
    )
    parser.add_argument(
        '--val', type=scene_count, default=100, metavar='N', help='validation scenes (default 100)'
    )
    parser.add_argument(
        '--test', type=scene_count, default=100, metavar='N', help='test scenes (default 100)'
    )
    parser.add_argument(
        '--workers', type=int, default=0, metavar='N', help='processes (default: one per core)'
    )
    parser.add_argument('--force', action='store_true', help='make it again even if it is complete')
    options = parser.parse_args(arguments)
    try:
        made = make_demo_data(**vars(options))
    except FileExistsError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if made:
        crops = len(list((options.out / 'classification').rglob('*.jpg')))
        print(
            f'{options.out}: wrote {options.train} + {options.val} + {options.test} scenes and {crops} crops'
        )
    else:
        print(f'{options.out}: already complete, nothing to do (--force makes it again)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
