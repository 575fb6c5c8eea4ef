"""From other projects' weight layouts to torchvision's keys, which `MobileNetV2` uses, and back.

Every function here is a renaming and, for TensorFlow's, a permutation: nothing is computed, so going there
and back gives the same tensors. Only norms that a file has folded into its convolutions are made anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backbones.table2 import units
from backbones.weights.files import BACKBONE_PREFIX
from backbones.weights.layouts import LAYOUTS, WeightFacts
from backbones.weights.recognise import TORCHVISION, State, recognise, stem_key

# What wrappers put before every name: training in parallel, and the Object Detection API.
OBJECT_DETECTION_SCOPE = 'FeatureExtractor/'
PREFIXES = ('module.', OBJECT_DETECTION_SCOPE)
# Leaf names of TensorFlow variables: torch's names, and the axes of a kernel in torch's order.
TENSORFLOW_LEAVES: dict[str, tuple[str, tuple[int, ...] | None]] = {
    'weights': ('conv.weight', (3, 2, 0, 1)),  # (h, w, in, out)
    'depthwise_weights': ('conv.weight', (2, 3, 0, 1)),  # (h, w, channels, 1)
    'biases': ('conv.bias', None),
    'BatchNorm/gamma': ('norm.weight', None),
    'BatchNorm/beta': ('norm.bias', None),
    'BatchNorm/moving_mean': ('norm.running_mean', None),
    'BatchNorm/moving_variance': ('norm.running_var', None),
}
# What follows the backbone, by deeplab's own scopes (`deeplab/model.py`), without the pyramid.
HEAD_SCOPES = ('image_pooling', 'aspp0', 'concat_projection', 'logits/semantic')
# A norm that changes nothing but adds its bias, whatever its epsilon: the root of 2^16 + 0.001 rounds to 2^8.
IDENTITY_SCALE = 2.0**8


@dataclass(frozen=True)
class SplitWeights:
    """A weight file taken apart: what belongs to the backbone, and what to a linear classifier.

    Attributes:
        layout: name of the layout the file is in.
        backbone: `features.N...` entries, in torchvision's key layout.
        classifier: `weight` (classes, channels) and `bias` (classes,), or empty.
        facts: what the weights are only right with; None when the file cannot say.
        missing: keys of the layout that the file does not have, of the layers it should have.
        rest: what a head must make sense of, under its own names, or after `from_tensorflow`; see
            `Head.translate`.
    """

    layout: str
    backbone: dict[str, Tensor]
    classifier: dict[str, Tensor]
    facts: WeightFacts | None = None
    missing: tuple[str, ...] = ()
    rest: dict[str, Tensor] = field(default_factory=dict)


def split_weights(state: State, *, source: str, facts: WeightFacts | None = None) -> SplitWeights:
    """Recognise the layout of `state` and take it apart.

    Args:
        state: a plain state dict, or TensorFlow's variables by name.
        source: where it came from, for the error message.
        facts: what the file says of itself, instead of what its layout implies.

    Raises:
        ValueError: no known layout matches; the message shows keys found, keys looked for and the layout
            that comes closest.
    """
    if BACKBONE_PREFIX + stem_key(TORCHVISION) in state:
        if facts is None:
            raise ValueError(
                f'{source} is the bare state dict of a Kestrel model, which says neither padding nor '
                'epsilon nor normalisation: give the checkpoint itself (best.pth)'
            )
        return SplitWeights(
            layout='kestrel',
            backbone=strip_prefix(state, BACKBONE_PREFIX),
            classifier={},
            facts=facts,
            rest={key: value for key, value in state.items() if not key.startswith(BACKBONE_PREFIX)},
        )
    if is_folded_deeplab(state):
        backbone, rest = split_folded_deeplab(state)
        return SplitWeights('deeplab', with_counters(backbone), {}, facts=LAYOUTS['slim'].facts, rest=rest)
    is_detector = any(key.startswith(OBJECT_DETECTION_SCOPE) for key in state)
    state = averaged({_bare(key): value for key, value in state.items()})
    layout, depth = recognise(state, source=source)
    backbone: dict[str, Tensor] = {}
    missing: list[str] = []
    used: set[str] = set()
    for unit in units(depth):
        ours, theirs = TORCHVISION.tensors(unit), layout.tensors(unit)
        for name, key in theirs.items():
            if key in state:
                value = state[key]
                if name == 'conv' and value.ndim != 4:
                    raise ValueError(
                        f'{source}: {key} should be a convolution, its shape is {tuple(value.shape)}'
                    )
                backbone[ours[name]] = layout.to_torch(unit, value) if name == 'conv' else value
                used.add(key)
            else:
                missing.append(key)
        counter = layout.names(unit)[1] + '.num_batches_tracked'
        if counter in state:
            backbone[TORCHVISION.names(unit)[1] + '.num_batches_tracked'] = state[counter]
            used.add(counter)
    classifier = {}
    # Early tonylins-style files have the classifier behind a dropout, as torchvision's.
    weight, bias = next(
        (pair for pair in (layout.classifier, TORCHVISION.classifier) if pair[0] in state), layout.classifier
    )
    if weight in state and bias in state:
        classifier = {'weight': layout.linear_to_torch(state[weight]), 'bias': state[bias]}
        used |= {weight, bias}
    rest = {key: value for key, value in state.items() if key not in used}
    if layout.stored == 'slim':
        rest = {key.removeprefix('MobilenetV2/'): value for key, value in from_tensorflow(rest).items()}
    return SplitWeights(
        layout='object_detection' if is_detector else 'deeplab' if is_deeplab(rest) else layout.name,
        backbone=backbone,
        classifier=classifier,
        facts=facts or layout.facts,
        missing=tuple(missing),
        rest=rest,
    )


def is_deeplab(rest: State) -> bool:
    """Whether what lies beside a backbone from TensorFlow is deeplab's head."""
    return any(key.startswith('concat_projection/') for key in rest)


