"""What every data set that lies in folders needs: its root, the pictures below, a share set aside by name."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from tasks.data.images import is_image_name
from tasks.errors import UserError

# Left behind by systems and tools, never a class or a picture.
IGNORED_NAMES = frozenset({'__MACOSX', 'Thumbs.db', 'desktop.ini'})


def existing_root(root: Path | str) -> Path:
    """Return the data root, or raise UserError saying where it was looked for and how to name another."""
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(
            f'data root {folder} does not exist (looked in {folder.absolute()}). '
            'Pass --data-root DIR or set KESTREL_DATA.'
        )
    return folder


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


def is_held_out(path: str, folder: Path, share: float) -> bool:
    """Whether a file belongs to the part set aside, decided by a hash of its name below `folder`."""
    name = Path(path).relative_to(folder).as_posix()
    digest = hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:4], 'big') / 2**32 < share


def find_images(inputs: Sequence[str | Path]) -> list[str]:
    """Return the image files that files and folders stand for; folders are searched to the bottom.

    Raises:
        UserError: an input does not exist, or nothing is a picture by its ending.
    """
    found: list[str] = []
    for each in inputs:
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
        elif path.is_file():
            found.append(str(path))
        else:
            raise UserError(f'there is no file or folder {path}')
    return found
