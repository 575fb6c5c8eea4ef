"""From pictures on disk to annotated pictures, predictions.json and a contact sheet."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.data.folders import find_images
from tasks.data.images import ImageError
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.report.drawing import contact_sheet

SHEET_LIMIT = 48


def predict_files(
    model: VisionModel, inputs: Sequence[str | Path], out: Path, *, score_threshold: float | None = None
) -> dict[str, Any]:
    """Predict every picture; write annotated pictures, `predictions.json` and `contact_sheet.png`.

    What else is written beside an annotated picture is the result's to say (`extra_files`).
    Unreadable files are named and left out.

    Args:
        model: in evaluation mode.
        inputs: image files and folders.
        out: folder to write to.
        score_threshold: leave out detections that score less; for a task whose results know `above`. By
            default everything is written to predictions.json, and what scores 0.3 is drawn.

    Returns:
        What predictions.json holds: `predictions`, `skipped` (reason by path), `class_names`.

    Raises:
        UserError: nothing could be read, `out` cannot be written, or the task has no score threshold.
    """
    if score_threshold is not None and not hasattr(model.task.result, 'above'):
        raise UserError(f'--score-threshold is for detection; this checkpoint is for {model.task.name}')
    drawing = {} if score_threshold is None else {'score_threshold': score_threshold}
    from rich.progress import track

    paths = find_images(inputs)
    names = output_names(paths)
    endings: dict[str, str] = getattr(model.task.result, 'extra_files', {})
    extras = extra_names(names, endings)
    written = {
        (out / name).resolve()
        for name in [*names, *(name for each in extras for name in each.values())]
        + [Path('contact_sheet.png'), Path('predictions.json')]
    }
    if clashes := [path for path in paths if Path(path).resolve() in written]:
        raise UserError(f'{clashes[0]} would be overwritten by a result: choose another --out than {out}')
    predictions: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    sheet: list[tuple[Image.Image, str]] = []
    # The sheet shows an even selection when there are too many for one page.
    shown = {round(i * (len(paths) - 1) / max(1, SHEET_LIMIT - 1)) for i in range(SHEET_LIMIT)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for index, path in enumerate(track(paths, 'predicting', transient=True)):
            try:
                result = next(model.predict_each([path]))
            except ImageError as error:
                skipped[path] = error.reason
                print(f'skipped {error}')
                continue
            if score_threshold is not None:
                result = result.above(score_threshold)
            target = out / names[index]
            target.parent.mkdir(parents=True, exist_ok=True)
            result.draw(**drawing).save(target)
            beside = {key: str(out / name) for key, name in extras[index].items()}
            for key, path_beside in beside.items():
                result.save_extra(key, Path(path_beside))
            predictions.append({**result.summary(), 'picture': str(target), **beside})
            if index in shown or len(paths) <= SHEET_LIMIT:
                has_preview = hasattr(result, 'preview')
                picture = result.preview() if has_preview else Image.fromarray(result.image)
                picture.thumbnail((400, 400))
                sheet.append((picture, result.title()))
        report = {
            'class_names': list(model.classes),
            'predictions': predictions,
            'skipped': skipped,
        }
        (out / 'predictions.json').write_text(json.dumps(report, indent=1), encoding='utf-8')
        if sheet:
            contact_sheet(sheet).save(out / 'contact_sheet.png')
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error}') from error
    if not predictions:
        raise UserError(f'none of the {len(paths)} files is a readable picture')
    return report


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
        name = relative.with_suffix(suffix)
        if name in taken:  # a.png beside a.bmp
            name = relative.with_name(f'{relative.stem}_{relative.suffix[1:].lower()}{suffix}')
        number = 2
        while name in taken:
            name, number = relative.with_name(f'{relative.stem}_{number}{suffix}'), number + 1
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
