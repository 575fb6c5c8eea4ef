"""Pictures inside tar files, WebDataset's layout: files of one sample follow each other and share a stem.

    train-00000.tar: 000000.jpg 000000.cls 000001.jpg 000001.cls ...

Not read as a stream: an index of where each picture lies makes of a tar a folder, from which a sample is
fetched by its number. So the order is shuffled over all shards, every sample comes exactly once, and a run
goes on exactly, with any number of processes and workers, more than shards included. Building the index means
reading every member's header once; it is kept in the user's cache folder until a shard changes.

Source of the layout: https://github.com/webdataset/webdataset; of tar: POSIX.1-1988, ustar.
"""

import hashlib
import json
import os
import re
import tarfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from falconet.core.errors import UserError, listing
from falconet.datasets.images.images import ImageError, is_image_name
from falconet.datasets.packed_strings import PackedStrings

LABEL_ENDINGS = ('.cls', '.json')  # a number; an object with a number called 'label' or 'cls'
BLOCK = 512
BRACES = re.compile(r'\{\d+\.\.\d+\}')  # WebDataset's 'train-{00000..00099}.tar'
OPEN_FILES = 64  # per process
LOCK = threading.Lock()  # around them: threads read too, where `strict` reads everything
FORMAT = 2  # of the index


class ShardIndex(NamedTuple):
    """Where the pictures of some shards lie.

    Attributes:
        names: of the pictures inside their shards.
        shard: which one, int32 (N,).
        offset, size: bytes in that file, int64 (N,).
        label: class index, int64 (N,).
    """

    names: Sequence[str]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray


def find_shards(folder: Path, pattern: str) -> list[Path]:
    """Return the shards that a pattern stands for, sorted.

    Args:
        folder: where.
        pattern: 'train-*.tar', as a shell has it, or names with commas between.

    Raises:
        UserError: there are none, one is listed twice, or is compressed.
    """
    if not isinstance(pattern, str):
        raise UserError(f"shards must be a text as 'train-*.tar' or 'a.tar, b.tar', got {pattern!r}")
    found: list[Path] = []
    for part in filter(None, (each.strip() for each in pattern.split(','))):
        names = glob(part, root_dir=folder) if set(part) & set('*?[') else [part]
        paths = sorted(folder / name for name in names)
        if not paths or not all(path.is_file() for path in paths):
            inside = listing(sorted(path.name for path in folder.glob('*.tar*'))) or 'no .tar files'
            hint = f'. Write {BRACES.sub("*", part)} for a range in braces' if BRACES.search(part) else ''
            raise UserError(f'shards={pattern!r}: {folder} has no {part}; it holds {inside}{hint}')
        found += paths
    if not found:
        raise UserError(f'shards={pattern!r} names no file')
    seen: dict[tuple[int, int], Path] = {}
    for path in found:
        if path.suffix != '.tar':
            raise UserError(f'{path}: shards are plain .tar files; unpack a compressed one first (gunzip)')
        status = path.stat()
        other = seen.setdefault((status.st_dev, status.st_ino), path)
        if other is not path:
            raise UserError(f'shards={pattern!r}: {path} is listed twice (as {other.name}): name each once')
    return found


def index_shards(shards: Sequence[Path]) -> ShardIndex:
    """Return where the pictures of shards lie, from the cache folder where they were indexed before.

    Raises:
        UserError: a shard is cut off or no tar; a sample has no label, two pictures, or is in two shards.
    """
    parts = [_index_or_cached(path) for path in shards]
    names = [name for part in parts for name in part['names']]
    shard = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part['names']) for part in parts])
    stems: dict[str, int] = {}
    for place, name in enumerate(names):
        other = stems.setdefault(_stem(name), place)
        if other != place:
            first, second = shards[int(shard[other])], shards[int(shard[place])]
            where = f'twice in {first}' if first == second else f'in {first.name} and in {second.name}'
            raise UserError(f'{first.parent}: sample {_stem(name)!r} is {where}: is one a copy of the other?')
    joined = {
        key: np.concatenate([np.asarray(part[key], dtype=np.int64) for part in parts])
        for key in ('offset', 'size', 'label')
    }
    return ShardIndex(PackedStrings(names), shard, **joined)


def _index_or_cached(path: Path) -> dict[str, Any]:
    status = path.stat()
    key = f'{FORMAT}\n{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}'
    base = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'falconet' / 'shards'
    name = hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]
    file = base / f'{name}.json'
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        if content['key'] == key:
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass
    content = {'key': key, **_index(path)}
    temporary = file.with_name(f'.{file.name}.{os.getpid()}.tmp')
    try:
        base.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding='utf-8')
        temporary.replace(file)
    except OSError:  # a home that cannot be written to: it is indexed anew next time
        with suppress(OSError):
            temporary.unlink()
    return content


