"""The formats that programs are written in: what each is called, ends in and needs.

A format is a module with three functions:

    write(traced, path)         one file, or two that belong together, at `path`
    read(path) -> text          what the file says of itself, or None
    start(path, outputs, threads=) -> run      run(pictures) -> {name: array}
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.export import ExportedProgram

from falconet.core.errors import UserError, closest
from falconet.deploy.program import Program

INPUT = 'pictures'
BATCH = 'batch'
# RGB uint8 (B, H, W, 3) -> arrays by name.
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


class Traced(NamedTuple):
    """A program as torch.export has it.

    Attributes:
        program: takes `pictures`, uint8 (B, H, W, 3), and returns tensors by name.
        outputs: their names, in order.
        description: JSON of a `deploy.description.Description`.
        shape: of an example of `pictures`.
    """

    program: ExportedProgram
    outputs: tuple[str, ...]
    description: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: as after `--to`; also the extra of setup.cfg that brings what it needs.
        ending: of its files.
        needs: modules that must be importable to write it.
        runs_on: those that must be to run it.
        fixed: it takes pictures of one size, and a number of them that is fixed, by default 1; its whole
            numbers have 32 bits.
        hint: how to install what it needs, where the extra alone does not do.
        int8: modules that must be importable to write it in INT8, by a function `write_int8(traced, path,
            pictures)`; None where there is no INT8.
        apples: it runs on Apple's systems only.
    """

    name: str
    ending: str
    needs: tuple[str, ...] = ()
    runs_on: tuple[str, ...] = ()
    fixed: bool = False
    hint: str = ''
    int8: tuple[str, ...] | None = None
    apples: bool = False

    @property
    def runs_here(self) -> bool:
        """Whether this system can run its files at all."""
        return sys.platform == 'darwin' or not self.apples

    def module(self, *, writing: bool = False, int8: bool = False) -> Any:
        """Return the module of the format.

        Raises:
            UserError: what it needs is not installed, or it is to be INT8 and the format has none.
        """
        if int8 and self.int8 is None:
            able = ', '.join(each.name for each in FORMATS.values() if each.int8 is not None)
            raise UserError(f'the format {self.name} has no INT8 here; those that have: {able}')
        if lacking := [name for name in self.int8 or () if int8 and importlib.util.find_spec(name) is None]:
            raise UserError(
                f'INT8 in the format {self.name} needs {", ".join(lacking)}, not installed here: '
                "pip install -c constraints.txt -e '.[int8]'"
            )
        modules = self.needs if writing else self.runs_on
        if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
            raise UserError(
                f'{"writing" if writing else "running"} the format {self.name} needs {", ".join(missing)}, '
                f"not installed here: pip install -c constraints.txt -e '.[{self.name}]'{self.hint}"
            )
        return importlib.import_module(f'falconet.deploy.{self.name}_format')


FORMATS = {
    each.name: each
    for each in (
        Format('torch', '.pt2'),
        Format('onnx', '.onnx', ('onnx', 'onnxscript', 'onnxruntime'), ('onnx', 'onnxruntime'), int8=()),
        Format('openvino', '.xml', ('onnx', 'onnxscript', 'openvino'), ('openvino',), int8=('nncf',)),
        Format(
            'litert',
            '.tflite',
            ('litert_torch', 'ai_edge_litert'),
            ('ai_edge_litert',),
            fixed=True,
            hint="; to write it also pip install 'litert-torch==0.10.0', then, as that brings older ones, "
            'pip install -c constraints.txt typing-extensions pydantic',
            int8=('ai_edge_quantizer',),
        ),
        Format('executorch', '.pte', ('executorch',), ('executorch',), fixed=True),
        Format('coreml', '.mlpackage', ('coremltools',), ('coremltools',), fixed=True, apples=True),
    )
}


def find_format(name: str) -> Format:
    """Return the format called `name`, or raise UserError."""
    if name not in FORMATS:
        raise UserError(f'no format is called {name!r}. {closest(name, list(FORMATS))}')
    return FORMATS[name]


def format_of(path: Path) -> Format:
    """Return the format of a file by its ending, or raise UserError."""
    for each in FORMATS.values():
        if path.suffix == each.ending:
            return each
    endings = ', '.join(each.ending for each in FORMATS.values())
    raise UserError(f'{path} is no exported program: those end in {endings}')


def trace(program: Program, description: str, *, batch: int | None = None) -> Traced:
    """Trace a program for any number of pictures, or for exactly `batch`."""
    # Two, because torch.export takes one for a constant.
    shapes = {INPUT: {0: torch.export.Dim(BATCH)}} if batch is None else None
    if program.any_size:
        shapes = {INPUT: {1: torch.export.Dim('height', min=1), 2: torch.export.Dim('width', min=1)}}
    with torch.no_grad():
        traced = torch.export.export(program, (program.blank(batch or 2),), dynamic_shapes=shapes)
        outputs = tuple(program(program.blank(1)))
    traced.example_inputs = None
    for node in traced.graph.nodes:
        for note in ('stack_trace', 'nn_module_stack', 'torch_fn'):  # the first names folders of this machine
            node.meta.pop(note, None)
    return Traced(traced, outputs, description, (*program.blank(batch or 2).shape,))
