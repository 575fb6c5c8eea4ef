"""Networks of TensorFlow whose batch norms are folded into numbered convolutions.

What reading a TFLite file's tensors in the order they run leaves: '000/CONV_2D/weight' (O, I, h, w),
'000/CONV_2D/bias', '001/DEPTHWISE_CONV_2D/weight' (O, 1, h, w), and so on. Two networks are known by it: a
classifier, and DeepLabv3 without pyramid. Both mean "SAME" padding and pixels in [-1, 1].
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from falconet.backbones.table2 import units
from falconet.backbones.weights.recognise import TORCHVISION, State

Tensors = dict[str, Tensor]
KEY = re.compile(r'(\d+)/(?:DEPTHWISE_CONV_2D|(?:POOLED_)?CONV_2D|FULLY_CONNECTED)/(?:weight|bias)')
# What follows the backbone in deeplab, by its own scopes (`deeplab/model.py`), without the pyramid.
HEAD_SCOPES = ('image_pooling', 'aspp0', 'concat_projection', 'logits/semantic')
# The branch that reads the picture's mean and the one that reads every cell: equal shapes, and converters
# let either run first.
BRANCHES = HEAD_SCOPES[:2]
POOLED_BRANCH = ('first', 'second')
# A norm that changes nothing but adds its bias, whatever its epsilon: the root of 2^16 + 0.001 rounds to 2^8.
IDENTITY_SCALE = 2.0**8


def is_folded(state: State) -> bool:
    """Whether all keys are those of numbered convolutions."""
    return bool(state) and all(KEY.fullmatch(key) for key in state)


def says_pooled(key: str) -> bool:
    """Whether a layer is known to read the picture's mean, as reading a `.tflite` itself tells."""
    return '/POOLED_' in key


def split_folded(
    state: State, *, source: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Name the numbered convolutions, and give each a batch norm that only adds the folded bias.

    The result computes what TensorFlow does with `padding='same'`. To train on from it, keep the norms as
    they are with `norm_eval=True`: statistics of a batch would undo the folding.

    Returns:
        The backbone in torchvision's keys; a linear classifier's `weight` and `bias`, or nothing; deeplab's
        head by its scopes, with the leaf names of `from_tensorflow`, or nothing. Of its two branches the
        first to run is taken for the pooled one, unless the file says so of the other.

    Raises:
        ValueError: the number of layers or their kinds are of neither network.
    """
    numbers = sorted({key.rsplit('/', 1)[0] for key in state}, key=lambda name: int(name.split('/')[0]))
    wanted = [f'{name}/{leaf}' for name in numbers for leaf in ('weight', 'bias')]
    if lost := [key for key in wanted if key not in state]:
        raise ValueError(f'{source}: of its numbered layers {", ".join(lost[:4])} is missing')
    layers = [(state[f'{name}/weight'], state[f'{name}/bias']) for name in numbers]
    parts = list(units())
    if len(layers) == len(parts) + 1:
        linear, bias = layers.pop()
        classifier, head = {'weight': linear.flatten(1), 'bias': bias}, {}
    elif len(layers) == len(parts) - 1 + len(HEAD_SCOPES):
        parts = parts[:-1]  # up to the 320-channel map
        classifier, head = {}, _name_head(layers[len(parts) :])
        head = exchange_branches(head) if says_pooled(numbers[len(parts) + 1]) else head
    else:
        raise ValueError(
            f'{source}: {len(layers)} numbered layers; a folded MobileNetV2 classifier has {len(parts) + 1}, '
            f'a DeepLabv3 without pyramid {len(parts) - 1 + len(HEAD_SCOPES)}'
        )
    backbone: dict[str, Tensor] = {}
    for name, unit, (weight, bias) in zip(numbers, parts, layers, strict=False):
        kernel = 3 if unit.role in ('stem', 'depthwise') else 1
        is_depthwise = name.endswith('/DEPTHWISE_CONV_2D')
        if weight.shape[2:] != (kernel, kernel) or is_depthwise != (unit.role == 'depthwise'):
            raise ValueError(
                f'{source}: {name} should be the {unit.role} convolution of layer {unit.layer}, its weight '
                f'has the shape {tuple(weight.shape)}: the layers are not numbered as they run'
            )
        keys = TORCHVISION.tensors(unit)
        backbone[keys['conv']] = weight
        backbone |= {keys[leaf]: value for leaf, value in adding_norm(bias).items()}
    return backbone, classifier, head


def _name_head(layers: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    head: dict[str, Tensor] = {}
    for scope, (weight, bias) in zip(HEAD_SCOPES, layers, strict=True):
        head[f'{scope}/conv.weight'] = weight
        if scope == HEAD_SCOPES[-1]:
            head[f'{scope}/conv.bias'] = bias
        else:
            head |= {f'{scope}/norm.{name}': value for name, value in adding_norm(bias).items()}
    return head


def exchange_branches(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return deeplab's head with its two 1x1 branches in each other's place."""
    first, second = BRANCHES
    other = {first: second, second: first}
    parted = {key: key.partition('/') for key in head}
    return {f'{other.get(scope, scope)}/{leaf}': head[key] for key, (scope, _, leaf) in parted.items()}


def adding_norm(bias: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a batch norm that adds `bias`, float (C,), and changes nothing else."""
    return {
        'weight': torch.full_like(bias, IDENTITY_SCALE),
        'bias': bias,
        'running_mean': torch.zeros_like(bias),
        'running_var': torch.full_like(bias, IDENTITY_SCALE**2),
    }