def _index(path: Path) -> dict[str, list[Any]]:
    """Read every member's header of one shard."""
    pictures: dict[str, tuple[str, int, int]] = {}  # stem -> name, offset, size
    labels: dict[str, int] = {}
    length = path.stat().st_size
    try:
        with path.open('rb') as file:
            if file.read(2) == b'\x1f\x8b':
                raise UserError(f'{path} is compressed by gzip: shards are plain tar files, unpack it first')
        with path.open('rb') as file, tarfile.open(fileobj=file, mode='r:') as archive:
            end = 0
            while (member := archive.next()) is not None:
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # it would keep them all
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                if end > length:
                    raise tarfile.ReadError(f'{member.name} is cut off')
                if member.isdir() or member.name.rpartition('/')[2].startswith('.'):
                    continue
                stem, ending = _stem(member.name), _ending(member.name)
                wanted = is_image_name(member.name) or ending in LABEL_ENDINGS
                if wanted and (not member.isreg() or member.issparse()):
                    raise UserError(
                        f'{path}: {member.name} is a link or has holes, its content is not there: pack the '
                        'files themselves (tar --dereference --hard-dereference)'
                    )
                if is_image_name(member.name):
                    if stem in pictures:
                        raise UserError(
                            f'{path}: sample {stem!r} has two pictures, {pictures[stem][0]} and {member.name}'
                        )
                    pictures[stem] = (member.name, member.offset_data, member.size)
                elif ending in LABEL_ENDINGS and stem not in labels:
                    content = _read_at(file.fileno(), member.size, member.offset_data)
                    label = _label(content, ending)
                    if label is not None:
                        labels[stem] = label
                    elif ending == '.cls':
                        raise UserError(
                            f'{path}: {member.name} should hold a class number, found {content[:20]!r}'
                        )
            file.seek(end)
            if file.read(BLOCK).strip(b'\0') or length < end + BLOCK:
                raise tarfile.ReadError('its end marker is missing')
            while filling := file.read(2**20):
                if filling.strip(b'\0'):
                    raise UserError(
                        f'{path}: more follows behind its end, as where tar files were joined by cat: give '
                        'each as a shard of its own, or join them with tar --concatenate'
                    )
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(
            f'{path} is cut off or no tar file ({error}; {length:,} bytes): copy or pack it again'
        ) from error
    if bare := [stem for stem in pictures if stem not in labels]:
        raise UserError(
            f'{path}: {len(bare)} of {len(pictures)} pictures have no label, the first is '
            f'{pictures[bare[0]][0]}: beside it, {bare[0]}.cls with a class number is expected, or '
            f"{bare[0]}.json with 'label'"
        )
    if not pictures:
        raise UserError(f'{path} holds no pictures')
    names, offsets, sizes = zip(*pictures.values(), strict=True)
    return {
        'names': list(names),
        'offset': list(offsets),
        'size': list(sizes),
        'label': [labels[stem] for stem in pictures],
    }


def _stem(name: str) -> str:
    """Return what the files of a sample share: all up to the first point of the last part of the path."""
    folder, slash, last = name.rpartition('/')
    return f'{folder}{slash}{last.partition(".")[0]}'


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _label(content: bytes, ending: str) -> int | None:
    """Return the class number in a label file; None where there is none."""
    try:
        if ending == '.cls':
            return int(content.decode().strip())
        entry = json.loads(content)
        found = entry.get('label', entry.get('cls'))
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _read_at(file: int, size: int, offset: int) -> bytes:
    if hasattr(os, 'pread'):
        return os.pread(file, size, offset)
    os.lseek(file, offset, os.SEEK_SET)  # Windows
    return os.read(file, size)


class ShardReader:
    """Reads pictures out of shards; every process opens the files for itself.

    Args:
        shards: the files.
        index: where the pictures lie.
    """

    def __init__(self, shards: Sequence[Path], index: ShardIndex) -> None:
        self.shards, self.index = list(shards), index
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    def read(self, place: int) -> np.ndarray:
        """Return the bytes of picture number `place`, uint8 (N,); ImageError where the shard is shorter."""
        shard, size = int(self.index.shard[place]), int(self.index.size[place])
        name = f'{self.shards[shard]}/{self.index.names[place]}'
        try:
            with LOCK:
                data = _read_at(self._open(shard), size, int(self.index.offset[place]))
        except OSError as error:
            raise ImageError(name, f'cannot be read ({error.strerror})') from error
        if len(data) < size:
            raise ImageError(name, 'its shard has become shorter')
        return np.frombuffer(data, np.uint8)

    def status(self, place: int) -> tuple[int, int, str, int, int]:
        """Return offset and size of picture number `place`, then its shard, and that one's size and time."""
        number = int(self.index.shard[place])
        shard = self.shards[number]
        try:
            with LOCK:  # of the file that is read: another may have taken its name by now
                found = os.fstat(self._open(number))
        except OSError as error:
            raise ImageError(shard, f'cannot be read ({error.strerror})') from error
        own = (int(self.index.offset[place]), int(self.index.size[place]))
        return (*own, str(shard.absolute()), found.st_size, found.st_mtime_ns)

    def _open(self, shard: int) -> int:
        if self._process != os.getpid():  # a loading process, with the main one's files
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self.shards[shard], os.O_RDONLY | getattr(os, 'O_BINARY', 0))
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_files': {}}

    def __del__(self) -> None:
        for file in self._files.values() if self._process == os.getpid() else ():
            os.close(file)
