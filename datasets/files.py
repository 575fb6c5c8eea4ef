"""What every data set that lies in folders needs: its root, the pictures below, a share set aside by name."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from falconet.core.errors import UserError
from falconet.datasets.images.images import is_image_name

# Left behind by systems and tools, never a class or a picture.
IGNORED_NAMES = frozenset({'__MACOSX', 'Thumbs.db', 'desktop.ini'})


def existing_root(root: Path | str) -> Path:
    """Return the data root, or raise UserError saying where it was looked for and how to name another."""
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(
            f'data root {folder} does not exist (looked in {folder.absolute()}). '
            'Pass --data-root DIR or set FALCONET_DATA.'
        )
    return folder


def existing_folder(root: Path, name: str) -> Path:
    """Return a folder inside `root`, or raise UserError naming those that are there."""
    folder = root / name
    if not folder.is_dir():
        inside = sorted(each.name for each in root.iterdir() if each.is_dir())
        raise UserError(f'{folder} does not exist. {root} holds {inside or "no folders"}.')
    return folder


def check_names(names: Iterable[str], folder: Path) -> None:
    """Raise UserError for class folders whose names are no UTF-8, which no checkpoint could hold."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f'{folder}: the name of a class folder is no UTF-8: {os.fsencode(name)!r}. Rename it'
            ) from error


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the image files below `folder` in sorted order, and the other files."""
    images: list[str] = []
    others: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith('.'))
        for file in sorted(files):
            if file.startswith('.') or file in IGNORED_NAMES:
                continue
            (images if is_image_name(file) else others).append(os.path.join(parent, file))
    return images, others


def part_of(files: Sequence[str], folder: Path, *, holdout: float, training: bool) -> list[str]:
    """Return the files of one part: those to train on, or the share set aside for testing.

    Which ones is decided by a hash of each name below `folder`, so that adding files moves no other file.

    Args:
        files: all of them.
        folder: where they lie.
        holdout: the share set aside, 0 to 1; with 0 every file belongs to both parts.
        training: return those that are not set aside.
    """

    def is_held_out(path: str) -> bool:
        name = Path(path).relative_to(folder).as_posix()
        digest = hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()
        return int.from_bytes(digest[:4], 'big') / 2**32 < holdout

    return [file for file in files if not holdout or training != is_held_out(file)]


def find_images(inputs: Sequence[str | Path]) -> list[str]:
    """Return the image files that files and folders stand for; folders are searched to the bottom.

    Raises:
        UserError: an input does not exist or has no name, or nothing is a picture by its ending.
    """
    found: list[str] = []
    for each in inputs:
        if not str(each):  # a path of nothing is the current folder
            raise UserError("there is no file or folder '': name one, or . for this folder")
        path = Path(each).expanduser()
        if path.is_dir():
            inside = sorted(
                str(Path(parent) / file)
                for parent, _, files in os.walk(path)
                for file in files
                if is_image_name(file) and not file.startswith('.')
            )
            if not inside:
                raise UserError(f'no pictures (.jpg, .png, ...) in {path} or below')
            found += inside
        elif path.is_file() or (is_image_name(path.name) and os.path.lexists(path)):
            found.append(str(path))  # a pipe or a lost link is left out by name when its turn comes
        else:
            raise UserError(f'there is no file or folder {path}')
    return found
