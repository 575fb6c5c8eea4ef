"""Packing pictures into tar shards that `datasets.shards.read` and WebDataset's own tools read."""

import io
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from falconet.datasets.classes import write_classes
from falconet.datasets.images.images import read_bytes
from falconet.datasets.layouts.writers import new_folder

CLASS_FILE = 'classes.txt'


def pack(
    parts: Mapping[str, Sequence[tuple[str, int]]],
    classes: Sequence[str],
    out: Path,
    *,
    size: int,
    seed: int = 0,
) -> dict[str, int]:
    """Write shards of every part, and the list of class names.

    Files go in as they are, in a random order, so that classes are mixed within a shard too.

    Args:
        parts: name -> (picture file, class index) of each sample.
        classes: names by index.
        out: folder to write, new or empty.
        size: bytes after which a shard is closed.
        seed: of the order.

    Returns:
        How many shards each part has.

    Raises:
        UserError: `out` is not empty, cannot be written, or a picture cannot be read.
    """
    counts = {}
    with new_folder(out) as folder:
        for name, samples in parts.items():
            order = list(samples)
            random.Random(seed).shuffle(order)
            counts[name] = _write(name, order, folder, size)
        write_classes(folder / CLASS_FILE, classes)
    return counts


def _write(part: str, samples: Iterable[tuple[str, int]], out: Path, size: int) -> int:
    shards, archive, temporary = 0, None, out / f'.{part}.tmp'
    try:
        for number, (path, label) in enumerate(samples):
            if archive is not None and archive.offset >= size:
                archive.close()
                temporary.replace(out / f'{part}-{shards:05d}.tar')
                shards, archive = shards + 1, None
            if archive is None:
                archive = tarfile.open(temporary, 'w', format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            stem = f'{part}_{number:08d}'
            _add(archive, f'{stem}{Path(path).suffix.lower()}', read_bytes(path).tobytes())
            _add(archive, f'{stem}.cls', str(label).encode())
        if archive is not None:
            archive.close()
            temporary.replace(out / f'{part}-{shards:05d}.tar')
            shards += 1
        return shards
    finally:
        temporary.unlink(missing_ok=True)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
