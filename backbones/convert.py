"""Key maps from other projects' weight layouts.

`MobileNetV2` uses torchvision's own keys, so that layout only needs its classifier set apart. A layout
with other names gets one function here, and one line in `LAYOUTS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class SplitWeights:
    """A weight file taken apart: what belongs to the backbone, and what to a linear classifier.

    Attributes:
        layout: name of the layout the file is in.
        backbone: `features.N...` entries, in torchvision's key layout.
        classifier: `weight` (classes, channels) and `bias` (classes,), or empty.
    """

    layout: str
    backbone: dict[str, Tensor]
    classifier: dict[str, Tensor]


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


LAYOUTS: tuple[tuple[Callable[[State], bool], Callable[[State], SplitWeights]], ...] = (
    (is_torchvision, split_torchvision),
    (is_kestrel, split_kestrel),
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
        f'{source}: no known weight layout. Looked for features.0.0.weight (torchvision) and '
        f'backbone.features.0.0.weight (Kestrel); the file begins with {found}.'
    )
