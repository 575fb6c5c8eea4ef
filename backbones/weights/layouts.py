"""The names that other projects give to MobileNetV2's tensors, and what their weights expect.

Sources: torchvision (`mobilenet_v2`), timm (`mobilenetv2_*`), d-li14/mobilenetv2.pytorch,
tonylins/pytorch-mobilenet-v2 (the much-copied `mobilenetv2_1.0-f2a8633`), transformers
(`MobileNetV2ForImageClassification`), Keras (`applications.MobileNetV2`) and TensorFlow's slim, whose
names the Object Detection API and deeplab share. A layout is a function from a `Unit` of Table 2 to names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from falconet.backbones.table2 import Unit

# Mean and standard deviation of pixels scaled to 0..1, by the weights' origin.
NORMALISATIONS = {
    'imagenet': {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)},  # torchvision, timm
    'tensorflow': {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)},  # pixels scaled to [-1, 1]
}


@dataclass(frozen=True)
class WeightFacts:
    """What weights are only right with.

    Attributes:
        options: of the backbone, by name; those of its `from_weights`.
        normalise: mean and std in units of 0..1.
    """

    options: Mapping[str, Any]
    normalise: Mapping[str, tuple[float, ...]]

    def as_plain(self) -> dict[str, Any]:
        """Return plain values that a weight file can hold."""
        return {**self.options, 'normalise': {key: list(value) for key, value in self.normalise.items()}}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> 'WeightFacts':
        """The reverse of `as_plain`."""
        mean_std = {key: tuple(values['normalise'][key]) for key in ('mean', 'std')}
        return cls({key: value for key, value in values.items() if key != 'normalise'}, mean_std)


PYTORCH_BORN = WeightFacts({'padding': 'symmetric', 'norm_eps': 1e-5}, NORMALISATIONS['imagenet'])
TENSORFLOW_BORN = WeightFacts({'padding': 'same', 'norm_eps': 1e-3}, NORMALISATIONS['tensorflow'])

TORCH_NORM = {
    'weight': '.weight',
    'bias': '.bias',
    'running_mean': '.running_mean',
    'running_var': '.running_var',
}
TENSORFLOW_NORM = {
    'weight': '/gamma',
    'bias': '/beta',
    'running_mean': '/moving_mean',
    'running_var': '/moving_variance',
}


@dataclass(frozen=True)
class Layout:
    """How one project names and stores the tensors.

    Attributes:
        name: ours.
        names: a unit's (convolution, norm) names, without the tensor's own ending.
        endings: ending of a convolution's weight, by role; '' is the rest.
        norm: ending of each norm tensor, by torch's name.
        classifier: names of the linear layer's weight and bias.
        facts: what the project's weights expect, unless a file says otherwise.
        stored: 'torch' keeps (out, in, h, w); 'keras' and 'slim' keep (h, w, in, out), depthwise
            (h, w, channels, 1), and the linear layer (in, out) or (1, 1, in, out).
    """

    name: str
    names: Callable[[Unit], tuple[str, str]]
    endings: Mapping[str, str]
    norm: Mapping[str, str]
    classifier: tuple[str, str]
    facts: WeightFacts
    stored: str = 'torch'

    def tensors(self, unit: Unit) -> dict[str, str]:
        """Return this layout's key of every tensor of a unit: 'conv', then the norm's by torch's name."""
        conv, norm = self.names(unit)
        keys = {'conv': conv + self.endings.get(unit.role, self.endings[''])}
        return keys | {name: norm + ending for name, ending in self.norm.items()}

    def to_torch(self, unit: Unit, value: Tensor) -> Tensor:
        """Return a convolution's weight as torch stores it."""
        if self.stored == 'torch':
            return value
        return value.permute((2, 3, 0, 1) if unit.role == 'depthwise' else (3, 2, 0, 1)).contiguous()

    def from_torch(self, unit: Unit, value: Tensor) -> Tensor:
        """The reverse of `to_torch`."""
        if self.stored == 'torch':
            return value
        return value.permute((2, 3, 0, 1) if unit.role == 'depthwise' else (2, 3, 1, 0)).contiguous()

    def linear_to_torch(self, value: Tensor) -> Tensor:
        """Return the linear layer's weight as (classes, channels)."""
        return value if self.stored == 'torch' else value.flatten(end_dim=-2).T.contiguous()

    def linear_from_torch(self, value: Tensor) -> Tensor:
        """The reverse of `linear_to_torch`."""
        if self.stored == 'torch':
            return value
        return value.T.contiguous() if self.stored == 'keras' else value.T.contiguous()[None, None]


def torchvision_names(unit: Unit) -> tuple[str, str]:
    """`features.N.conv...`, with convolution, norm and activation grouped."""
    base = f'features.{unit.layer}'
    if unit.role in ('stem', 'last'):
        return f'{base}.0', f'{base}.1'
    place = ('expand', 'depthwise', 'project').index(unit.role) - (unit.stage == 0)
    if unit.role == 'project':
        return f'{base}.conv.{place}', f'{base}.conv.{place + 1}'
    return f'{base}.conv.{place}.0', f'{base}.conv.{place}.1'


