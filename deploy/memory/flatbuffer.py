"""Reading and changing `.tflite` files (TensorFlow's `schema.fbs`), and the memory that their order needs.

LiteRT and TFLite-Micro run the operators of a file in the order in which they stand there, and plan their
memory by it.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from falconet.deploy.memory.packing import ALIGNMENT, Lifetime, packed

# Bytes of a number by TensorFlow's type: float32, float16, int32, uint8, int64, bool, int16, int8.
BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1}
DTYPES = {0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 7: np.int16, 9: np.int8}
INT32 = 2
CONVOLVE, DEPTHWISE, PAD, SLICE, TRANSPOSE = 3, 4, 34, 65, 39  # BuiltinOperator
SAME, VALID = 0, 1
PLANNED = b'planned/'  # begins the names of tensors that plans add


class File:
    """A `.tflite` file's first graph, opened for changes.

    Args:
        content: of the file.
    """

    RELU6 = 3

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]

        self._schema: Any = schema
        self.model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        for buffer in self.model.buffers:  # large files keep values behind the flatbuffer itself
            if buffer.offset > 1:
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        self.graph: Any = self.model.subgraphs[0]
        self._size = len(content)
        self._numbers: dict[tuple[int, ...], int] = {}
        self._moved: dict[int, int] = {}
        self._makers = {int(each.outputs[0]): each for each in self.graph.operators}
        self._readers: dict[int, list[Any]] = {}
        for operator in self.graph.operators:
            for each in operator.inputs:
                self._readers.setdefault(int(each), []).append(operator)

    def pack(self) -> bytes:
        """Return the content as it is now, without what nothing reads."""
        import flatbuffers

        self._drop_unread()
        builder = flatbuffers.Builder(self._size + 1024)
        builder.Finish(self.model.Pack(builder), b'TFL3')
        return bytes(builder.Output())

    def kind(self, operator: Any) -> int:
        """Return the BuiltinOperator of an operator."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def convolutions(self) -> list[Any]:
        """Return all convolutions, in order."""
        return [each for each in self.graph.operators if self.kind(each) in (CONVOLVE, DEPTHWISE)]

    def maker(self, tensor: int) -> Any:
        """Return the operator that made a tensor when the file was opened."""
        return self._makers[int(tensor)]

    def readers(self, tensor: int) -> list[Any]:
        """Return the operators that read a tensor when the file was opened."""
        return self._readers.get(int(tensor), [])

    def tensor(self, number: int) -> Any:
        """Return a tensor's description."""
        return self.graph.tensors[int(number)]

    def is_constant(self, number: int) -> bool:
        """Say whether the file holds a tensor's values; so it does where there is none, -1."""
        if int(number) < 0:
            return True
        data = self.model.buffers[self.tensor(number).buffer].data
        return data is not None and len(data) > 0

    def values(self, number: int) -> np.ndarray:
        """Return a constant."""
        tensor = self.tensor(number)
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        shape = tensor.shape if tensor.shape is not None else ()
        return np.frombuffer(data.tobytes(), DTYPES[tensor.type]).reshape([int(side) for side in shape])

    def new_tensor(self, like: int, shape: Sequence[int], name: str) -> int:
        """Add a tensor of another's type and scale, without values, and return its number."""
        made = copy.copy(self.tensor(like))
        made.shape, made.shapeSignature, made.buffer = np.array(shape, np.int32), None, 0
        made.name = f'planned/{name}_{len(self.graph.tensors)}'.encode()
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def numbers(self, values: Sequence[int], shape: tuple[int, ...] | None = None) -> int:
        """Return the number of a constant of whole numbers, added where it is missing."""
        key = (*(shape or (len(values),)), -1, *values)
        if key not in self._numbers:
            tensor = self._schema.TensorT()
            tensor.type, tensor.quantization = INT32, None
            self._numbers[key] = self._add(tensor, np.array(values, np.int32).reshape(shape or -1), 'numbers')
        return self._numbers[key]

    def changed(
        self,
        number: int,
        *,
        cut: tuple[int, int, int] | None = None,
        turned: Sequence[int] = (),
        zero: bool = False,
    ) -> int:
        """Add a constant made of another: `cut` = (axis, first, end) of it, `turned` along axes, or zeros."""
        tensor, values = copy.copy(self.tensor(number)), self.values(number)
        if turned:
            values = np.flip(values, (*turned,))
        if zero:
            values = np.zeros_like(values)
        if cut is not None:
            axis, first, end = cut
            values = np.take(values, np.arange(first, end), axis=axis)
            scales: Any = tensor.quantization
            along = 0 if scales is None or scales.scale is None else len(scales.scale)
            if scales is not None and along > 1 and scales.quantizedDimension == axis:
                scales = copy.copy(scales)
                tensor.quantization = scales
                scales.scale = scales.scale[first:end]
                scales.zeroPoint = scales.zeroPoint[first:end]
        return self._add(tensor, values, 'weights')

    def channels_last(self, number: int) -> int:
        """Return a constant of three channels, (1, 3, 1, 1), as one of (1, 1, 1, 3)."""
        if number < 0 or [int(each) for each in self.tensor(number).shape] != [1, 3, 1, 1]:
            return number
        if number not in self._moved:
            tensor, values = copy.copy(self.tensor(number)), self.values(number)
            self._moved[number] = self._add(tensor, values.reshape(1, 1, 1, 3), 'channels')
        return self._moved[number]

    def new_operator(self, kind: int, name: str, inputs: Sequence[int], output: int, **options: Any) -> Any:
        """Return an operator of a kind, `name` being that of its options in the schema."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(kind)
        operator.inputs, operator.outputs = [*inputs], [output]
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, f'{name}Options')
        operator.builtinOptions = getattr(self._schema, f'{name}OptionsT')()
        for key, value in options.items():
            setattr(operator.builtinOptions, key, value)
        return operator

    def simplify(self) -> None:
        """Take out operators whose results nothing reads, and transpositions that undo each other."""
        while True:
            graph = self.graph
            makers = {int(each.outputs[0]): each for each in graph.operators}
            read = {int(each) for each in graph.outputs}
            read |= {int(each) for operator in graph.operators for each in operator.inputs}
            renamed = {}
            for operator in graph.operators:
                before = makers.get(int(operator.inputs[0])) if len(operator.inputs) else None
                if before is None or {self.kind(operator), self.kind(before)} != {TRANSPOSE}:
                    continue
                order, first = self.values(operator.inputs[1]), self.values(before.inputs[1])
                if [int(first[each]) for each in order] == [*range(len(order))]:
                    renamed[int(operator.outputs[0])] = int(before.inputs[0])
            for operator in graph.operators:
                operator.inputs = [renamed.get(int(each), int(each)) for each in operator.inputs]
            kept = [
                each
                for each in graph.operators
                if any(int(made) in read for made in each.outputs) and int(each.outputs[0]) not in renamed
            ]
            if len(kept) == len(graph.operators):
                return
            graph.operators = kept

    def _code(self, kind: int) -> int:
        for place, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == kind:
                code.version = max(code.version, 2)
                return place
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), 2
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _add(self, tensor: Any, values: np.ndarray, name: str) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        tensor.shape, tensor.shapeSignature = np.array(values.shape, np.int32), None
        tensor.buffer, tensor.name = len(self.model.buffers), f'planned/{name}_{len(self.graph.tensors)}'
        tensor.name = tensor.name.encode()
        self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _drop_unread(self) -> None:
        """Empty the buffers of constants that no operator reads, and drop the tensors."""
        used = {int(each) for each in (*self.graph.inputs, *self.graph.outputs)}
        for operator in self.graph.operators:
            used |= {int(each) for each in (*operator.inputs, *operator.outputs)}
        kept = [number for number in range(len(self.graph.tensors)) if number in used]
        renamed = {old: new for new, old in enumerate(kept)} | {-1: -1}
        self.graph.tensors = [self.graph.tensors[number] for number in kept]
        for operator in self.graph.operators:
            operator.inputs = [renamed[int(each)] for each in operator.inputs]
            operator.outputs = [renamed[int(each)] for each in operator.outputs]
        self.graph.inputs = [renamed[int(each)] for each in self.graph.inputs]
        self.graph.outputs = [renamed[int(each)] for each in self.graph.outputs]
        for signature in self.model.signatureDefs or []:
            for each in (*signature.inputs, *signature.outputs):
                each.tensorIndex = renamed[int(each.tensorIndex)]
        read = {each.buffer for graph in self.model.subgraphs for each in graph.tensors}
        read |= {each.buffer for each in self.model.metadata or []}
        for place, buffer in enumerate(self.model.buffers):
            if place not in read:
                buffer.data = None


class Arena(NamedTuple):
    """Bytes a file needs: of LiteRT's arena; alive at the worst moment; alive in the head."""

    size: int
    alive: int
    rest: int


