"""The format ONNX: a `.onnx` file for ONNX Runtime, and what other formats begin from.

Written by torch's exporter over torch.export. The one before it is not used: it refused a detector with
TensorFlow's padding at a batch of three, and gave DeepLab other masks without a word.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import falconet.heads.nms_op
from falconet.core.names import NAME, NAMES
from falconet.deploy.formats import INPUT, Run, Traced

assert falconet.heads.nms_op  # defines falconet::suppress

OPSET = 20
ABSENT = -3e38  # the score of what was suppressed: below any other in float32


def write(traced: Traced, path: Path) -> None:
    """Write a `.onnx` file of one piece, with float32 weights, opset 20."""
    onnx.save(translated(traced), path)


def write_int8(traced: Traced, path: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write a `.onnx` file in INT8, calibrated on batches of RGB uint8 (B, H, W, 3)."""
    from falconet.deploy.int8.onnx_int8 import quantised

    model = quantised(translated(traced), pictures)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {NAME: traced.description})
    onnx.save(model, path)


@lru_cache(maxsize=1)  # it takes seconds, and OpenVINO's format begins with it as well
def translated(traced: Traced) -> onnx.ModelProto:
    """Return a program as ONNX."""
    program = torch.onnx.export(
        traced.program,
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=list(traced.outputs),
        custom_translation_table={torch.ops.falconet.suppress.default: suppress},
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    # The exporter notes where in this machine's files each operation stands, and names sizes by numbers.
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    about = json.loads(traced.description)
    shapes = {each['name']: each['shape'] for each in (about['input'], *about['outputs'])}
    for value in [*model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
        for size, name in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if isinstance(name, str):
                size.dim_param = name
    onnx.helper.set_model_props(model, {NAME: traced.description})
    onnx.checker.check_model(model)
    return model


def read(path: Path) -> str | None:
    """Return what the file says of itself."""
    metadata = {entry.key: entry.value for entry in _load(path).metadata_props}
    return next((metadata[name] for name in NAMES if name in metadata), None)


def start(path: Path, outputs: Sequence[str], *, threads: int) -> Run:
    """Open the file in ONNX Runtime, on the CPU; what other outputs would need is not computed."""
    import onnxruntime

    model = _load(path)
    kept = [each for each in model.graph.output if each.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # As bytes: then it cannot name other files to be read.
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        found = session.run(list(outputs), {INPUT: pictures})
        return dict(zip(outputs, map(np.asarray, found), strict=True))

    return run


def _load(path: Path) -> Any:
    return onnx.load(path, load_external_data=False)


def suppress(
    boxes: Any, scores: Any, score_threshold: float, iou_threshold: float, per_class: int, limit: int
) -> tuple[Any, Any, Any, Any]:
    """Write `falconet::suppress` as ONNX operators; see `heads.nms_op.suppress_batch`.

    Scores of boxes that NonMaxSuppression keeps go to their places among all, and the best are taken from
    there. Boxes of equal scores may come in another order.
    """
    import onnxscript

    op: Any = onnxscript.opset20  # its types do not fit each other
    count, classes = scores.shape[1], scores.shape[2]
    by_class = op.Transpose(scores, perm=[0, 2, 1])  # (B, classes, N)
    options = (
        op.Constant(value_ints=[per_class]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[score_threshold]),
    )
    kept = op.NonMaxSuppression(boxes, by_class, *options)  # (found, [image, class, box])
    nothing = op.Expand(op.Constant(value_float=ABSENT), op.Shape(by_class))
    only = op.ScatterND(nothing, kept, op.GatherND(by_class, kept))
    flat = op.Reshape(only, op.Constant(value_ints=[0, -1]))  # (B, classes * N)
    # As many as asked for, even of fewer candidates.
    lacking = max(0, limit - count * classes)
    flat = op.Pad(flat, op.Constant(value_ints=[0, 0, 0, lacking]), op.Constant(value_float=ABSENT))
    best, place = op.TopK(flat, op.Constant(value_ints=[limit]))  # (B, limit)
    found = op.Greater(best, op.Constant(value_float=ABSENT / 2))
    zero, one = op.Constant(value_int=0), op.Constant(value_ints=[1])
    box = op.Where(found, op.Mod(place, op.Constant(value_int=count)), zero)
    corners = op.GatherND(boxes, op.Unsqueeze(box, op.Constant(value_ints=[2])), batch_dims=1)
    blank = op.Constant(value_float=0.0)
    return (
        op.Where(op.Unsqueeze(found, op.Constant(value_ints=[2])), corners, blank),
        op.Where(found, best, blank),
        op.Where(found, op.Div(place, op.Constant(value_int=count)), op.Constant(value_int=-1)),
        op.ReduceSum(op.Cast(found, to=onnx.TensorProto.INT64), one, keepdims=0),
    )
