"""From other projects' weight layouts to torchvision's keys, which `MobileNetV2` uses, and back.

Every function here is a renaming and, for TensorFlow's, a permutation: nothing is computed, so going there
and back gives the same tensors. What `folded` reads is the exception: its norms are made anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from falconet.backbones.table2 import units
from falconet.backbones.weights.files import BACKBONE_PREFIX
from falconet.backbones.weights.folded import is_folded, says_pooled, split_folded
from falconet.backbones.weights.layouts import LAYOUTS, WeightFacts
from falconet.backbones.weights.recognise import TORCHVISION, State, recognise, stem_key

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
        unsure_branches: the file is a folded deeplab, whose shapes cannot tell which of the two 1x1 branches
            in `rest` is the pooled one; see `folded.exchange_branches`.
    """

    layout: str
    backbone: dict[str, Tensor]
    classifier: dict[str, Tensor]
    facts: WeightFacts | None = None
    missing: tuple[str, ...] = ()
    rest: dict[str, Tensor] = field(default_factory=dict)
    unsure_branches: bool = False


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
                f'{source} is the bare state dict of a Falconet model, which says neither padding nor '
                'epsilon nor normalisation: give the checkpoint itself (best.pth)'
            )
        rest = {key: value for key, value in state.items() if not key.startswith(BACKBONE_PREFIX)}
        backbone = {key.removeprefix(BACKBONE_PREFIX): state[key] for key in state if key not in rest}
        return SplitWeights('falconet', backbone, {}, facts=facts, rest=rest)
    if is_folded(state):
        backbone, classifier, rest = split_folded(state, source=source)
        return SplitWeights(
            'deeplab' if rest else 'folded',
            with_counters(backbone),
            classifier,
            facts=LAYOUTS['slim'].facts,
            rest=rest,
            unsure_branches=bool(rest) and not any(map(says_pooled, state)),
        )
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
    is_deeplab = any(key.startswith('concat_projection/') for key in rest)
    return SplitWeights(
        layout='object_detection' if is_detector else 'deeplab' if is_deeplab else layout.name,
        backbone=backbone,
        classifier=classifier,
        facts=facts or layout.facts,
        missing=tuple(missing),
        rest=rest,
    )


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
