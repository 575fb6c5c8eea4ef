"""Key maps from other projects' weight layouts.

`MobileNetV2` uses torchvision's own keys, so that layout only needs its classifier set apart. A layout
with other names gets one function here, and one line in `LAYOUTS`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class SplitWeights:
    """A weight file taken apart: what belongs to the backbone, and what to a linear classifier.

    Attributes:
        layout: name of the layout the file is in.
        backbone: `features.N...` entries, in torchvision's key layout.
        classifier: `weight` (classes, channels) and `bias` (classes,), or empty.
        rest: what a head must make sense of; see `Head.translate`.
    """

    layout: str
    backbone: dict[str, Tensor]
    classifier: dict[str, Tensor]
    rest: dict[str, Tensor] = field(default_factory=dict)


def is_torchvision(state: State) -> bool:
    """Whether the keys are those of `torchvision.models.mobilenet_v2`."""
    return 'features.0.0.weight' in state


def split_torchvision(state: State) -> SplitWeights:
    """Set the classifier (`classifier.1.weight` and `.bias`) apart from the features."""
    return SplitWeights(
        layout='torchvision',
        backbone={key: value for key, value in state.items() if key.startswith('features.')},
        classifier={
            key.removeprefix('classifier.1.'): value
            for key, value in state.items()
            if key.startswith('classifier.1.')
        },
    )


def is_kestrel(state: State) -> bool:
    """Whether the keys are those of a Kestrel model (`backbone.features.N...`, `head...`)."""
    return 'backbone.features.0.0.weight' in state


def split_kestrel(state: State) -> SplitWeights:
    """Take the backbone out of a whole model, and its classifier where it has one."""
    return SplitWeights(
        layout='kestrel',
        backbone=strip_prefix(state, 'backbone.'),
        classifier=strip_prefix(state, 'head.fc.'),
    )


def strip_prefix(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the entries whose key starts with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


OBJECT_DETECTION_SCOPE = 'FeatureExtractor/MobilenetV2/'
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


def from_tensorflow(variables: State) -> dict[str, Tensor]:
    """Give TensorFlow variables torch's leaf names and axis order; the scope before the leaf stays.

    'a/b/weights' becomes 'a/b/conv.weight', 'a/b/BatchNorm/gamma' becomes 'a/b/norm.weight'. Variables with
    other leaves (optimiser slots, moving averages, the step) are left out.
    """
    state = {}
    for name, value in variables.items():
        for leaf, (renamed, axes) in TENSORFLOW_LEAVES.items():
            if name.endswith('/' + leaf):
                state[name.removesuffix(leaf) + renamed] = value.permute(axes) if axes else value
    return state


def slim_to_torchvision(name: str) -> str | None:
    """Translate one of slim's MobileNetV2 names, after `from_tensorflow`, or None for no backbone tensor.

    slim: 'Conv', 'expanded_conv' (t = 1), 'expanded_conv_1' to '_16', 'Conv_1', each but the first and last
    with 'expand', 'depthwise' and 'project' inside.
    """
    found = re.fullmatch(
        r'(?:(Conv)|(Conv_1)|expanded_conv(?:_(\d+))?/(expand|depthwise|project))/(conv|norm)\.(\w+)', name
    )
    if found is None:
        return None
    stem, last, number, part, kind, leaf = found.groups()
    position = 0 if kind == 'conv' else 1
    if stem or last:
        return f'features.{0 if stem else 18}.{position}.{leaf}'
    block = int(number or 0)
    step = ('expand', 'depthwise', 'project').index(part) - (block == 0)
    inner = f'{step + position}' if part == 'project' else f'{step}.{position}'
    return f'features.{block + 1}.conv.{inner}.{leaf}'


def is_object_detection(state: State) -> bool:
    """Whether the names are those of an Object Detection API model over MobileNetV2."""
    return OBJECT_DETECTION_SCOPE + 'Conv/weights' in state


def split_object_detection(state: State) -> SplitWeights:
    """Translate the backbone's variables; the detector's keep their scopes, for the head to translate."""
    backbone, rest = {}, {}
    for name, value in from_tensorflow(state).items():
        inner = name.removeprefix(OBJECT_DETECTION_SCOPE)
        if (key := slim_to_torchvision(inner)) is not None:
            backbone[key] = value
        else:
            rest[inner] = value
    return SplitWeights('object_detection', backbone, classifier={}, rest=rest)


LAYOUTS: tuple[tuple[Callable[[State], bool], Callable[[State], SplitWeights]], ...] = (
    (is_torchvision, split_torchvision),
    (is_kestrel, split_kestrel),
    (is_object_detection, split_object_detection),
)


def split_weights(state: State, *, source: str) -> SplitWeights:
    """Recognise the layout of `state` and take it apart.

    Args:
        state: a plain state dict.
        source: where it came from, for the error message.

    Raises:
        ValueError: no known layout matches; the message shows keys found and keys looked for.
    """
    for matches, split in LAYOUTS:
        if matches(state):
            return split(state)
    found = ', '.join(list(state)[:4]) or 'nothing'
    raise ValueError(
        f'{source}: no known weight layout. Looked for features.0.0.weight (torchvision), '
        f'backbone.features.0.0.weight (Kestrel) and {OBJECT_DETECTION_SCOPE}Conv/weights (Object Detection '
        f'API); the file begins with {found}.'
    )
