"""ONNX Runtime Web: the three files of it that a page needs, checked, from a folder or from npm's archive.

They come from the npm package onnxruntime-web, by npm's own client: `npm pack onnxruntime-web@1.30.0`. Given
once they are kept in the user's cache folder.
"""

import hashlib
import importlib.util
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from falconet.core.errors import UserError

VERSION = '1.30.0'
# Of `dist/` in the package: name and sha256. The small build: WebAssembly only, with SIMD and threads.
FILES = {
    'ort.wasm.min.mjs': '219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b',
    'ort-wasm-simd-threaded.mjs': 'e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b',
    'ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}
# The package leaves its licence out; ONNX Runtime's wheel has it, and those of what both are built from.
NOTICES = ('LICENSE', 'ThirdPartyNotices.txt')
HOW = (
    f'fetch it once with `npm pack onnxruntime-web@{VERSION}` and add '
    f'--web-runtime onnxruntime-web-{VERSION}.tgz'
)


def read_runtime(given: str | Path | None = None) -> dict[str, bytes]:
    """Return the files by name, and the notices that go with them.

    Args:
        given: npm's archive, the package's folder, or one that holds `node_modules`; None: what was given
            before.

    Raises:
        UserError: not there, or not that version.
    """
    kept = _cache()
    place = kept if given is None else Path(given).expanduser()
    if given is None and not kept.is_dir():
        raise UserError(f'the format web needs the files of ONNX Runtime Web {VERSION}: {HOW}')
    found = dict(_read(place))
    for name, digits in FILES.items():
        if hashlib.sha256(found[name]).hexdigest() != digits:
            raise UserError(f'{place}: its {name} is not that of onnxruntime-web {VERSION}: {HOW}')
    if given is not None:
        _keep(found, kept)
    return found | _notices()


def _read(place: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if place.is_dir():
            inner = ('', 'dist', 'onnxruntime-web/dist', 'node_modules/onnxruntime-web/dist')
            for name in FILES:
                paths = [place / each / name for each in inner]
                yield name, next((path for path in paths if path.is_file()), paths[0]).read_bytes()
        else:
            with tarfile.open(place) as archive:
                for name in FILES:
                    member = archive.extractfile(f'package/dist/{name}')
                    if member is None:
                        raise KeyError(name)
                    yield name, member.read()
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise UserError(
            f'{place} is not the npm package onnxruntime-web, as an archive or a folder ({error}): {HOW}'
        ) from error


def _keep(found: dict[str, bytes], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in found.items():
            temporary = folder / f'.{name}.{os.getpid()}'
            temporary.write_bytes(content)
            temporary.replace(folder / name)
    except OSError:
        pass  # then it has to be given again


def _notices() -> dict[str, bytes]:
    spec = importlib.util.find_spec('onnxruntime')
    assert spec is not None  # the format onnx, which this begins with, has asked for it
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return {name: (folder / name).read_bytes() for name in NOTICES}


def _cache() -> Path:
    base = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    return base / 'falconet' / f'onnxruntime-web-{VERSION}'