def join_weights(weights: SplitWeights, layout_name: str) -> dict[str, Tensor]:
    """The reverse of `split_weights`: the same tensors under a layout's names.

    Counters of seen batches exist in PyTorch only; towards TensorFlow they are left out, and what comes
    from TensorFlow has none.

    Raises:
        ValueError: there is no such layout, or the backbone has layers that it has no names for.
    """
    if layout_name not in LAYOUTS:
        raise ValueError(f'there is no layout {layout_name!r}; known are {", ".join(LAYOUTS)}')
    layout = LAYOUTS[layout_name]
    _, depth = recognise(weights.backbone, source=weights.layout)
    state: dict[str, Tensor] = {}
    left = set(weights.backbone)
    for unit in units(depth):
        ours, theirs = TORCHVISION.tensors(unit), layout.tensors(unit)
        for name, key in ours.items():
            if key in weights.backbone:
                value = weights.backbone[key]
                state[theirs[name]] = layout.from_torch(unit, value) if name == 'conv' else value
                left.discard(key)
        counter = TORCHVISION.names(unit)[1] + '.num_batches_tracked'
        if counter in weights.backbone:
            left.discard(counter)
            if layout.stored == 'torch':
                state[layout.names(unit)[1] + '.num_batches_tracked'] = weights.backbone[counter]
    if left:
        raise ValueError(f'layout {layout_name} has no place for {", ".join(sorted(left)[:4])}')
    if weights.classifier:
        weight, bias = layout.classifier
        state[weight] = layout.linear_from_torch(weights.classifier['weight'])
        state[bias] = weights.classifier['bias']
    return state


def averaged(state: State) -> dict[str, Tensor]:
    """Take TensorFlow's moving averages, where there are any, for the variables they average.

    slim's checkpoints hold both; the published scores are those of the averages.
    """
    ending = '/ExponentialMovingAverage'
    plain = {key: value for key, value in state.items() if not key.endswith(ending)}
    return plain | {key.removesuffix(ending): value for key, value in state.items() if key.endswith(ending)}


def from_tensorflow(variables: State) -> dict[str, Tensor]:
    """Give TensorFlow variables torch's leaf names and axis order; the scope before the leaf stays.

    'a/b/weights' becomes 'a/b/conv.weight', 'a/b/BatchNorm/gamma' becomes 'a/b/norm.weight'. Variables with
    other leaves (optimiser slots, the step) are left out.
    """
    state = {}
    for name, value in variables.items():
        for leaf, (renamed, axes) in TENSORFLOW_LEAVES.items():
            if name.endswith('/' + leaf):
                # A fully connected layer's weights have two axes.
                turned = value.permute(axes) if axes is not None and value.ndim == len(axes) else value
                state[name.removesuffix(leaf) + renamed] = turned
    return state


def drop_background(classifier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take away the first of a classifier's classes, TensorFlow's background."""
    return {key: value[1:].clone() for key, value in classifier.items()}


def strip_prefix(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the entries whose key starts with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def with_counters(backbone: State) -> dict[str, Tensor]:
    """Add the counters of seen batches that weights from TensorFlow lack, as PyTorch starts them."""
    zeros = {
        key.removesuffix('running_mean') + 'num_batches_tracked': torch.tensor(0)
        for key in backbone
        if key.endswith('running_mean')
    }
    return zeros | dict(backbone)


def _bare(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def is_folded_deeplab(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of TensorFlow's DeepLabv3 over MobileNetV2, without pyramid, folded.

    Converters to TFLite leave it so: norms are part of the convolutions, which are only numbered in the order
    they run ('000/CONV_2D/weight').
    """
    return len(state) == 2 * (len(_backbone_units()) + len(HEAD_SCOPES)) and '000/CONV_2D/weight' in state


def split_folded_deeplab(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Name the numbered convolutions, and give each a batch norm that only adds the folded bias.

    The result computes what TensorFlow does with `padding='same'`. To train on from it, keep the norms as
    they are with `norm_eval=True`: statistics of a batch would undo the folding.

    Returns:
        The backbone in torchvision's keys; and the head's tensors by deeplab's scopes, with the leaf names of
        `from_tensorflow`.
    """
    backbone: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    parts = _backbone_units()
    for place, number in enumerate(sorted({key.rsplit('/', 1)[0] for key in state})):
        weight, bias = state[f'{number}/weight'], state[f'{number}/bias']
        if place < len(parts):
            keys = TORCHVISION.tensors(parts[place])
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
