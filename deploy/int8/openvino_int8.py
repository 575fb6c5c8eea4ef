"""INT8 of OpenVINO's models, by NNCF."""

import contextlib
import io
import logging
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import openvino
from openvino.passes import ConstantFolding, Manager

from falconet.deploy.formats import INPUT
from falconet.deploy.int8.inside import Step, network_of

CONVOLUTIONS = ('Convolution', 'GroupConvolution')
NO_STEPS = ('Constant', 'Parameter', 'Result')


def quantised(model: openvino.Model, pictures: Iterable[np.ndarray]) -> openvino.Model:
    """Return a model in INT8: weights by output channel, maps of depthwise convolutions by channel.

    Args:
        model: in float32; sizes that do not depend on the input are computed in it for good.
        pictures: batches as it takes them, RGB uint8 (B, H, W, 3).
    """
    os.environ.setdefault('NNCF_CI', '1')  # or it sends a message home
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    batches = list(pictures)
    network = {*network_of(steps_of(model))}
    outside = [
        each.get_friendly_name()
        for each in model.get_ordered_ops()
        if each.get_type_name() not in NO_STEPS and each.get_friendly_name() not in network
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # its bars
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {INPUT: batch}),
            subset_size=len(batches),
            # Asymmetric ranges of maps: what follows ReLU6 has no negative half.
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
            ),
        )


def steps_of(model: openvino.Model) -> list[Step]:
    """Return the operators that compute, in order."""
    steps = []
    for each in model.get_ordered_ops():
        if each.get_type_name() in NO_STEPS:
            continue
        sources: list[Any] = [port.get_source_output().get_node() for port in each.inputs()]
        kind = 'convolution' if each.get_type_name() in CONVOLUTIONS else ''
        if each.get_type_name() == 'MatMul' and any(map(_is_constant, sources)):
            kind = 'product'
        name = each.get_friendly_name()
        steps.append(Step(name, kind, [source.get_friendly_name() for source in sources], [name]))
    return steps


def _is_constant(node: Any) -> bool:
    """Whether a value is known before any picture comes: a constant, or one reshaped or transposed."""
    while node.get_type_name() in ('Transpose', 'Reshape', 'Convert') and node.inputs():
        node = node.input(0).get_source_output().get_node()
    return node.get_type_name() == 'Constant'
