"""TensorFlow's deeplab with batch norms folded into the convolutions, as converters to TFLite leave it.

Such a file numbers its convolutions in the order they run ('000/CONV_2D/weight', ...) and names nothing else.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from backbones.table2 import units
from backbones.weights.layouts import LAYOUTS

# What follows the backbone, by deeplab's own scopes (`deeplab/model.py`), without the pyramid.
HEAD_SCOPES = ('image_pooling', 'aspp0', 'concat_projection', 'logits/semantic')
# A norm that changes nothing but adds its bias, whatever its epsilon: the root of 2^16 + 0.001 rounds to 2^8.
IDENTITY_SCALE = 2.0**8


def is_folded_deeplab(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a folded DeepLabv3 over MobileNetV2 without pyramid."""
    return len(state) == 2 * (len(_backbone_units()) + len(HEAD_SCOPES)) and '000/CONV_2D/weight' in state


def split_folded_deeplab(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Name the numbered convolutions, and give each a batch norm that only adds the folded bias.

    The result computes what TensorFlow does with `padding='same'`. To train on from it, keep the norms as
    they are with `norm_eval=True`: statistics of a batch would undo the folding.

    Returns:
        The backbone in torchvision's keys; and the head's tensors by deeplab's scopes, with the leaf names of
        `backbones.weights.split.from_tensorflow`.
    """
    backbone: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    parts = _backbone_units()
    for place, number in enumerate(sorted({key.rsplit('/', 1)[0] for key in state})):
        weight, bias = state[f'{number}/weight'], state[f'{number}/bias']
        if place < len(parts):
            keys = LAYOUTS['torchvision'].tensors(parts[place])
            backbone[keys['conv']] = weight
            backbone |= {keys[name]: value for name, value in adding_norm(bias).items()}
            continue
        scope = HEAD_SCOPES[place - len(parts)]
        head[f'{scope}/conv.weight'] = weight
        if scope == HEAD_SCOPES[-1]:
            head[f'{scope}/conv.bias'] = bias
        else:
            head |= {f'{scope}/norm.{name}': value for name, value in adding_norm(bias).items()}
    return backbone, head


def adding_norm(bias: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a batch norm that adds `bias`, float (C,), and changes nothing else."""
    return {
        'weight': torch.full_like(bias, IDENTITY_SCALE),
        'bias': bias,
        'running_mean': torch.zeros_like(bias),
        'running_var': torch.full_like(bias, IDENTITY_SCALE**2),
    }


def _backbone_units() -> list:
    """The convolutions up to the 320-channel map, in the order they run."""
    return [unit for unit in units(1.0) if unit.role != 'last']
