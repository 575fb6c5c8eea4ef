"""Reading the weights of a `.tflite` file, as numbered layers in the order they run; see `folded`.

Source: TensorFlow's `schema.fbs`. The graph is only read, never run: weights that are quantised or of half
precision become float32, and what the graph says of padding, input and branches is compared with what
`folded` takes for granted.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

LAYERS = ('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED')
AXES = {'CONV_2D': (0, 3, 1, 2), 'DEPTHWISE_CONV_2D': (3, 0, 1, 2), 'FULLY_CONNECTED': (0, 1)}
POOLING = ('MEAN', 'AVERAGE_POOL_2D')
# What passes a map on as it is, up to its size or its way of being stored.
PASSING = ('RESHAPE', 'RESIZE_BILINEAR', 'QUANTIZE', 'DEQUANTIZE')
INPUT_TOLERANCE = 0.02  # of an 8-bit input's range, which seldom is [-1, 1] to the last step


class Graph:
    """One graph of a TFLite file: its operators by kind, and its tensors as NumPy arrays."""

    def __init__(self, content: bytes, schema: Any) -> None:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        self.buffers, graph = model.buffers, model.subgraphs[0]
        self.tensors, self.operators, self.inputs = graph.tensors, graph.operators, graph.inputs
        kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        codes = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
        self.kinds = [kinds[codes[each.opcodeIndex]] for each in self.operators]
        types = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
        self.types = [types[each.type].lower() for each in self.tensors]
        self.makers = {int(out): number for number, each in enumerate(self.operators) for out in each.outputs}

    def constant(self, index: int) -> np.ndarray:
        """Return a tensor of the file, dequantised to float32; ValueError where it is computed."""
        tensor = self.tensors[index]
        data = self.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            maker = self.makers.get(index)
            if maker is None or self.kinds[maker] != 'DEQUANTIZE':
                raise ValueError(f'{tensor.name!r} is computed, not stored')
            return self.constant(int(self.operators[maker].inputs[0]))
        values = np.frombuffer(bytes(data), self.types[index]).reshape(tensor.shape).astype(np.float32)
        steps: Any = tensor.quantization
        if steps is None or steps.scale is None or len(steps.scale) == 0:
            return values
        shape = [1] * values.ndim
        if len(steps.scale) > 1:
            shape[steps.quantizedDimension] = -1
        zero, scale = (np.asarray(each, np.float32).reshape(shape) for each in (steps.zeroPoint, steps.scale))
        return (values - zero) * scale

    def source(self, index: int) -> int | None:
        """Return the operator that makes a tensor, past those that only pass it on; None for the input."""
        maker = self.makers.get(int(index))
        while maker is not None and self.kinds[maker] in PASSING:
            maker = self.makers.get(int(self.operators[maker].inputs[0]))
        return maker

    def is_pooled(self, number: int) -> bool:
        """Whether an operator reads the mean of a map."""
        maker = self.source(self.operators[number].inputs[0])
        return maker is not None and self.kinds[maker] in POOLING


def numbered_layers(content: bytes, schema: Any) -> dict[str, Tensor]:
    """Return a network's weights for `folded.split_folded`, in which a pooled branch is 'POOLED_CONV_2D'.

    Args:
        content: of the file.
        schema: the module `schema_py_generated` of ai-edge-litert.

    Raises:
        ValueError: the network pads otherwise than "SAME", takes pixels in another range than [-1, 1], or
            joins branches in another order; anything else for what is no such file, or half of one.
    """
    if content[4:8] != b'TFL3':
        raise ValueError('it does not begin as one')
    graph = Graph(content, schema)
    _check_input(graph)
    state: dict[str, Tensor] = {}
    layers = [number for number, kind in enumerate(graph.kinds) if kind in LAYERS]
    for place, number in enumerate(layers):
        operator, kind = graph.operators[number], graph.kinds[number]
        weight = graph.constant(int(operator.inputs[1])).transpose(AXES[kind])
        has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
        bias = graph.constant(int(operator.inputs[2])) if has_bias else np.zeros(len(weight), np.float32)
        is_wide = weight.ndim == 4 and max(weight.shape[2:]) > 1
        if is_wide and operator.builtinOptions.padding != schema.Padding.SAME:
            _check_padding(graph, number)
        pooled = 'POOLED_' if kind == 'CONV_2D' and graph.is_pooled(number) else ''
        name = f'{place:03}/{pooled}{kind}'
        state[f'{name}/weight'] = torch.from_numpy(np.ascontiguousarray(weight))
        state[f'{name}/bias'] = torch.from_numpy(bias.copy())
    for number, kind in enumerate(graph.kinds):
        if kind == 'CONCATENATION':
            first = graph.source(graph.operators[number].inputs[0])
            if first is None or graph.kinds[first] not in LAYERS or not graph.is_pooled(first):
                raise ValueError('branches are joined in another order than the pooled one first')
    return state


def _check_input(graph: Graph) -> None:
    """Raise ValueError where the graph says that its input is no picture with pixels in [-1, 1]."""
    first = next(number for number, kind in enumerate(graph.kinds) if kind in LAYERS)
    if before := set(graph.kinds[:first]) & {'ADD', 'SUB', 'MUL', 'DIV'}:
        raise ValueError(f'it prepares pixels itself ({", ".join(sorted(before))}); expected them in [-1, 1]')
    index = int(graph.inputs[0])
    tensor, kind = graph.tensors[index], graph.types[index]
    if kind in ('int8', 'uint8'):
        limits = np.array([np.iinfo(kind).min, np.iinfo(kind).max])
        low, high = (limits - tensor.quantization.zeroPoint[0]) * tensor.quantization.scale[0]
        if max(abs(low + 1), abs(high - 1)) > INPUT_TOLERANCE:
            raise ValueError(f'it takes pixels from {low:.3g} to {high:.3g}, expected -1 to 1')


def _check_padding(graph: Graph, number: int) -> None:
    """Raise ValueError unless what stands before a convolution without padding pads as "SAME" does."""
    operator = graph.operators[number]
    maker = graph.makers.get(int(operator.inputs[0]))
    kind = None if maker is None else graph.kinds[maker]
    if kind == 'SPACE_TO_BATCH_ND':
        return  # how TensorFlow writes a dilated convolution
    if maker is not None and kind in ('PAD', 'PADV2'):
        padder = graph.operators[maker]
        given = graph.constant(int(padder.inputs[1])).tolist()
        sizes = graph.tensors[int(padder.inputs[0])].shape[1:3]
        kernels = graph.tensors[int(operator.inputs[1])].shape[1:3]
        strides = (operator.builtinOptions.strideH, operator.builtinOptions.strideW)
        totals = [
            max(0, (-(-n // s) - 1) * s + k - n) for n, s, k in zip(sizes, strides, kernels, strict=True)
        ]
        if given[1:3] == [[total // 2, total - total // 2] for total in totals]:
            return
    raise ValueError(f'layer {number} does not pad as "SAME" does, so it is none of TensorFlow\'s')
