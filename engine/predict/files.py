"""From pictures on disk to annotated pictures, a list of what was found and a contact sheet."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from falconet.core.errors import UserError
from falconet.core.names import MARK
from falconet.core.owned_files import check_writable, save_picture
from falconet.core.prefetch import ahead
from falconet.datasets.files import find_images
from falconet.datasets.images.images import ImageError, Photograph, read_photograph
from falconet.engine.predict.listing import check_format, listing_name, write_listing
from falconet.engine.predict.names import extra_names, output_names
from falconet.engine.predict.progress import progress
from falconet.engine.predict.stream import answers, check_options
from falconet.report.drawing import contact_sheet
from falconet.tasks.model import VisionModel

SHEET_LIMIT = 48
BATCH = 8  # pictures in a batch on a GPU


class Predicted(NamedTuple):
    """How many pictures were predicted, the reason for each that was not by path, and the list's file."""

    pictures: int
    skipped: dict[str, str]
    listing: Path


def predict_files(
    model: VisionModel,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    score_threshold: float | None = None,
    tiles: int | None = None,
    form: str = 'json',
    overwrite: bool = False,
) -> Predicted:
    """Predict every picture; write annotated pictures, a list of what was found and `contact_sheet.png`.

    Threads read the next pictures while others are computed, drawn and written (`engine.predict.stream`).
    What else is written beside an annotated picture is the result's to say (`extra_files`). Unreadable
    files are named and left out. `.predictions.lines` gets a line as soon as a picture is done; at the end,
    or when interrupted, it becomes the list.

    Args:
        model: what predicts.
        inputs: image files and folders.
        out: folder to write to. Results of an earlier run there are replaced.
        score_threshold: leave out detections that score less; for a task whose results know `above`. By
            default 0.05, and what scores 0.3 is drawn.
        tiles: see `tasks.predictor.Predictor.predict`.
        form: of the list: 'json', 'jsonl', 'csv' or 'coco'.
        overwrite: also replace files that Falconet did not make; never one of `inputs`.

    Raises:
        UserError: nothing could be read, `out` cannot be written, a file there is the user's, or the task
            has no such option.
    """
    check_options(model, score_threshold=score_threshold, tiles=tiles)
    check_format(form, model.task.name)
    paths = find_images(inputs)
    names = output_names(paths)
    extras = extra_names(names, getattr(model.task.result, 'extra_files', {}))
    lines, listing, sheet_file = (
        out / name for name in ('.predictions.lines', listing_name(form), 'contact_sheet.png')
    )
    beside = [out / name for each in extras for name in each.values()]
    written = [lines, listing, sheet_file, *(out / name for name in names), *beside]
    taken = {os.path.realpath(path) for path in written}  # unlike resolve, it minds no loop of links
    if clashes := [path for path in paths if os.path.realpath(path) in taken]:
        raise UserError(f'{clashes[0]} would be overwritten by a result: choose another --out than {out}')
    check_writable(written, overwrite=overwrite, hint='Choose another --out')
    skipped: dict[str, str] = {}
    sheet: list[tuple[Image.Image, str]] = []
    # The sheet shows an even selection when there are too many for one page.
    shown = {round(i * (len(paths) - 1) / max(1, SHEET_LIMIT - 1)) for i in range(SHEET_LIMIT)}
    options = {'score_threshold': score_threshold, 'tiles': tiles}
    drawing = {} if score_threshold is None else {'score_threshold': score_threshold}

    def skip(path: str, error: Exception) -> None:
        skipped[path] = getattr(error, 'reason', 'does not fit into memory')
        print(f'skipped {path}: {skipped[path]}')

    def photographs() -> Generator[tuple[tuple[int, Photograph], np.ndarray], None, None]:
        with closing(ahead(read_photograph, paths)) as read:
            for index, (path, reading) in enumerate(read):
                try:
                    photograph = reading.result()
                except (ImageError, MemoryError) as error:
                    skip(path, error)
                    continue
                yield (index, photograph), photograph.image

    def write(
        key: tuple[int, Photograph], image: np.ndarray, result: Any
    ) -> tuple[dict[str, Any], Image.Image | None, str]:
        index, photograph = key
        result = replace(result, path=paths[index])
        target = out / names[index]
        save_picture(result.draw(**drawing), target)
        files = {kind: str(out / name) for kind, name in extras[index].items()}
        for kind, name in files.items():
            result.save_extra(kind, Path(name))
        height, width = image.shape[:2]
        entry = {**result.summary(), 'width': width, 'height': height, 'turned': photograph.turned}
        preview = None
        if index in shown or len(paths) <= SHEET_LIMIT:
            preview = result.preview() if hasattr(result, 'preview') else Image.fromarray(image)
            preview.thumbnail((400, 400))
        return {**entry, 'picture': str(target), **files}, preview, result.title()

    count, complete = 0, False
    try:
        # Once: a folder that somebody removes meanwhile is an error, not begun anew without what it held.
        for folder in {(out / name).parent for name in names}:
            folder.mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        with (
            lines.open('w', encoding='utf-8') as file,
            closing(photographs()) as pictures,
            closing(answers(model, pictures, write, batch_size=BATCH, **options)) as seen,
        ):
            file.write(json.dumps({'made_by': MARK}) + '\n')
            for (index, _), writing in progress(seen, len(paths), what='pictures'):
                try:
                    entry, preview, title = writing.result()
                except (ImageError, MemoryError) as error:
                    skip(paths[index], error)
                    continue
                file.write(json.dumps(entry) + '\n')
                file.flush()
                count += 1
                if preview is not None:
                    sheet.append((preview, title))
        if sheet:
            save_picture(contact_sheet(sheet), sheet_file)
        complete = True
    except OSError as error:
        rest = f'What was predicted before is in {listing}' if lines.exists() else 'Was the folder removed?'
        raise UserError(f'cannot write to {out}: {error}. {rest}') from error
    finally:
        if lines.exists():
            facts = {'complete': complete, 'class_names': model.classes, 'skipped': skipped}
            write_listing(lines, listing, form, model.task.name, facts)
    if not count:
        raise UserError(f'none of the {len(paths)} files is a readable picture')
    return Predicted(count, skipped, listing)
