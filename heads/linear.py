"""Linear classifier: global average pooling, dropout, one fully connected layer.

Source: MobileNetV2, arXiv 1801.04381, Table 2 (last two rows). Dropout 0.2 and the normal(0, 0.01) start of
the weights are those of `torchvision.models.mobilenet_v2` and slim (keep probability 0.8).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.core.options import CLASS_WEIGHTS, SHARE, check_options
from falconet.heads.base import HEADS, ClassRows, Head


@HEADS.register_module()
class LinearHead(Head):
    """Classify whole images.

    Args:
        channels, strides: of exactly one map, (B, C, H, W) of any size; usually the backbone's 'last'.
        num_classes: classes in the data.
        dropout: probability of dropping a pooled feature in training.
        label_smoothing: share of the target spread evenly over all classes, 0 to 1.
        class_weights: weight of each class in the loss, `num_classes` numbers; None weighs all alike.

    Raises:
        ValueError: more than one map, or another number of weights than classes.
    """

    task = 'classification'
    option_values = MappingProxyType(
        {'dropout': SHARE, 'label_smoothing': SHARE, 'class_weights': CLASS_WEIGHTS}
    )
    class_weights: Tensor | None

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        num_classes: int,
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(channels, strides, num_classes=num_classes)
        check_options(self.option_values, locals())
        if len(channels) != 1:
            raise ValueError(
                f'LinearHead reads one map, got {len(channels)}: channels {list(channels)}, strides '
                f"{list(strides)}. Give the backbone one tap, for example taps=('last',)"
            )
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(
                f'class_weights has {len(class_weights)} numbers, the data has {num_classes} classes'
            )
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels[0], num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # Not persistent: it shapes training only, and a checkpoint must load with or without it.
        self.register_buffer('class_weights', weights, persistent=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits, (B, num_classes)."""
        pooled = F.adaptive_avg_pool2d(features[0], 1).flatten(1)  # (B, C)
        return self.fc(self.dropout(pooled))

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the share of the batch that is right for the log.

        Args:
            outputs: logits, (B, num_classes).
            targets: class indices, int64 (B,), or class probabilities, float (B, num_classes), as
                mixup and cutmix make them.
        """
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        return {
            'loss_class': F.cross_entropy(
                outputs, targets, weight=self.class_weights, label_smoothing=self.label_smoothing
            ),
            'top1': (outputs.detach().argmax(dim=1) == labels).float().mean(),
        }

    def translate(self, layout: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the linear classifier of any layout."""
        names = {'classifier.weight': 'fc.weight', 'classifier.bias': 'fc.bias'}
        return {ours: tensors[theirs] for theirs, ours in names.items() if theirs in tensors}

    def linear(self) -> dict[str, Tensor]:
        """Return `weight` and `bias`, which is all there is."""
        return {'weight': self.fc.weight.detach(), 'bias': self.fc.bias.detach()}

    def class_rows(self) -> dict[str, ClassRows]:
        """One row a class."""
        return {'fc.weight': ClassRows(), 'fc.bias': ClassRows()}

    def decode(self, outputs: Tensor, *, input_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Return `scores`, float32 (B, num_classes), each row adding up to 1."""
        return {'scores': outputs.softmax(dim=1)}

    def place(
        self,
        answer: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int] | None = None,
        content_sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return `scores`, float32 (num_classes,) that add up to 1, and the `label` of the highest."""
        return [{'scores': row, 'label': int(row.argmax())} for row in answer['scores'].cpu().numpy()]
