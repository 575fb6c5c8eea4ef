"""The format web: a folder of static files that answers for photographs and a camera in a browser.

It holds an ONNX file that takes pictures of any size, ONNX Runtime Web, and the page in `deploy/web`, whose
scripts decode pictures and draw answers, and compute nothing between the two. Any web server will do.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from falconet.core.errors import UserError, listing
from falconet.core.names import MARK, MARKS, NAME
from falconet.deploy.card import Written
from falconet.deploy.description import Description
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import CARD, export
from falconet.deploy.program import ANY
from falconet.deploy.web_runtime import read_runtime

PAGE = Path(__file__).parent / 'web'
MANIFEST = 'model.json'
MODEL = 'model.onnx'
SHOWN = ('classification', 'detection', 'segmentation')  # tasks that deploy/web/draw.js draws


def export_page(
    checkpoint: str | Path,
    *,
    out: Path,
    runtime: str | Path | None = None,
    check: Sequence[str | Path] = (),
    data_root: str | None = None,
    overwrite: bool = False,
) -> Written:
    """Write a checkpoint as a web page, the folder `<checkpoint's name>_web` in `out`.

    Args:
        checkpoint: a Falconet checkpoint.
        out: the folder in which the page's folder is made.
        runtime: where ONNX Runtime Web is; see `deploy.web_runtime.read_runtime`.
        check, data_root: as in `deploy.export.export`.
        overwrite: replace files in the folder that Falconet did not make, or that changed since.

    Raises:
        UserError: as `export` and `read_runtime`, or the task has no page.
    """
    files = {f'onnxruntime/{name}': content for name, content in read_runtime(runtime).items()}
    target = out / f'{Path(checkpoint).stem}_web'
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix='.export_') as folder:
            (written,) = export(
                checkpoint, ['onnx'], out=Path(folder), size=ANY, check=check, data_root=data_root
            )
            description = ExportedModel(written.path).description
            if description.task not in SHOWN:
                raise UserError(f'the page shows {listing(SHOWN)}, and no answers of {description.task}')
            # Where its data lies is nobody's business on the web.
            description = description.model_copy(update={'config': {}})
            files[MODEL] = _described(written.path, description)
            card = (Path(folder) / CARD).read_text(encoding='utf-8')
            files[CARD] = card.replace(written.path.name, MODEL).encode()
        files.update({path.name: path.read_bytes() for path in sorted(PAGE.iterdir())})
        names = sorted([*files, MANIFEST])
        version = hashlib.sha256(b''.join(files[name] for name in sorted(files))).hexdigest()[:16]
        script = files['sw.js'].replace(b"'{{VERSION}}'", json.dumps(version).encode())
        files['sw.js'] = script.replace(
            b"['{{FILES}}']", json.dumps(['./', *(name for name in names if name != 'sw.js')]).encode()
        )
        about = description.model_dump(mode='json', exclude={'config', 'model', 'metrics'})
        place_files(files, {'model': MODEL, **about}, target, overwrite=overwrite)
    except OSError as error:
        raise UserError(f'cannot write to {target}: {error}') from error
    size = sum(map(len, files.values())) + (target / MANIFEST).stat().st_size
    return Written(target, size, written.measured, written.scores)


def check_options(*, size: object, batch: object, raw: bool) -> None:
    """Raise UserError for options of an export that a page does not have."""
    if size not in (None, ANY) or batch not in (None, 1) or raw:
        raise UserError(
            'a page takes photographs of any size, one at a time, and shows answers: leave --size HxW, '
            '--batch and --raw out with --to web, and export other formats in another command'
        )


def place_files(files: dict[str, bytes], about: dict[str, Any], target: Path, *, overwrite: bool) -> None:
    """Write a folder of files, in place of those of an earlier one and of no others.

    Args:
        files: contents by their names in the folder.
        about: what else `model.json` says; that lists the files with their sha256, so that the next time it
            is known which are as Falconet wrote them.
        target: the folder.
        overwrite: replace all others as well.

    Raises:
        UserError: there are others.
    """
    manifest = {'made_by': MARK, **about}
    manifest['files'] = {name: _digest(content) for name, content in sorted(files.items())}
    before = _earlier(target)
    ours = {
        name for name, digest in before.items() if (path := target / name).is_file() and _same(path, digest)
    }
    foreign = [
        target / name
        for name, content in files.items()
        if name not in ours and (target / name).exists() and not _same(target / name, _digest(content))
    ]
    if not before and (target / MANIFEST).exists():
        foreign.append(target / MANIFEST)
    if foreign and not overwrite:
        raise UserError(
            f'{len(foreign)} files that Falconet did not make, or that were changed since, would be '
            f'overwritten: {listing(foreign)}. Choose another --out, or add --overwrite'
        )
    for name in ours - {*files}:
        (target / name).unlink()
    files = {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}  # last: it says what is there
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}')
        temporary.write_bytes(content)
        temporary.replace(path)


def _described(path: Path, description: Description) -> bytes:
    """Return an ONNX file with another description of itself."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {NAME: description.model_dump_json()})
    return model.SerializeToString()


def _earlier(target: Path) -> dict[str, str]:
    """Return names and digests of the files of the page that lies there."""
    try:
        found = json.loads((target / MANIFEST).read_bytes())
        if found.get('made_by') not in MARKS:
            return {}
        # Names could lead out of the folder.
        inside = target.resolve()
        return {
            name: digest
            for name, digest in found['files'].items()
            if (inside / name).resolve().is_relative_to(inside)
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and _digest(path.read_bytes()) == digest


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
