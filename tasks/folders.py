"""What every data set that lies in folders needs: its root, the pictures below, a share set aside by name."""

import hashlib
import os
from pathlib import Path

from tasks.errors import UserError
from tasks.images import is_image_name

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
