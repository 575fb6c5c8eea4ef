"""A network for prediction alone: batch norms folded into convolutions, clamps inside their loops.

In evaluation a batch norm scales and shifts each channel, which the convolution before it can do as well.
A ReLU6 after it is then done by oneDNN while it writes the convolution's output, instead of in a walk of its
own over the map. The operator for that is the one torch's compiler takes on a CPU; as it is not public, it is
tried out first, and where it is missing or says something else, the two follow each other.
"""

import copy
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from falconet.layers.conv import LenientBatchNorm2d, SamePadConv2d
from falconet.tasks.model import VisionModel

# Those that do nothing besides: timm has norms with activations inside.
CONVOLUTIONS = (nn.Conv2d, SamePadConv2d)
NORMS = (nn.BatchNorm2d, LenientBatchNorm2d)
# By the layer: an operation after a convolution, its numbers and its algorithm, in oneDNN's terms.
CLAMPS: dict[type, tuple[str, list[float], str]] = {
    nn.ReLU6: ('hardtanh', [0.0, 6.0], ''),
    nn.ReLU: ('relu', [], ''),
}


def folded(model: VisionModel) -> VisionModel:
    """Return a copy of a model that says the same, to rounding, in less time; on a GPU the model itself.

    The copy is for prediction only: it cannot be trained, and its weights are no longer a checkpoint's.
    """
    if model.device.type != 'cpu':
        return model
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for block in [each for each in copied.modules() if isinstance(each, nn.Sequential)]:
        _fold(block)
    return copied.to(memory_format=torch.channels_last)


def _fold(block: nn.Sequential) -> None:
    """Fold what can be in a sequence; what is done already becomes an identity, so places stay."""
    before: Any = None  # the convolution whose output the next module gets
    place_before = 0
    for place, module in enumerate(block):
        if type(module) in CONVOLUTIONS:
            before, place_before = module, place
        elif before is not None and type(module) in NORMS and module.running_mean is not None:
            block[place_before] = before = fuse_conv_bn_eval(before, module)  # type: ignore[type-var]  # they are
            block[place] = nn.Identity()
        elif before is not None and type(module) in CLAMPS and _takes_clamp(before):
            # The method through which a convolution computes when it has padded in its own way.
            before._conv_forward = partial(_clamped, before, CLAMPS[type(module)])
            before, block[place] = None, nn.Identity()
        else:
            before = None


def _takes_clamp(convolution: nn.Conv2d) -> bool:
    return (
        convolution.padding_mode == 'zeros'
        and not isinstance(convolution.padding, str)
        and convolution.weight.dtype == torch.float32
        and _has_operator()
    )


def _clamped(
    convolution: nn.Conv2d,
    clamp: tuple[str, list[float], str],
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Convolve and clamp in one operation."""
    where = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    return torch.ops.mkldnn._convolution_pointwise(images, weight, bias, *where, *clamp)


@cache
def _has_operator() -> bool:
    """Whether torch has the operator, and it computes what convolution and clamp do."""
    images = torch.linspace(-3, 5, 2 * 4 * 6 * 5).reshape(2, 4, 6, 5)
    try:
        for groups, (layer, clamp) in zip((1, 4), CLAMPS.items(), strict=True):
            convolution = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups).requires_grad_(False)
            weight = torch.linspace(-1, 2, convolution.weight.numel()).view_as(convolution.weight)
            convolution.weight.copy_(weight)
            expected = layer()(convolution(images))
            found = _clamped(convolution, clamp, images, convolution.weight, convolution.bias)
            if not torch.allclose(found, expected, atol=1e-4):
                return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True
