"""Decoded pictures kept in a folder, on a disk or in memory, for all loading processes of a machine.

What is kept are pixels as they were decoded, so results are the same to the bit with and without. A picture
is known by its path, size and time of change. The first that come stay: a training walks through its data
over and over, where throwing out the oldest would keep nothing. Files appear whole, under a name of their
own each, and what they take is counted under a lock.
"""

import atexit
import hashlib
import math
import os
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.images.images import Photograph, Reduce

ENDING = '.falconetpicture'
COUNT = 'falconet-cache-size'  # bytes in use; locked while it changes
# MAGIC; height, width, whole height, whole width, turned, asked factor, bytes of the key.
HEAD = struct.Struct('<8s7i')
MAGIC = b'FALCONT1'
UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'TB': 10**12}
OF_1024 = {'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30, 'TIB': 2**40}
SIZE = re.compile(r'(\d+(?:\.\d+)?)([A-Z]*)')
SPARE = 10**9  # bytes of memory, or a quarter of what is free
STALE = 3600  # seconds after which an unfinished file belongs to nobody


class PictureCache:
    """Pictures in a folder.

    Args:
        folder: where; made when it is not there. Nothing else may be in it.
        limit: bytes that the files may take together.
        in_memory: the folder ends with `close`, and leaves memory to others that share it: batches come from
            loading processes through /dev/shm, and a write to a full one ends a process.

    Raises:
        UserError: the folder holds other things or cannot be written, or the disk has less than `limit` left.
    """

    def __init__(self, folder: Path, limit: int, *, in_memory: bool = False) -> None:
        self.folder, self.limit, self.in_memory = folder, limit, in_memory
        self._full = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()
            with self._counting() as count:
                count(self._clean())
                used = count(0)
        except OSError as error:
            raise UserError(f'cache.folder: cannot write to {folder} ({error.strerror})') from error
        except ValueError as error:  # a name with a zero byte
            raise UserError(f'cache.folder: {str(folder)!r} is no name of a folder ({error})') from error
        free = shutil.disk_usage(folder).free
        spare = min(free // 4, SPARE) if in_memory else 0
        if limit - used > free - spare:
            self.close()
            left = f', of which batches need {_readable(spare)},' if spare else ''
            raise UserError(
                f'cache.limit: {_readable(limit)} are more than {folder} can take, where {_readable(free)}'
                f'{left} are free and {_readable(used)} cached already. Take a smaller limit or another '
                'folder'
            )

    def get(self, key: tuple[Any, ...], reduce: Reduce | None) -> Photograph | None:
        """Return a picture as it was put; None where there is none, or it was reduced by another factor."""
        file = self._file(key)
        try:
            content = np.fromfile(file, np.uint8)
        except OSError:
            return None
        try:
            magic, height, width, rows, columns, turned, asked, length = HEAD.unpack_from(content.data)
            start = HEAD.size + length
            pixels = content[start:].reshape(height, width, 3)
            if magic != MAGIC or content[HEAD.size : start].tobytes() != _bytes(key):
                raise ValueError(file)
        except (ValueError, struct.error):  # cut off when a machine went down
            self._drop(file)
            return None
        if asked != (1 if reduce is None else reduce(rows, columns)):
            self._drop(file)
            return None
        reduced = (rows, columns) if (height, width) != (rows, columns) else None
        return Photograph(pixels, bool(turned), reduced)

    def put(self, key: tuple[Any, ...], photograph: Photograph, reduce: Reduce | None) -> None:
        """Keep a picture if there is room for it.

        Args:
            key: what it is known by; ends with the path of its file, that file's size and time of change.
            photograph: as read.
            reduce: what it was read with.
        """
        image, name = photograph.image, _bytes(key)
        size = HEAD.size + len(name) + image.nbytes
        if self._full or size > self.limit:
            return
        file = self._file(key)
        temporary = file.with_name(f'.{file.name}.{os.getpid()}.tmp')
        try:
            with self._counting() as count:
                if file.exists():  # another process was faster
                    return
                if count(0) + size > self.limit:
                    self._full = True
                    return
                count(size)
                whole = photograph.size
                asked = 1 if reduce is None else reduce(*whole)
                head = HEAD.pack(MAGIC, *image.shape[:2], *whole, photograph.turned, asked, len(name))
                with temporary.open('wb') as opened:
                    opened.write(head + name)
                    opened.write(np.ascontiguousarray(image).data)
                temporary.replace(file)
        except OSError:  # the disk is full, or the folder gone: training goes on without
            self._full = True
            with suppress(OSError):
                temporary.unlink()

    def close(self) -> None:
        """Remove a cache in memory; one on a disk stays for the next run."""
        if self.in_memory and os.environ.get('LOCAL_RANK', '0') == '0':
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, key: tuple[Any, ...]) -> Path:
        return self.folder / (hashlib.sha256(_bytes(key)).hexdigest()[:32] + ENDING)

    def _drop(self, file: Path) -> None:
        with suppress(OSError), self._counting() as count:
            size = file.stat().st_size
            file.unlink()
            count(-size)

    @contextmanager
    def _counting(self) -> Iterator[Any]:
        """Hold the lock; give a function that adds to the bytes in use and returns them."""
        with open(self.folder / COUNT, 'a+b') as file:
            _lock(file)

            def count(change: int) -> int:
                file.seek(0)
                used = _number(file.read()) + change
                if change:
                    file.truncate(0)
                    file.write(str(used).encode())
                    file.flush()
                return used

            yield count

    def _clean(self) -> int:
        """Remove what is unfinished and what changed since; return the bytes used less those counted."""
        used, now = 0, time.time()
        for entry in os.scandir(self.folder):
            if entry.name.endswith('.tmp'):
                if now - entry.stat().st_mtime > STALE:
                    os.unlink(entry.path)
            elif entry.name.endswith(ENDING):
                if _is_stale(entry.path):
                    os.unlink(entry.path)
                else:
                    used += entry.stat().st_size
        return used - _number((self.folder / COUNT).read_bytes())

    def _refuse_strangers(self) -> None:
        """Raise UserError, before anything is written, where the folder holds what is not a cache's."""
        names = sorted(os.listdir(self.folder))
        strangers = [
            name
            for name in names
            if name != COUNT and not name.endswith(ENDING) and not (name.endswith('.tmp') and ENDING in name)
        ]
        if strangers:
            raise UserError(
                f'cache.folder: {self.folder} holds other files ({strangers[0]}): give an empty or new folder'
            )


def open_cache(*, limit: str | int, folder: str | None = None) -> PictureCache:
    """Open a cache in a folder, or in memory: then it ends with the process that opened it.

    Args:
        limit: bytes, or a text as '4GB'.
        folder: where; None for memory, which is /dev/shm where there is one, else the folder for temporary
            files. Processes that torchrun started together share it.

    Raises:
        UserError: as `PictureCache`, or `limit` is no size.
    """
    size = parse_size(limit)
    if folder is not None:
        return PictureCache(Path(folder).expanduser(), size)
    base = Path('/dev/shm') if os.access('/dev/shm', os.W_OK) else Path(tempfile.gettempdir())
    for left in base.glob('falconet-cache-*'):
        owner = left.name.rpartition('-')[2]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    # Processes of one torchrun have one parent; a single one names it after itself.
    owner = os.getppid() if 'LOCAL_RANK' in os.environ else os.getpid()
    place = base / f'falconet-cache-{owner}'
    if os.environ.get('LOCAL_RANK', '0') == '0':
        atexit.register(_remove, place, os.getpid())
    return PictureCache(place, size, in_memory=True)


def parse_size(text: str | int, *, name: str = 'cache.limit') -> int:
    """Return the bytes of '500MB' (of 1000), '320KiB' (of 1024) or a number; UserError for anything else."""
    found = None if isinstance(text, bool) else SIZE.fullmatch(str(text).upper().replace(' ', ''))
    unit = None if found is None else {'': 1, 'B': 1, **UNITS, **OF_1024}.get(found[2])
    size = 0.0 if found is None or unit is None else float(found[1]) * unit
    if not 1 <= size < math.inf:
        raise UserError(f"{name} must be bytes or a text like '500MB', '320KiB' or '1.5GB', got {text!r}")
    return int(size)


def _number(content: bytes) -> int:
    """Return the bytes in use by a count's file; 0 where that is empty or broken, as after a power cut."""
    text = content.strip()
    return int(text) if text.isdigit() else 0


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a loading process, which inherits what is to be done at exit
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _bytes(key: tuple[Any, ...]) -> bytes:
    return '\n'.join(map(str, key)).encode('utf-8', 'surrogateescape')


def _is_stale(file: str) -> bool:
    """Whether the picture that a file was made from is another now, or gone."""
    try:
        with open(file, 'rb') as opened:
            *_, length = HEAD.unpack(opened.read(HEAD.size))
            path, size, time = opened.read(length).decode('utf-8', 'surrogateescape').split('\n')[-3:]
        found = os.stat(path)
        return (found.st_size, found.st_mtime_ns) != (int(size), int(time))
    except (OSError, ValueError, struct.error):
        return True


def _readable(size: int) -> str:
    unit = next((name for name in ('TB', 'GB', 'MB') if size >= UNITS[name]), 'KB')
    return f'{size / UNITS[unit]:.1f} {unit}'


def _lock(file: Any) -> None:
    """Wait until no other process holds this file; it is let go when the file is closed."""
    try:
        import fcntl
    except ImportError:  # Windows: counts may be a little off
        return
    fcntl.flock(file, fcntl.LOCK_EX)
