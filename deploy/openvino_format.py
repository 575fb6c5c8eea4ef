"""The format OpenVINO: a `.xml` file, and weights beside it in `.bin`, for Intel's and ARM's processors."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino

from falconet.core.names import NAME, NAMES
from falconet.deploy.formats import INPUT, Run, Traced


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    """Return the one core of this process, which lives as long as it.

    Each gives the thread a stack for signals with its first CPU model and puts the former back when it goes:
    of two that go in the order they came the first one's is left, freed, and Ctrl-C ends the process.
    """
    return openvino.Core()


def write(traced: Traced, path: Path) -> None:
    """Write `path` and its `.bin`, with float32 weights."""
    _save(_read(traced), traced, path)


def write_int8(traced: Traced, path: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write `path` and its `.bin` in INT8, calibrated on batches of RGB uint8 (B, H, W, 3)."""
    from falconet.deploy.int8.openvino_int8 import quantised

    _save(quantised(_read(traced), pictures), traced, path)


def _read(traced: Traced) -> openvino.Model:
    from falconet.deploy.onnx_format import translated

    # What convert_model does to such a file, without its message home.
    return _core().read_model(translated(traced).SerializeToString())


def _save(model: openvino.Model, traced: Traced, path: Path) -> None:
    model.set_rt_info(traced.description, NAME)
    openvino.save_model(model, path, compress_to_fp16=False)


def read(path: Path) -> str | None:
    """Return what the file says of itself."""
    model = _core().read_model(path)
    found = (str(model.get_rt_info(name).value) for name in NAMES if model.has_rt_info(name))
    return next(found, None)


def start(path: Path, outputs: Sequence[str], *, threads: int) -> Run:
    """Compile the file for the CPU; what other outputs would need is not computed."""
    core = _core()
    model = core.read_model(path)
    both = zip(model.get_results(), model.outputs, strict=True)
    results = [result for result, output in both if output.names & {*outputs}]
    options = {
        # By itself OpenVINO takes bfloat16 where the processor has it, which moves scores visibly.
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': threads,
    }
    part: Any = openvino.Model
    compiled = core.compile_model(part(results, model.get_parameters()), 'CPU', options)

    one_at_a_time = Lock()  # it refuses a second thread while it computes

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        with one_at_a_time:
            found = compiled({INPUT: pictures})
        return {name: found[name] for name in outputs}

    return run
