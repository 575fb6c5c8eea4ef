"""A model's network in OpenVINO, for evaluating and predicting on a CPU: what torch says, in less time.

Only what the head's `forward` returns comes from OpenVINO; decoding and placing stay where they are. The
first batch is computed by both and compared, and where they do not agree torch goes on alone. What was
converted is kept in the user's cache folder, by the model's content.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from falconet.core.errors import UserError
from falconet.deploy.parity import LIMITS, relative
from falconet.deploy.program import Program, named, unnamed
from falconet.tasks.model import VisionModel

# Pictures for each thread from which on converting and compiling costs less than it gives.
ENOUGH = 100
PART = 8  # pictures that a thread computes at a time: their maps stay near the processor
Say = Callable[[str], Any]


def quicken(model: Any, pictures: int | None, say: Say) -> None:
    """Have a model's `predict` computed by such a network, where that is the better choice.

    Args:
        model: of `checkpoints.load.load_model`; exported programs have engines of their own.
        pictures: how many will be predicted; None for many.
        say: told which engine computes, once that is known.
    """
    many = ENOUGH * torch.get_num_threads()
    if isinstance(model, VisionModel):
        network = quick_network(model, many if pictures is None else pictures, say)
        model.predictor.network = network or model.predictor.network


def quick_network(model: VisionModel, pictures: int, say: Say) -> 'QuickNetwork | None':
    """Return a network that computes what `model.infer` does, or None where torch alone is the better choice.

    That is: without OpenVINO, on a GPU, for few pictures, or where their size differs from one to the next.

    Args:
        model: in evaluation mode; must not be trained any further.
        pictures: how many will be computed.
        say: told which engine computes, once that is known.
    """
    if model.device.type != 'cpu' or pictures < ENOUGH * torch.get_num_threads():
        return None
    if importlib.util.find_spec('openvino') is None:
        return None
    return QuickNetwork(model, say)


class QuickNetwork:
    """A network for `tasks.predictor.Predictor`: RGB uint8 (B, 3, H, W) -> what the head's `forward` returns.

    Attributes:
        is_the_model: its answers are the model's own, to the tolerance of `deploy.parity.LIMITS`.
    """

    is_the_model = True

    def __init__(self, model: VisionModel, say: Say) -> None:
        self._model, self._say = model, say
        self._run: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
        self._tried = False
        self._nest: Any = None

    def __call__(self, images: Tensor) -> Any:
        if not self._tried:
            self._tried = True
            return self._first(images)
        if self._run is None:
            return self._model.infer(images)
        found = self._run(_pictures(images))
        return unnamed({name: torch.from_numpy(each) for name, each in found.items()}, self._nest)

    def _first(self, images: Tensor) -> Any:
        """Compute by torch, and see whether OpenVINO says the same."""
        outputs = self._model.infer(images)
        try:
            program = Program(self._model, raw=True)
        except UserError:  # pictures of several sizes
            return outputs
        expected = {name: each.detach().float().cpu().numpy() for name, each in named(outputs).items()}
        pictures, apart, run = _pictures(images), float('inf'), None
        before = cached(program).exists()
        # What was kept may be damaged, or of an earlier version of the network's code.
        for kept in (True, False) if before else (False,):
            try:
                run = _compile(program, tuple(expected), kept=kept)
                found = run(pictures)
                apart = max(relative(each, found[name]) for name, each in expected.items())
            except Exception as error:  # whatever it cannot convert, torch computes
                if kept and before:
                    continue
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self._say(f'engine: torch (OpenVINO cannot take this network: {reason})')
                return outputs
            if apart <= LIMITS['outputs']:
                break
        limit = LIMITS['outputs']
        many = f'{len(images)} pictures' if len(images) > 1 else 'picture'
        if apart <= limit:
            self._run, self._nest = run, program.nest
            version = importlib.metadata.version('openvino')
            self._say(
                f'engine: OpenVINO {version}; on the first {many} within {apart:.1g} of torch (allowed '
                f'{limit:g} of the largest output)'
            )
        else:
            self._say(f'engine: torch; OpenVINO differs by {apart:.1g} on the first {many}')
        return outputs


def _pictures(images: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _compile(
    program: Program, names: tuple[str, ...], *, kept: bool
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from RGB uint8 (B, H, W, 3) to outputs by name."""
    from openvino import AsyncInferQueue

    from falconet.deploy.openvino_format import _core as core

    path = cached(program)
    if not (kept and path.exists()):
        _convert(program, path)
    threads = torch.get_num_threads()
    # Every thread a part of the batch of its own: they have nothing to wait for.
    options = {
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': threads,
    }
    compiled = core().compile_model(core().read_model(path), 'CPU', options)
    # What depends on no picture, as default boxes do, is the same in every part.
    own = [output.partial_shape[0].is_dynamic for output in compiled.outputs]
    queue, one_at_a_time = AsyncInferQueue(compiled, threads), Lock()

    def keep(request: Any, part: tuple[list[list[np.ndarray]], int]) -> None:
        found, place = part
        # The next part writes into the same memory.
        found[place] = [np.array(request.get_output_tensor(index).data) for index in range(len(names))]

    queue.set_callback(keep)

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        size = min(PART, math.ceil(len(pictures) / threads))
        parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        found: list[list[np.ndarray]] = [[] for _ in parts]
        with one_at_a_time:  # threads of the caller's would wait for each other's parts
            for place, part in enumerate(parts):
                queue.start_async([part], (found, place), share_inputs=True)
            queue.wait_all()
        return {
            name: np.concatenate([each[index] for each in found]) if own[index] else found[0][index]
            for index, name in enumerate(names)
        }

    return run


def cached(program: Program) -> Path:
    """Return where a program's conversion is kept: by weights, structure and versions of the libraries."""
    versions = [importlib.metadata.version(name) for name in ('openvino', 'torch')]
    key = hashlib.sha256(json.dumps([*versions, str(program), program.picture]).encode())
    for name, each in program.state_dict().items():
        key.update(f'{name} {tuple(each.shape)}'.encode())
        key.update(each.cpu().contiguous().numpy().tobytes())
    base = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    return base / 'falconet' / f'network_{key.hexdigest()}' / 'network.xml'


def _convert(program: Program, path: Path) -> None:
    """Write a program as OpenVINO's, whole or not at all.

    By torch's tracing and not by torch.export, which takes seven times as long: here it is compared at once.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
            return (*self.program(pictures).values(),)

    blank = program.blank(2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # sizes become constants, which they are
        traced: Any = torch.jit.trace(Outputs().eval(), (blank,), check_trace=False)
        front: Any = FrontEndManager().load_by_framework('pytorch')
        decoder: Any = TorchScriptPythonDecoder(traced, example_input=(blank,))  # must outlive its use
        model = front.convert(front.load(decoder))
    model.reshape([-1, *blank.shape[1:]])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        scratch = Path(folder) / path.name
        openvino.save_model(model, scratch, compress_to_fp16=False)
        for each in (scratch.with_suffix('.bin'), scratch):  # the one that is looked for last
            each.replace(path.parent / each.name)
