"""The format Core ML: a `.mlpackage` folder for apps on iOS 17, macOS 14 and later.

Written by coremltools from torch.export's trace, anywhere; run on Apple's systems only. Its input is a
picture (CVPixelBuffer, as a camera or a decoder gives it) of the height and width of `pictures`, which the
system brings to RGB. What names classes and task is one of the file's user-defined metadata.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from falconet.core.errors import UserError
from falconet.core.names import NAME, NAMES
from falconet.deploy.formats import INPUT, Run, Traced
from falconet.deploy.plain_operators import in_plain_operators


class PictureIn(nn.Module):
    """A traced program that takes a picture as Core ML has it, float32 (1, 3, H, W) in 0..255."""

    def __init__(self, traced: Traced) -> None:
        super().__init__()
        program: Any = in_plain_operators(traced.program).module(check_guards=False)
        for node in list(program.graph.nodes):
            # The trace makes sure of uint8, which coremltools has no pictures of.
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                program.graph.erase_node(node)
        program.recompile()
        self.program = program
        self.outputs = traced.outputs

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in order; Core ML has 32 bits for whole numbers."""
        # In memory as when it was traced: views within the network depend on it.
        found = self.program(picture.permute(0, 2, 3, 1).contiguous())
        return tuple(
            found[name] if found[name].is_floating_point() else found[name].int() for name in self.outputs
        )


def write(traced: Traced, path: Path) -> None:
    """Write a `.mlpackage`, with float32 weights.

    Raises:
        UserError: of several pictures at a time.
    """
    import coremltools  # type: ignore[import-not-found]

    batch, height, width, _ = traced.shape
    if batch != 1:
        raise UserError(f'the format coreml takes one picture at a time, not {batch}: leave --batch out')
    example = (torch.zeros(1, 3, height, width),)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter('ignore')
        program = torch.export.export(PictureIn(traced), example)
        # coremltools knows no alias, which is the tensor itself.
        program = program.run_decompositions({torch.ops.aten.alias.default: lambda tensor: tensor})
        model: Any = coremltools.convert(
            program,
            inputs=[
                coremltools.ImageType(
                    name=INPUT, shape=example[0].shape, color_layout=coremltools.colorlayout.RGB
                )
            ],
            outputs=[coremltools.TensorType(name=name) for name in traced.outputs],
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
        model.user_defined_metadata[NAME] = traced.description
        model.short_description = (
            'made by Falconet; user-defined metadata "falconet" says what goes in and out'
        )
        model.save(str(path))


def read(path: Path) -> str | None:
    """Return what the file says of itself."""
    metadata = package(path).user_defined_metadata
    return next((metadata[name] for name in NAMES if name in metadata), None)


def package(path: Path, *, ready: bool = False) -> Any:
    """Open the package; `ready` to run."""
    import coremltools  # type: ignore[import-not-found]

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return coremltools.models.MLModel(str(path), skip_model_load=not ready)


def start(path: Path, outputs: Sequence[str], *, threads: int) -> Run:
    """Open the package in Core ML, which chooses its own `threads`.

    Raises:
        UserError: not on a Mac.
    """
    if sys.platform != 'darwin':
        raise UserError(
            f"{path} runs on Apple's systems only, so nothing here was compared with the checkpoint: take "
            'the .onnx of the same checkpoint for scores, or open it on a Mac'
        )
    from PIL import Image

    model = package(path, ready=True)

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        found = [model.predict({INPUT: Image.fromarray(each)}) for each in pictures]
        return {name: np.concatenate([each[name] for each in found]) for name in outputs}

    return run
