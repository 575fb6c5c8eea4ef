"""Names of the files that predicting writes, distinct and short enough."""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Bytes of a file name without its ending; most systems allow 255 in all.
NAME_BYTES = 200


def output_names(paths: Sequence[str]) -> list[Path]:
    """Return a relative .png or .jpg name for each input, distinct, keeping folders that tell them apart."""
    parents = [os.path.dirname(os.path.abspath(path)) for path in paths]  # without '..'
    try:
        base = os.path.commonpath(parents)
    except ValueError:  # on two drives
        base = None
    names: list[Path] = []
    taken: set[Path] = set()
    for path in paths:
        relative = Path(os.path.abspath(path)).relative_to(base) if base else Path(Path(path).name)
        suffix = '.png' if relative.suffix.lower() != '.jpg' else '.jpg'
        stem = short(relative.stem)
        candidates = [f'{stem}{suffix}', f'{stem}_{relative.suffix[1:].lower()}{suffix}']  # a.png, a.bmp
        name = next(each for each in _numbered(relative, candidates, stem, suffix) if each not in taken)
        taken.add(name)
        names.append(name)
    return names


def _numbered(relative: Path, candidates: Sequence[str], stem: str, suffix: str) -> Iterator[Path]:
    yield from (relative.with_name(each) for each in candidates)
    number = 2
    while True:
        yield relative.with_name(f'{stem}_{number}{suffix}')
        number += 1


def short(stem: str) -> str:
    """Return a file name's stem, cut where it leaves no room for an ending, with a hash of what was cut."""
    encoded = os.fsencode(stem)
    if len(encoded) <= NAME_BYTES:
        return stem
    return f'{os.fsdecode(encoded[: NAME_BYTES - 9])}_{hashlib.sha256(encoded).hexdigest()[:8]}'


def video_names(sources: Sequence[str]) -> list[str]:
    """Return the name, without an ending, of what is made of each video or camera ('camera:0'), distinct."""
    taken = {'predictions'}  # the list of what was found in pictures
    names: list[str] = []
    for source in sources:
        camera = re.fullmatch(r'camera:(\d+)', source)
        stem = f'camera{camera[1]}' if camera else short(Path(source).stem)
        numbered = (f'{stem}_{number}' for number in itertools.count(2))
        name = next(each for each in itertools.chain([stem], numbered) if each not in taken)
        taken.add(name)
        names.append(name)
    return names


def extra_names(names: Sequence[Path], endings: Mapping[str, str]) -> list[dict[str, Path]]:
    """Return the further files of each picture: `endings` put in place of the name's own, distinct.

    Args:
        names: what `output_names` returned.
        endings: key -> ending, `{'mask': '_mask.png'}`.
    """
    taken = set(names)
    extras: list[dict[str, Path]] = []
    for name in names:
        extra = {}
        for key, ending in endings.items():
            candidate = name.with_name(f'{name.stem}{ending}')
            number = 2
            while candidate in taken:  # beside a.jpg, its own a_mask.jpg or a.png
                candidate = name.with_name(f'{name.stem}_{number}{ending}')
                number += 1
            taken.add(candidate)
            extra[key] = candidate
        extras.append(extra)
    return extras
