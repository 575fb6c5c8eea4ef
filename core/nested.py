"""Tensors in lists and dicts: what networks give, and batches."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def in_float32(outputs: Any) -> Any:
    """Return a tensor, or a nest of them, in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, Mapping):
        return {key: in_float32(value) for key, value in outputs.items()}
    return type(outputs)(in_float32(value) for value in outputs)


def device_of(outputs: Any) -> torch.device:
    """Return where the first tensor of a nest of them is."""
    if isinstance(outputs, Tensor):
        return outputs.device
    return device_of(next(iter(outputs.values() if isinstance(outputs, Mapping) else outputs)))


def on_device(data: Any, device: torch.device) -> Any:
    """Return tensors, or lists and dicts of them, on a device; what else is in them stays."""
    if isinstance(data, Tensor):
        return data.to(device)
    if isinstance(data, Mapping):
        return {key: on_device(value, device) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [on_device(value, device) for value in data]
    return data
