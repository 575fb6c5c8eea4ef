"""The format ExecuTorch: a `.pte` file for apps on Android and iOS, computed by XNNPACK.

Lowered from torch.export's trace, for a fixed number of pictures. What names classes and task is a second
method of the file, `falconet`, which returns the JSON as bytes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falconet.core.names import NAME, NAMES
from falconet.deploy.description import read_description
from falconet.deploy.formats import Run, Traced
from falconet.deploy.plain_operators import in_plain_operators


def write(traced: Traced, path: Path) -> None:
    """Write a `.pte` file, with float32 weights."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import-not-found]
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # type: ignore[import-not-found]

    text = torch.frombuffer(bytearray(traced.description.encode()), dtype=torch.uint8)
    logging.disable(logging.WARNING)  # every operator that XNNPACK leaves to others is told of
    try:
        lowered: Any = to_edge_transform_and_lower(
            in_plain_operators(traced.program),
            partitioner=[XnnpackPartitioner()],
            constant_methods={NAME: text},
        )
        path.write_bytes(lowered.to_executorch().buffer)
    finally:
        logging.disable(logging.NOTSET)


def read(path: Path) -> str | None:
    """Return what the file says of itself."""
    content = path.read_bytes()
    return _description(_load(content))


def start(path: Path, outputs: Sequence[str], *, threads: int) -> Run:
    """Open the file in ExecuTorch's runtime, which chooses its own number of `threads`."""
    content = path.read_bytes()
    program = _load(content)
    method = program.load_method('forward')
    names = [each.name for each in read_description(_description(program), path).outputs]

    def run(pictures: np.ndarray, kept: Any = (content, program)) -> dict[str, np.ndarray]:
        # A method reads from its program's bytes, and keeps neither alive.
        found = dict(zip(names, method.execute([torch.from_numpy(pictures)]), strict=True))
        # The next call writes into the same memory.
        return {name: found[name].numpy().copy() for name in outputs}

    return run


def _description(program: Any) -> str | None:
    names = [name for name in NAMES if name in program.method_names]
    if not names:
        return None
    return bytes(program.load_method(names[0]).execute([])[0].numpy()).decode()


def _load(content: bytes) -> Any:
    from executorch.runtime import Runtime  # type: ignore[import-not-found]

    return Runtime.get().load_program(content)
