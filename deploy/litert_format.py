"""The format LiteRT: a `.tflite` file for Android, microcontrollers and the Raspberry Pi.

Written by litert-torch from torch.export's trace, for a fixed number of pictures. What names classes and
task is one of the file's metadata entries (TensorFlow's `schema.fbs`: Model.metadata).
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet.core.errors import UserError
from falconet.core.names import NAME, NAMES
from falconet.deploy.formats import Run, Traced
from falconet.deploy.plain_operators import in_plain_operators

SIGNATURE = 'serving_default'


def write(traced: Traced, path: Path) -> None:
    """Write a `.tflite` file, with float32 weights."""
    path.write_bytes(with_description(_converted(traced, path), traced.description))


def write_int8(traced: Traced, path: Path, pictures: Iterable[np.ndarray], *, all_maps: bool = False) -> None:
    """Write a `.tflite` file in INT8, calibrated on batches of RGB uint8 (B, H, W, 3).

    `all_maps`: see `deploy.int8.litert_int8.quantised`.
    """
    from falconet.deploy.int8.litert_int8 import quantised

    content = quantised(_converted(traced, path), pictures, all_maps=all_maps)
    path.write_bytes(with_description(content, traced.description))


def _converted(traced: Traced, path: Path) -> bytes:
    """Return the content of the file; `path` is where it may be written meanwhile."""
    import litert_torch  # type: ignore[import-not-found]

    module = in_plain_operators(traced.program).module()
    pictures = torch.zeros(traced.shape, dtype=torch.uint8)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model: Any = litert_torch.convert(module, (pictures,))
        model.export(str(path))
    return path.read_bytes()


def with_description(content: bytes, description: str) -> bytes:
    """Return a file's content with a description among its metadata, instead of one that is there."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]

    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)  # its types say every field may be missing
    for each in model.buffers:  # the quantizer writes them behind everything else
        if each.data is None and each.size:
            each.data = np.frombuffer(content, np.uint8, each.size, each.offset)
            each.offset = each.size = 0
    others = [each for each in model.metadata or [] if each.name.decode() not in NAMES]
    for each in model.metadata or []:
        if each not in others:
            model.buffers[each.buffer].data = None
    entry: Any = schema.MetadataT()
    buffer: Any = schema.BufferT()
    buffer.data = np.frombuffer(description.encode(), np.uint8)
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*others, entry]
    builder = flatbuffers.Builder(len(content) + len(description) + 1024)
    builder.Finish(model.Pack(builder), b'TFL3')
    return bytes(builder.Output())


def read(path: Path) -> str | None:
    """Return what the file says of itself."""
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]

    content = path.read_bytes()
    if content[4:8] != b'TFL3':
        raise ValueError('it does not begin as a .tflite file')
    model: Any = schema.Model.GetRootAs(content, 0)
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        if entry.Name().decode() in NAMES:
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None


def start(path: Path, outputs: Sequence[str], *, threads: int) -> Run:
    """Open the file in LiteRT's interpreter on the CPU (XNNPACK)."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    interpreter: Any = Interpreter(model_content=path.read_bytes(), num_threads=threads)
    runner = interpreter.get_signature_runner(SIGNATURE)
    (name,) = runner.get_input_details()
    if missing := {*outputs} - {*runner.get_output_details()}:
        raise UserError(f'{path} has no output {missing.pop()!r}: export the checkpoint again')

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        found = runner(**{name: pictures})
        # Of whole numbers LiteRT has 32 bits.
        return {
            each: found[each].astype(np.int64) if found[each].dtype == np.int32 else found[each]
            for each in outputs
        }

    return run
