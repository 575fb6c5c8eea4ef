"""The format of torch.export: a `.pt2` file, for Python with torch but without this project's networks.

Opening one is not harmless by itself: torch unpickles what the archive calls pickled, evaluates sizes in it
as Python expressions, and finds operators by any name below `torch`. `check_harmless` lets through only what
`write` puts there.
"""

import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet.checkpoints.file import check_bytes
from falconet.core.errors import UserError
from falconet.core.names import FORMER, NAME, NAMES
from falconet.deploy.formats import Run, Traced
from falconet.heads.nms_op import register  # and falconet::suppress, without which no detector opens

ENTRY = re.compile(
    r'models/model\.json|data/(weights/weight|constants/tensor)_\d+|data/(weights|constants)/model_\w+\.json'
    rf'|extra/({"|".join(NAMES)})|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|\.data/\w+'
)
OPERATOR = re.compile(rf'torch\.ops\.(aten|{"|".join(NAMES)})(\.(?!__)\w+){{2}}')
SYMBOL = re.compile(r"s\d+|Symbol\('s\d+', positive=True, integer=True\)")
WORD = re.compile(r'[\w.+]*')


def write(traced: Traced, path: Path) -> None:
    """Write a `.pt2` file.

    Raises:
        UserError: of pictures of any size, whose sizes would be expressions that opening evaluates.
    """
    if json.loads(traced.description).get('picture', True) is None:
        raise UserError('the format torch takes pictures of one size: say --size HxW, or take onnx')
    with warnings.catch_warnings():
        # Of a weight that lies in a larger storage it says it takes the one there is; there never is another.
        warnings.filterwarnings('ignore', 'No complete tensor found in the group')
        torch.export.save(traced.program, path, extra_files={NAME: traced.description})


def read(path: Path) -> str | None:
    """Return what the file says of itself; nothing in it is compressed, or a small file filled the memory."""
    check_bytes(path)
    with zipfile.ZipFile(path) as archive:
        names = [
            name for name in archive.namelist() if name.endswith(tuple(f'/extra/{key}' for key in NAMES))
        ]
        return archive.read(names[0]).decode() if names else None


def start(path: Path, outputs: Sequence[str], *, threads: int) -> Run:
    """Load the program; `threads` are torch's own."""
    check_harmless(path)
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith(f'/extra/{FORMER["name"]}') for name in archive.namelist()):
            register(FORMER['name'])
    module: Any = torch.export.load(path).module()

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = module(torch.from_numpy(pictures))
        return {name: found[name].numpy() for name in outputs}

    return run


def check_harmless(path: Path) -> None:
    """Raise UserError unless the file holds only what `write` writes: numbers, words, torch's operators."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        # Two entries of one name are read by two libraries in two ways.
        strange = [name for name in names if not ENTRY.fullmatch(name.partition('/')[2])]
        strange += [name for name in {*names} if names.count(name) > 1]
        for name in names:
            if name.endswith('.json'):
                strange += strange_values(json.loads(archive.read(name)))
            elif name.endswith('/model.pt') and archive.getinfo(name).file_size:
                # Torch would fall back to unpickling it.
                strange.append(name)
    if strange:
        raise UserError(
            f'{path} refused: it holds {str(strange[0])[:80]!r}, which tools/export.py never writes and '
            'which could run code; export the checkpoint again, or ask for the .onnx file'
        )


def strange_values(value: Any, key: str = '') -> Iterator[Any]:
    """Yield what torch.export could take for more than data, of the JSON in an archive."""
    if isinstance(value, dict):
        if value.get('use_pickle'):
            yield 'use_pickle'
        for name, each in value.items():
            if not WORD.fullmatch(name):
                yield name
            yield from strange_values(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from strange_values(each, key)
    elif isinstance(value, str):
        if value[:1] in ('[', '{'):  # how the outputs nest is JSON within JSON
            yield from strange_values(json.loads(value))
        elif not {'target': OPERATOR, 'expr_str': SYMBOL}.get(key, WORD).fullmatch(value):
            yield value
