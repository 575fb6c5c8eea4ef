"""Classes by how often they occur, and boxes at the size the network sees."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

import numpy as np

from falconet.datasets.annotations import Annotations, Problems
from falconet.doctor.catalogue import kind_of_problem
from falconet.doctor.finding import SHOWN, Finding, finding

FEW = 10  # pictures or objects of a class to learn from
TINY = 8  # pixels of a box's shorter side at the network's input
UNMATCHED = 0.1  # share of objects without a default box that is worth a word
SMALL_AREA = 0.0005  # share of the labelled pixels
ALIKE, LETTERS = 0.85, 5  # how alike two names are to be one misspelt, and how long at least


def classes(
    train: Mapping[str, int], val: Mapping[str, int], *, unit: str, scored: str = 'validation'
) -> list[Finding]:
    """Return classes that are absent, rare, or another's name misspelt.

    Args:
        train, val: how often each class occurs there; a class that a part does not know is missing.
        unit: what was counted.
        scored: what `val` is, in words.
    """
    names = list(dict.fromkeys((*train, *val)))
    counted = [(name, train.get(name, 0), val.get(name, 0)) for name in names]
    partial = [name for name, here, there in counted if not (here and there)]
    alike = {
        frozenset((name, other)): f'{name!r} ({train.get(name, 0)} {unit} in training, {val.get(name, 0)} in '
        f'{scored}) and {other!r} ({train.get(other, 0)}, {val.get(other, 0)})'
        for name in partial
        for other in names
        if name != other and _alike(name, other)
    }
    return [
        *finding('class_misspelt', alike.values()),
        *finding(
            'class_absent_in_training',
            (f'{name}: 0 {unit}, {there} in {scored}' for name, here, there in counted if not here),
        ),
        *finding(
            'class_rare',
            (f'{name}: {here}' for name, here, _ in counted if 0 < here < FEW),
            few=FEW,
            unit=unit,
        ),
        *finding(
            'class_absent_in_validation',
            (f'{name}: 0 {unit}, {here} in training' for name, here, there in counted if here and not there),
        ),
    ]


def _alike(first: str, second: str) -> bool:
    """Whether one name may be the other misspelt; 'class 1' and 'class 2' are not."""
    bare = [re.sub(r'[\W_]+', '', each.casefold()) for each in (first, second)]
    if bare[0] == bare[1]:
        return True
    if min(map(len, bare)) < LETTERS or re.sub(r'\d', '', bare[0]) == re.sub(r'\d', '', bare[1]):
        return False
    return difflib.SequenceMatcher(None, bare[0], bare[1]).ratio() >= ALIKE


def areas(names: Sequence[str], pixels: np.ndarray) -> list[Finding]:
    """Return classes that take next to none of the labelled pixels of training, int64 (C,)."""
    shares = pixels / max(1, int(pixels.sum()))
    which = np.flatnonzero((shares > 0) & (shares < SMALL_AREA)).tolist()
    places = (f'{names[index]}: {100 * shares[index]:.2g} %' for index in which)
    return finding('class_small_area', places, share=100 * SMALL_AREA)


def problems(found: Problems, *, part: str) -> list[Finding]:
    """Return what reading the annotations has dropped or changed."""
    return [
        each
        for text, (count, places) in found.found.items()
        for each in finding(kind_of_problem(text), places, count=count, part=part, what=text)
    ]


def boxes(
    annotations: Annotations,
    *,
    part: str,
    input_size: tuple[int, int],
    defaults: np.ndarray | None,
    threshold: float,
    others: Callable[[], Iterable[tuple[str, np.ndarray]]] = tuple,
) -> list[Finding]:
    """Return boxes that are tiny, double, or like no default box.

    Args:
        annotations: of the part.
        part: its name.
        input_size: (height, width) of the network's input.
        defaults: the head's default boxes, float32 (N, 4) unit cxcywh; None where it has none.
        threshold: least IoU of a match.
        others: default boxes of other settings by name, tried where many objects are like none of these.
    """
    owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    sides = annotations.sizes[owners][:, [1, 0, 1, 0]].astype(np.float64)
    unit = annotations.boxes / sides
    shorter = ((unit[:, 2:] - unit[:, :2]) * input_size[::-1]).min(axis=1, initial=np.inf)
    double = doubles(annotations)

    def places(which: np.ndarray) -> list[str]:
        # Of different pictures first: one with a crowd in it would take all examples.
        first = np.unique(owners[which], return_index=True)[1]
        chosen = which[first] if len(first) >= SHOWN else which
        return [
            f'{annotations.paths[int(owners[k])]}: {annotations.class_names[annotations.labels[k]]} '
            f'{", ".join(f"{value:g}" for value in annotations.boxes[k])}'
            for k in chosen[:SHOWN].tolist()
        ]

    tiny = np.flatnonzero(shorter < TINY)
    size = f'{input_size[1]}x{input_size[0]}'
    found = [
        *finding('boxes_tiny', places(tiny), count=len(tiny), part=part, least=TINY, size=size),
        *finding('boxes_double', places(double), count=len(double), part=part),
    ]
    if defaults is None or not len(unit):
        return found
    loose = np.flatnonzero(best_overlaps(unit, defaults) < threshold)
    if len(loose) > UNMATCHED * len(unit):
        share = len(loose) / len(unit)
        shares = {name: (best_overlaps(unit, each) < threshold).mean() for name, each in others()}
        tried = '; '.join(
            f'{name}: {left:.0%}' for name, left in sorted(shares.items(), key=itemgetter(1)) if left < share
        )
        found += finding(
            'boxes_like_no_default',
            places(loose),
            count=len(loose),
            part=part,
            share=share,
            threshold=threshold,
            fix=f'With these settings that share is less: {tried}' if tried else None,
        )
    return found


def doubles(annotations: Annotations) -> np.ndarray:
    """Return the numbers of the objects that are another one again: of its class, at its place; int64."""
    owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    keys = np.concatenate([owners[:, None], annotations.labels[:, None], annotations.boxes], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(keys)), first)


def best_overlaps(unit: np.ndarray, defaults: np.ndarray) -> np.ndarray:
    """Return the largest IoU of every box with a default box, float64 (K,).

    Default boxes of one shape stand on a grid. Of these a box overlaps the one most whose centre is nearest
    to its own, across and down: one comparison a shape instead of one a default box.

    Args:
        unit: xyxy (K, 4), in fractions of the picture.
        defaults: cxcywh (N, 4), likewise; all that have one width and height form a grid.
    """
    left, top, right, bottom = unit.astype(np.float64).T
    across, down = (left + right) / 2, (top + bottom) / 2
    best = np.zeros(len(unit))
    shapes, group = np.unique(defaults[:, 2:], axis=0, return_inverse=True)
    for index, (width, height) in enumerate(shapes.astype(np.float64).tolist()):
        columns, rows = (np.unique(defaults[group.ravel() == index, side]) for side in (0, 1))
        x, y = _nearest(columns.astype(np.float64), across), _nearest(rows.astype(np.float64), down)
        shared_x = np.minimum(right, x + width / 2) - np.maximum(left, x - width / 2)
        shared_y = np.minimum(bottom, y + height / 2) - np.maximum(top, y - height / 2)
        shared = shared_x.clip(0) * shared_y.clip(0)
        best = np.maximum(best, shared / ((right - left) * (bottom - top) + width * height - shared))
    return best


def _nearest(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the place, of sorted ones, that is nearest to each value."""
    middles = (places[1:] + places[:-1]) / 2
    return places[np.searchsorted(middles, values)]
