"""Small `.tflite` files, written operator by operator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

FLOAT32, INT32 = 0, 2
TYPES = {np.dtype(np.float32): FLOAT32, np.dtype(np.int32): INT32}


class Small:
    """A graph with one input and one output, to which operators are added one behind the other.

    Args:
        shape: of the input, float32.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]

        self.schema: Any = schema
        self.model: Any = schema.ModelT()
        self.graph: Any = schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.last = self.tensor(shape)
        self.graph.inputs = [self.last]

    def tensor(self, shape: Sequence[int], values: np.ndarray | None = None) -> int:
        """Add a tensor, constant where it has values, and return its number."""
        made = self.schema.TensorT()
        made.shape, made.name = np.array(shape, np.int32), f'tensor_{len(self.graph.tensors)}'.encode()
        if values is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            made.type, made.buffer = TYPES[values.dtype], len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def add(
        self, kind: int, name: str, shape: Sequence[int], *others: np.ndarray | int, **options: Any
    ) -> int:
        """Add an operator that reads the last tensor and others; return the number of what it makes."""
        code, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), 1
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, f'{name}Options')
        operator.builtinOptions = getattr(self.schema, f'{name}OptionsT')()
        for key, value in options.items():
            setattr(operator.builtinOptions, key, value)
        inputs = [each if isinstance(each, int) else self.tensor(each.shape, each) for each in others]
        operator.inputs, self.last = [self.last, *inputs], self.tensor(shape)
        operator.outputs = [self.last]
        self.graph.operators.append(operator)
        return self.last

    def convolve(self, shape: Sequence[int], weight: np.ndarray, bias: np.ndarray) -> int:
        """Add a convolution of stride 1 padded to the same size, weight (O, h, w, I)."""
        return self.add(3, 'Conv2D', shape, weight, bias, strideW=1, strideH=1)

    def pack(self) -> bytes:
        """Return the file's content; the last tensor is the output."""
        import flatbuffers

        self.graph.outputs = [self.last]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b'TFL3')
        return bytes(builder.Output())


@pytest.fixture
def small() -> type[Small]:
    """The class above, or the test is skipped."""
    pytest.importorskip('ai_edge_litert', reason='LiteRT is not installed; make test-export does')
    return Small
