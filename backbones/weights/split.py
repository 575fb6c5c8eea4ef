"""From other projects' weight layouts to torchvision's keys, which `MobileNetV2` uses, and back.

A layout is recognised by its keys, never by a file's name. Every function here is a renaming and, for
TensorFlow's, a permutation: nothing is computed, so going there and back gives the same tensors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backbones.table2 import LAST_CHANNELS, STAGES, STEM_CHANNELS, Unit, make_divisible, units
from backbones.weights.folded import is_folded_deeplab, split_folded_deeplab
from backbones.weights.layouts import LAYOUTS, Layout, WeightFacts

State = Mapping[str, Tensor]

# Depth multipliers in circulation: the paper's network, timm's 110d and 120d.
DEPTHS = (1.0, 1.2, 1.4)
WIDTHS = (1.0, 0.1, 0.25, 0.35, 0.5, 0.75, 1.1, 1.2, 1.3, 1.4)
# What wrappers put before every name: training in parallel, and the Object Detection API.
OBJECT_DETECTION_SCOPE = 'FeatureExtractor/'
PREFIXES = ('module.', OBJECT_DETECTION_SCOPE)
TORCHVISION = LAYOUTS['torchvision']
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
    if 'backbone.features.0.0.weight' in state:
        if facts is None:
            raise ValueError(
                f'{source} is the bare state dict of a Kestrel model, which says neither padding nor '
                'epsilon nor normalisation: give the checkpoint itself (best.pth)'
            )
        return SplitWeights(
            layout='kestrel',
            backbone=strip_prefix(state, 'backbone.'),
            classifier=strip_prefix(state, 'head.fc.'),
            facts=facts,
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


def recognise(state: State, *, source: str) -> tuple[Layout, float]:
    """Return the layout and depth multiplier whose keys `state` has, or raise ValueError."""
    found = {}
    for layout in LAYOUTS.values():
        for depth in DEPTHS:
            keys = expected_keys(layout, depth)
            overlap = sum(key in state for key in keys)
            # As many as possible of the file's keys, then as few as possible that it lacks.
            found[layout.name, depth] = (overlap, overlap - len(keys))
    for name, depth in sorted(found, key=lambda place: found[place], reverse=True):
        if stem_key(LAYOUTS[name]) in state:
            return LAYOUTS[name], depth
    looked_for = ', '.join(f'{stem_key(layout)} ({layout.name})' for layout in LAYOUTS.values())
    (closest, _), (overlap, _) = max(found.items(), key=lambda item: item[1])
    near = (
        f'The closest layout is {closest}: {overlap} of its keys are there, its first is not.'
        if overlap
        else f'The closest layout is {most_alike(state)}, by how its keys are written; none of them is there.'
    )
    raise ValueError(
        f'{source}: no known weight layout. Looked for {looked_for} and backbone.features.0.0.weight '
        f'(Kestrel); the file begins with {", ".join(list(state)[:4]) or "nothing"}. {near}'
    )


def most_alike(state: State) -> str:
    """Return the layout whose keys are written most like those of `state`."""
    import difflib

    def likeness(layout: Layout) -> float:
        theirs = expected_keys(layout, 1.0)[:6]
        return max(
            (
                difflib.SequenceMatcher(None, key, their).ratio()
                for key in list(state)[:40]
                for their in theirs
            ),
            default=0.0,
        )

    return max(LAYOUTS.values(), key=likeness).name


def expected_keys(layout: Layout, depth: float) -> list[str]:
    """Return the keys of a whole backbone in a layout, counters aside."""
    return [key for unit in units(depth) for key in layout.tensors(unit).values()]


def stem_key(layout: Layout) -> str:
    """Return the key of the first convolution, which every file has."""
    return layout.tensors(Unit(0, 'stem'))['conv']


def describe_shape(backbone: State) -> dict[str, float]:
    """Return the options of `MobileNetV2` that give a backbone of these shapes, where one is known.

    Args:
        backbone: in torchvision's keys, from `split_weights`.

    Returns:
        `width`, and `depth`, `stem_channels`, `last_channels`, `channel_divisor` where they are not the
        defaults; empty when no known combination fits.
    """
    _, depth = recognise(backbone, source='backbone')
    shapes = dict(_channels(backbone, depth))
    stem, last = shapes.pop('stem', None), shapes.pop('last', None)
    for divisor in (8, 4):
        for width in WIDTHS:
            expected = {
                f'stage{stage}': make_divisible(row[1] * width, divisor)
                for stage, row in enumerate(STAGES, 1)
            }
            if any(expected[name] != count for name, count in shapes.items()):
                continue
            options: dict[str, float] = {'width': width}
            if depth != 1.0:
                options['depth'] = depth
            if divisor != 8:
                options['channel_divisor'] = divisor
            if stem is not None and stem != make_divisible(STEM_CHANNELS * width, divisor):
                options['stem_channels'] = stem
            if last is not None and last != make_divisible(LAST_CHANNELS * max(1.0, width), divisor):
                options['last_channels'] = last
            return options
    return {}


def _channels(backbone: State, depth: float) -> Iterator[tuple[str, int]]:
    for unit in units(depth):
        key = TORCHVISION.tensors(unit)['conv']
        if key in backbone and unit.role in ('stem', 'project', 'last'):
            yield (f'stage{unit.stage + 1}' if unit.role == 'project' else unit.role), len(backbone[key])


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
