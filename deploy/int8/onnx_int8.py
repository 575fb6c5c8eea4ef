"""INT8 of ONNX models, by ONNX Runtime: QuantizeLinear and DequantizeLinear around each operator."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from falconet.deploy.formats import INPUT
from falconet.deploy.int8.inside import Step, last_of, network_of
from falconet.deploy.int8.ranges import Ranges

PRODUCTS = ('Gemm', 'MatMul')


def quantised(model: onnx.ModelProto, pictures: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Return a model in INT8: weights by output channel, maps in unsigned bytes.

    Args:
        model: in float32.
        pictures: batches as it takes them, RGB uint8 (B, H, W, 3).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    batches = list(pictures)
    inferred = onnx.shape_inference.infer_shapes(model)
    steps = steps_of(inferred)
    network = network_of(steps)
    measured = _measured(inferred, network, batches)

    class One(CalibrationDataReader):
        """One batch: it asks for some, though all ranges are given."""

        def __init__(self) -> None:
            self._left = iter(batches[:1])

        def get_next(self) -> Any:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch}

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to have shapes inferred by a tool of its own
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'int8.onnx'
            quantize_static(
                inferred,
                path,
                One(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=network,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={'TensorQuantOverrides': measured},
            )
            found = onnx.load(path)
    finally:
        logging.disable(before)
    last = last_of(steps)
    said = {name for step in steps if step.name in last for name in step.outputs}
    # As the quantizer calls what was an output of the graph.
    _unround(found, said | {f'{name}_QuantizeLinear_Input' for name in said})
    del found.graph.value_info[:]
    onnx.checker.check_model(found)
    return found


def steps_of(model: onnx.ModelProto) -> list[Step]:
    """Return the operators, in order."""
    known = {each.name for each in model.graph.initializer}
    steps = []
    for node in model.graph.node:
        if node.op_type == 'Constant' or all(name in known for name in node.input):
            known.update(node.output)
            continue
        kind = 'convolution' if node.op_type == 'Conv' else ''
        if node.op_type in PRODUCTS and any(name in known for name in node.input[:2]):
            kind = 'product'
        steps.append(Step(node.name, kind, [*node.input], [*node.output]))
    return steps


def _unround(model: onnx.ModelProto, tensors: set[str]) -> None:
    """Take away the rounding of tensors: who read them rounded reads them as they are."""
    rounded = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == 'QuantizeLinear' and node.input[0] in tensors
    }
    back = {
        node.output[0]: rounded[node.input[0]]
        for node in model.graph.node
        if node.op_type == 'DequantizeLinear' and node.input[0] in rounded
    }
    kept = [each for each in model.graph.node if not {*rounded, *back} & {*each.output}]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = back.get(name, name)
    outputs = {each.name for each in model.graph.output}
    for new, old in back.items():
        if new in outputs:  # the name of an output must stay
            for node in kept:
                for names in (node.input, node.output):
                    for place, name in enumerate(names):
                        names[place] = new if name == old else name
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _measured(
    model: onnx.ModelProto, network: list[str], batches: list[np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    import onnxruntime

    known = {each.name for each in model.graph.initializer}
    floats = {
        each.name
        for each in [*model.graph.value_info, *model.graph.output]
        if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    inside = {*network}
    names = dict.fromkeys(
        name
        for node in model.graph.node
        if node.name in inside
        for name in (*node.input, *node.output)
        if name in floats and name not in known
    )
    open_one = onnx.ModelProto()
    open_one.CopyFrom(model)
    has = {each.name for each in model.graph.output}
    open_one.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in has
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(
        open_one.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    ranges = Ranges()
    for batch in batches:
        ranges.see(dict(zip(names, map(np.asarray, session.run([*names], {INPUT: batch})), strict=True)))
    return {
        name: [{'rmin': np.float32(low), 'rmax': np.float32(high)}]
        for name, (low, high) in ranges.best().items()
    }