def arena_of(content: bytes, *, holds_input: bool = True, alignment: int = ALIGNMENT) -> Arena:
    """Return what a `.tflite` file needs by the order of its operators.

    Scratch memory of a kernel is not part of it.

    Args:
        content: of the file.
        holds_input: LiteRT never writes over a graph's input; TFLite-Micro does when it is done with.
        alignment: of tensors in the arena, in bytes.
    """
    file = File(content)
    uses: dict[int, list[int]] = {}
    others = []  # operators that no plan added
    for place, operator in enumerate(file.graph.operators):
        for each in (*operator.inputs, *operator.outputs):
            if not file.is_constant(each):
                uses.setdefault(int(each), []).append(place)
        if not file.tensor(operator.outputs[0]).name.startswith(PLANNED):
            others.append(place)
    last, found = len(file.graph.operators), {}
    for each, places in uses.items():
        tensor = file.tensor(each)
        cells = int(np.prod([int(side) for side in tensor.shape])) if tensor.shape is not None else 1
        first, end = places[0], places[-1]
        if each in file.graph.inputs:
            first, end = 0, last if holds_input else end
        found[each] = Lifetime(cells * BYTES[tensor.type], first, last if each in file.graph.outputs else end)
    alive = [
        sum(each.size for each in found.values() if each.first <= place <= each.last) for place in range(last)
    ]
    rest = max((alive[place] for place in others), default=0)
    return Arena(packed(found, alignment=alignment)[0], max(alive), rest)
