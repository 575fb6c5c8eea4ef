"""A repaired copy of labelled pictures: what can be put right without looking at a picture, and no more."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from falconet.core.errors import UserError
from falconet.datasets.annotations import Annotations
from falconet.datasets.images.images import ImageError
from falconet.datasets.images.near_duplicates import exact_pairs
from falconet.datasets.layouts import writers
from falconet.datasets.layouts.remap_classes import only
from falconet.doctor.catalogue import kind_of_problem
from falconet.doctor.labels import doubles
from falconet.doctor.pictures import KINDS, Pictures

MOST_MISSING = 0.1  # share of a picture's rows that may be missing at its end
CUT = ('truncated', 'damaged')  # how reasons begin where a picture's end is missing
SCORED = {'test': 'test', 'val': 'validation'}  # parts whose pictures are not to be learnt, and their names
QUALITY = 95  # of JPEG files that are written again


class Repair:
    """Decides what becomes of every picture, and writes the copy.

    Args:
        datasets: of every split, forgiving; 'train' and 'val' among them.
        seen: their pictures.

    Attributes:
        steps: what was done, in words.
    """

    def __init__(self, datasets: Mapping[str, Any], seen: Mapping[str, Pictures]) -> None:
        self._datasets, self._seen = datasets, seen
        self._counts: Counter[str] = Counter()
        self._read: dict[str, tuple[Any, int]] = {}  # path -> who reads it as its annotations mean it
        self._cut: dict[str, np.ndarray] = {}

    @property
    def steps(self) -> list[str]:
        return [f'{count} {what}' for what, count in self._counts.items()]

    def write(self, out: Path) -> str:
        """Write everything into an empty folder; return the format.

        Raises:
            UserError: nothing is left, or the data are of a kind that is not written here.
        """
        keep = {part: self._keep(part) for part in self._datasets}
        if not all(each.any() for each in keep.values()):
            raise UserError('nothing is left of a part once what is broken is taken out')
        first = next(iter(self._datasets.values()))
        if hasattr(first, 'annotations'):
            kind = first.format if first.format in writers.WITH_BOXES else 'coco'
            parts = {part: self._objects(each, keep[part]) for part, each in self._datasets.items()}
            for each in parts.values():
                for line in writers.not_held(each, kind):
                    self._counts[f'times not held by {kind}: {line}'] += 1
            writers.write_boxes(parts, out, kind, place=self._place)
            return kind
        if hasattr(first, 'read_mask'):
            pairs = {
                part: [(dataset.paths[i], dataset.read_mask(i)) for i in np.flatnonzero(keep[part]).tolist()]
                for part, dataset in self._datasets.items()
            }
            writers.write_masks(pairs, first.classes, out, place=self._place)
            return 'masks'
        labelled = {
            part: [
                (dataset.paths[i], dataset.classes[dataset.labels[i]])
                for i in np.flatnonzero(keep[part]).tolist()
            ]
            for part, dataset in self._datasets.items()
        }
        writers.write_class_folders(labelled, out, place=self._place)
        return 'folders'

    def _keep(self, part: str) -> np.ndarray:
        """Return which pictures of a part stay, bool (N,); what is done to them is noted."""
        dataset, seen = self._datasets[part], self._seen[part]
        keep = np.ones(len(dataset), dtype=bool)
        for index, reason in seen.broken.items():
            image = _rest_of(dataset.paths[index], dataset.size(index)) if reason.startswith(CUT) else None
            if image is None:
                self._counts[f'pictures of {part} left out, not readable'] += 1
                keep[index] = False
            else:
                self._counts['pictures saved again without the few rows that are missing'] += 1
                self._cut[dataset.paths[index]] = image
        scored = {path: name for other, name in SCORED.items() for path in self._shared(part, other)}
        empty = set(getattr(getattr(dataset, 'counts', None), 'empty', ()))
        for index, path in enumerate(dataset.paths):
            if path in scored:
                self._counts[f'training pictures left out, {scored[path]} has them'] += 1
                keep[index] = False
            elif empty and keep[index] and (dataset.read_mask(index) == 255).all():
                self._counts[f'pictures of {part} left out, their masks label nothing'] += 1
                keep[index] = False
            elif (head := seen.seen[index].head if index in seen.seen else None) is not None:
                shown = head.orientation > 1 and dataset.exif != 'ignore'
                if shown or head.kind in KINDS:
                    self._note(dataset, index, keep, 'turned upright' if shown else f'from {head.kind}')
        return keep

    def _shared(self, part: str, other: str) -> set[str]:
        """Return the training pictures that another part has too: those files, and all copies of them."""
        if part != 'train' or other not in self._seen:
            return set()
        train, scored = (list(self._seen[each].seen.values()) for each in (part, other))
        digests = {each.digest for each, _ in exact_pairs(train, scored)}
        copies = {each.path for each in train if each.digest in digests}
        return copies | (set(self._datasets[part].paths) & set(self._datasets[other].paths))

    def _note(self, dataset: Any, index: int, keep: np.ndarray, how: str) -> None:
        try:
            dataset.read(index)
        except ImageError:  # of another size than its annotations
            self._counts['pictures left out, of another size than their annotations'] += 1
            keep[index] = False
            return
        self._read[dataset.paths[index]] = (dataset, index)
        self._counts[f'pictures saved again as RGB, {how}'] += 1

    def _objects(self, dataset: Any, keep: np.ndarray) -> Annotations:
        """Return the objects that stay: cut off at the edge, each once."""
        for text, (count, _) in dataset.problems.found.items():
            if kind_of_problem(text).startswith('boxes_'):
                self._counts[text] += count
        found: Annotations = dataset.annotations
        moved = (found.boxes != found.original_boxes.astype(np.float32)).any(axis=1)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        single = np.ones(len(found.boxes), dtype=bool)
        single[doubles(found)] = False
        self._counts['boxes left out, there twice'] += int((~single).sum())
        self._counts += Counter()  # without those of zero
        whole = np.where(moved[:, None], found.boxes.astype(np.float64), found.original_boxes)
        found = replace(found, original_boxes=whole, areas=np.where(moved, sides.prod(axis=1), found.areas))
        return only(found, single).select(keep)

    def _place(self, path: str, target: Path) -> None:
        """Copy a picture, or write it again as its annotations mean it."""
        image = self._cut.get(path)
        if image is None and path in self._read:
            dataset, index = self._read[path]
            image = dataset.read(index).image
        if image is None:
            writers.copied(path, target)
        else:
            picture = Image.fromarray(image)
            if _is_jpeg(target):
                picture.save(target, quality=QUALITY)
            else:
                picture.save(target)


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in ('.jpg', '.jpeg', '.jpe', '.jfif')


def _rest_of(path: str, size: tuple[int, int] | None) -> np.ndarray | None:
    """Return a picture whose end is missing, RGB uint8; None where too much is, or it has another size."""
    kept, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        with Image.open(path) as picture:
            image = np.array(ImageOps.exif_transpose(picture).convert('RGB'))
            stored = np.array(picture.convert('RGB'))
    except Exception:  # whatever is wrong with it: there is nothing to keep
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = kept
    plain = (stored == stored[-1, -1]).all(axis=(1, 2))[::-1]
    missing = len(plain) if plain.all() else int(plain.argmin())
    fits = size is None or image.shape[:2] == tuple(size)
    return image if missing <= MOST_MISSING * len(plain) and fits else None
