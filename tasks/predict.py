"""From pictures on disk to annotated pictures, predictions.json and a contact sheet."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tasks.data.folders import find_images
from tasks.data.images import ImageError, read_photograph
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.outputs import MARK, check_writable, save_picture
from tasks.report.drawing import contact_sheet

SHEET_LIMIT = 48
# Bytes of a file name without its ending; most systems allow 255 in all.
NAME_BYTES = 200


class Predicted(NamedTuple):
    """How many pictures were predicted, and the reason for each that was not, by path."""

    pictures: int
    skipped: dict[str, str]


def predict_files(
    model: VisionModel,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    score_threshold: float | None = None,
    overwrite: bool = False,
) -> Predicted:
    """Predict every picture; write annotated pictures, `predictions.json` and `contact_sheet.png`.

    What else is written beside an annotated picture is the result's to say (`extra_files`). Unreadable files
    are named and left out. `predictions.jsonl` gets a line as soon as a picture is done; at the end, or when
    interrupted, it becomes `predictions.json`.

    Args:
        model: what predicts.
        inputs: image files and folders.
        out: folder to write to. Results of an earlier run there are replaced.
        score_threshold: leave out detections that score less; for a task whose results know `above`. By
            default everything is written to predictions.json, and what scores 0.3 is drawn.
        overwrite: also replace files that Kestrel did not make; never one of `inputs`.

    Raises:
        UserError: nothing could be read, `out` cannot be written, a file there is the user's, or the task
            has no score threshold.
    """
    if score_threshold is not None and not hasattr(model.task.result, 'above'):
        raise UserError(f'--score-threshold is for detection; this checkpoint is for {model.task.name}')
    from rich.progress import track

    paths = find_images(inputs)
    names = output_names(paths)
    extras = extra_names(names, getattr(model.task.result, 'extra_files', {}))
    lines, listing, sheet_file = (
        out / name for name in ('predictions.jsonl', 'predictions.json', 'contact_sheet.png')
    )
    beside = [out / name for each in extras for name in each.values()]
    written = [lines, listing, sheet_file, *(out / name for name in names), *beside]
    taken = {path.resolve() for path in written}
    if clashes := [path for path in paths if Path(path).resolve() in taken]:
        raise UserError(f'{clashes[0]} would be overwritten by a result: choose another --out than {out}')
    check_writable(written, overwrite=overwrite, hint='Choose another --out')
    skipped: dict[str, str] = {}
    sheet: list[tuple[Image.Image, str]] = []
    # The sheet shows an even selection when there are too many for one page.
    shown = {round(i * (len(paths) - 1) / max(1, SHEET_LIMIT - 1)) for i in range(SHEET_LIMIT)}
    count, complete = 0, False
    try:
        out.mkdir(parents=True, exist_ok=True)
        with lines.open('w', encoding='utf-8') as file:
            file.write(json.dumps({'made_by': MARK}) + '\n')
            for index, path in enumerate(track(paths, 'predicting', transient=True)):
                try:
                    photograph = read_photograph(path)
                    result = replace(next(model.predict_each([photograph.image])), path=path)
                except (ImageError, MemoryError) as error:
                    skipped[path] = getattr(error, 'reason', 'does not fit into memory')
                    print(f'skipped {path}: {skipped[path]}')
                    continue
                if score_threshold is not None:
                    result = result.above(score_threshold)
                target = out / names[index]
                target.parent.mkdir(parents=True, exist_ok=True)
                drawing = {} if score_threshold is None else {'score_threshold': score_threshold}
                save_picture(result.draw(**drawing), target)
                files = {key: str(out / name) for key, name in extras[index].items()}
                for key, name in files.items():
                    result.save_extra(key, Path(name))
                height, width = photograph.image.shape[:2]
                entry = {**result.summary(), 'width': width, 'height': height, 'turned': photograph.turned}
                file.write(json.dumps({**entry, 'picture': str(target), **files}) + '\n')
                file.flush()
                count += 1
                if index in shown or len(paths) <= SHEET_LIMIT:
                    has_preview = hasattr(result, 'preview')
                    picture = result.preview() if has_preview else Image.fromarray(result.image)
                    picture.thumbnail((400, 400))
                    sheet.append((picture, result.title()))
        complete = True
        if sheet:
            save_picture(contact_sheet(sheet), sheet_file)
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error}. What was predicted before is in {lines}') from error
    finally:
        if complete or lines.exists():
            _gather(lines, listing, {'complete': complete, 'class_names': model.classes, 'skipped': skipped})
    if not count:
        raise UserError(f'none of the {len(paths)} files is a readable picture')
    return Predicted(count, skipped)


def _gather(lines: Path, listing: Path, facts: Mapping[str, Any]) -> None:
    """Turn the lines written so far into one JSON object, without holding them in memory."""
    temporary = listing.with_name('.predictions.json.tmp')
    with lines.open(encoding='utf-8') as source, temporary.open('w', encoding='utf-8') as file:
        next(source, None)
        opening = json.dumps({'made_by': MARK, **facts}, indent=1).removesuffix('\n}')
        file.write(opening + ',\n "predictions": [')
        for number, line in enumerate(source):
            file.write((',' if number else '') + '\n  ' + line.rstrip('\n'))
        file.write('\n ]\n}\n')
    temporary.replace(listing)
    lines.unlink()


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
