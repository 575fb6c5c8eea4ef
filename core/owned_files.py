"""Files a command writes: marked as its own, and nobody else's replaced.

Every picture and JSON file carries a short note near its beginning. A later run of the same tool replaces
files with that note; anything else needs `--overwrite`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from falconet.core.errors import UserError, listing
from falconet.core.names import MARK, MARKS

HEAD = 4096  # bytes in which the note stands


def is_ours(path: Path) -> bool:
    """Whether a regular file carries the note; a pipe would be waited for."""
    try:
        if not path.is_file():
            return False
        with path.open('rb') as file:
            content = file.read(HEAD)
            # COCO's list of nothing found has no room for the note, and nothing to lose.
            return any(mark.encode() in content for mark in MARKS) or content.split() == [b'[', b']']
    except OSError:
        return False


def check_writable(paths: Iterable[Path], *, overwrite: bool, hint: str) -> None:
    """Raise UserError for files that this would replace and that Falconet did not make.

    A folder, a pipe or a device of such a name is never replaced.

    Args:
        paths: what will be written.
        overwrite: the user has said that they may go.
        hint: what else to do, for the message.
    """
    present = [path for path in paths if path.exists()]
    if no_files := [path for path in present if not path.is_file()]:
        raise UserError(
            f'{listing(no_files)}: there is no regular file, so none is written in its place. {hint}'
        )
    others = [path for path in present if not overwrite and not is_ours(path)]
    if others:
        raise UserError(
            f'{len(others)} files that Falconet did not make would be overwritten: {listing(others)}. '
            f'{hint}, or add --overwrite'
        )


def note() -> PngInfo:
    """Return the note for a PNG."""
    info = PngInfo()
    info.add_text('Software', MARK)
    return info


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a .png or .jpg with the note."""
    if path.suffix.lower() in ('.jpg', '.jpeg'):
        picture.save(path, comment=MARK.encode())
    else:
        picture.save(path, pnginfo=note())


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write an object as JSON with the note first, whole or not at all."""
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        temporary.write_text(json.dumps({'made_by': MARK, **content}, indent=1), encoding='utf-8')
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