def tonylins_names(unit: Unit) -> tuple[str, str]:
    """`features.N.conv.K`, not grouped: the activation counts as a place of its own."""
    base = f'features.{unit.layer}'
    if unit.role in ('stem', 'last'):
        return f'{base}.0', f'{base}.1'
    place = 3 * (('expand', 'depthwise', 'project').index(unit.role) - (unit.stage == 0))
    return f'{base}.conv.{place}', f'{base}.conv.{place + 1}'


def d_li14_names(unit: Unit) -> tuple[str, str]:
    """As tonylins', with the last convolution outside of `features`."""
    return ('conv.0', 'conv.1') if unit.role == 'last' else tonylins_names(unit)


def timm_names(unit: Unit) -> tuple[str, str]:
    """`blocks.S.B.conv_pw` and so on; the block without expansion has other names."""
    if unit.role == 'stem':
        return 'conv_stem', 'bn1'
    if unit.role == 'last':
        return 'conv_head', 'bn2'
    base = f'blocks.{unit.stage}.{unit.block}'
    if unit.stage == 0:
        conv, norm = {'depthwise': ('conv_dw', 'bn1'), 'project': ('conv_pw', 'bn2')}[unit.role]
    else:
        conv, norm = {
            'expand': ('conv_pw', 'bn1'),
            'depthwise': ('conv_dw', 'bn2'),
            'project': ('conv_pwl', 'bn3'),
        }[unit.role]
    return f'{base}.{conv}', f'{base}.{norm}'


def transformers_names(unit: Unit) -> tuple[str, str]:
    """`mobilenet_v2.layer.N.expand_1x1.convolution`; the first block belongs to the stem."""
    inner = {'stem': 'first_conv', 'expand': 'expand_1x1', 'depthwise': 'conv_3x3', 'project': 'reduce_1x1'}
    if unit.role == 'last':
        base = 'mobilenet_v2.conv_1x1'
    elif unit.layer <= 1:
        base = f'mobilenet_v2.conv_stem.{inner[unit.role]}'
    else:
        base = f'mobilenet_v2.layer.{unit.layer - 2}.{inner[unit.role]}'
    return f'{base}.convolution', f'{base}.normalization'


def keras_names(unit: Unit) -> tuple[str, str]:
    """`block_N_expand`, `block_N_expand_BN`; the first block is `expanded_conv`."""
    if unit.role == 'stem':
        return 'Conv1', 'bn_Conv1'
    if unit.role == 'last':
        return 'Conv_1', 'Conv_1_bn'
    base = 'expanded_conv' if unit.layer == 1 else f'block_{unit.layer - 1}'
    return f'{base}_{unit.role}', f'{base}_{unit.role}_BN'


def slim_names(unit: Unit) -> tuple[str, str]:
    """`MobilenetV2/expanded_conv_N/expand`, the norm below it."""
    if unit.role in ('stem', 'last'):
        base = 'MobilenetV2/Conv' if unit.role == 'stem' else 'MobilenetV2/Conv_1'
    else:
        block = 'expanded_conv' if unit.layer == 1 else f'expanded_conv_{unit.layer - 1}'
        base = f'MobilenetV2/{block}/{unit.role}'
    return base, f'{base}/BatchNorm'


TORCH = {'': '.weight'}
TORCH_LINEAR = ('classifier.weight', 'classifier.bias')
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            'torchvision', torchvision_names, TORCH, TORCH_NORM,
            ('classifier.1.weight', 'classifier.1.bias'), PYTORCH_BORN,
        ),
        Layout('timm', timm_names, TORCH, TORCH_NORM, TORCH_LINEAR, PYTORCH_BORN),
        Layout('d-li14', d_li14_names, TORCH, TORCH_NORM, TORCH_LINEAR, PYTORCH_BORN),
        Layout('tonylins', tonylins_names, TORCH, TORCH_NORM, TORCH_LINEAR, PYTORCH_BORN),
        Layout('transformers', transformers_names, TORCH, TORCH_NORM, TORCH_LINEAR, TENSORFLOW_BORN),
        Layout(
            'keras', keras_names, {'': '/kernel'}, TENSORFLOW_NORM,
            ('predictions/kernel', 'predictions/bias'), TENSORFLOW_BORN, 'keras',
        ),
        Layout(
            'slim', slim_names, {'': '/weights', 'depthwise': '/depthwise_weights'}, TENSORFLOW_NORM,
            ('MobilenetV2/Logits/Conv2d_1c_1x1/weights', 'MobilenetV2/Logits/Conv2d_1c_1x1/biases'),
            TENSORFLOW_BORN, 'slim',
        ),
    )
}  # fmt: skip
