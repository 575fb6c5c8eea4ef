"""INT8 of `.tflite` files, by ai-edge-quantizer, with ranges of our own."""

import contextlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from falconet.deploy.int8.inside import Step, last_of, network_of
from falconet.deploy.int8.ranges import Ranges

CONVOLUTIONS = ('CONV_2D', 'DEPTHWISE_CONV_2D', 'TRANSPOSE_CONV')
PRODUCTS = ('FULLY_CONNECTED',)
# Of what stands between convolutions, what the quantizer and LiteRT's kernels know in eight bits.
QUANTISED = (
    *('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED', 'ADD', 'SUB', 'MUL', 'PAD', 'PADV2', 'MEAN'),
    *('AVERAGE_POOL_2D', 'MAX_POOL_2D', 'CONCATENATION', 'RESHAPE', 'TRANSPOSE', 'RESIZE_BILINEAR'),
    *('RESIZE_NEAREST_NEIGHBOR', 'RELU', 'LOGISTIC', 'TANH', 'HARD_SWISH', 'SLICE', 'STRIDED_SLICE', 'SPLIT'),
)
FLOAT32 = 0  # schema.fbs: TensorType


def quantised(content: bytes, pictures: Iterable[np.ndarray], *, all_maps: bool = False) -> bytes:
    """Return a file's content in INT8: weights by output channel, maps by tensor.

    Args:
        content: of a `.tflite` file in float32, with one signature.
        pictures: batches as it takes them, RGB uint8 (B, H, W, 3).
        all_maps: round what last layers say of a map's cells, too. In float32 they need the map that they
            read in float32 as well: four times the bytes. What they say of a vector stays in float32.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]
    from ai_edge_litert.tools import flatbuffer_utils  # type: ignore[import-not-found]
    from ai_edge_quantizer import quantizer  # type: ignore[import-not-found]

    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    # Operators are told apart by the name of what they compute, searched for as part of a longer one.
    for place, tensor in enumerate(graph.tensors):
        tensor.name = f'tensor_{place};'.encode()
    kinds: list[Any] = [flatbuffer_utils.opcode_to_name(model, each.opcodeIndex) for each in graph.operators]
    steps = [
        Step(
            str(place),
            'convolution' if kind in CONVOLUTIONS else 'product' if kind in PRODUCTS else '',
            [str(each) for each in operator.inputs],
            [str(each) for each in operator.outputs],
        )
        for place, (kind, operator) in enumerate(zip(kinds, graph.operators, strict=True))
    ]
    network = [int(name) for name in network_of(steps)]
    last = {int(name) for name in last_of(steps)}
    if all_maps:
        last = {each for each in last if _cells(graph.tensors[graph.operators[each].inputs[0]]) == 1}
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), b'TFL3')
    named = bytes(builder.Output())
    tensors = sorted(
        {
            int(each)
            for place in network
            for each in (*graph.operators[place].inputs, *graph.operators[place].outputs)
            if each >= 0
            and graph.tensors[each].type == FLOAT32
            and model.buffers[graph.tensors[each].buffer].data is None
        }
    )
    measured = {
        f'tensor_{place};': {
            'min': np.full([1] * len(graph.tensors[place].shape), low, np.float32),
            'max': np.full([1] * len(graph.tensors[place].shape), high, np.float32),
        }
        for place, (low, high) in _ranges(named, tensors, pictures).items()
    }
    recipe = _recipe(
        (f'tensor_{graph.operators[place].outputs[0]};', kinds[place], place in last)
        for place in network
        if kinds[place] in QUANTISED
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work: Any = quantizer.Quantizer(bytearray(named))
        work.load_quantization_recipe(recipe)
        return bytes(work.quantize(measured, enable_progress_report=False).quantized_model)


def _cells(tensor: Any) -> int:
    """Return how many cells a map (1, H, W, C) has, a vector (1, C) one."""
    return int(np.prod([int(side) for side in tensor.shape[1:-1]]))


def _recipe(operators: Iterable[tuple[str, str, bool]]) -> Any:
    """Return a recipe for operators by output and kind; of the last ones only weights are INT8."""
    from ai_edge_quantizer import qtyping, recipe_manager  # type: ignore[import-not-found]

    recipes: Any = recipe_manager.RecipeManager()
    for output, kind, is_last in operators:
        name = getattr(qtyping.TFLOperationName, kind)
        if is_last:
            recipes.add_dynamic_config(regex=output, operation_name=name, num_bits=8)
            continue
        recipes.add_static_config(
            regex=output,
            operation_name=name,
            activation_num_bits=8,
            weight_num_bits=8,
        )
    return recipes.get_quantization_recipe()


def _ranges(
    content: bytes, tensors: list[int], pictures: Iterable[np.ndarray]
) -> dict[int, tuple[float, float]]:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    interpreter: Any = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    ranges = Ranges()
    for batch in pictures:
        interpreter.set_tensor(given['index'], batch)
        interpreter.invoke()
        ranges.see({str(place): interpreter.get_tensor(place) for place in tensors})
    return {int(name): each for name, each in ranges.best().items()}
