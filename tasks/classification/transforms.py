"""Transforms of classification: mixup and cutmix on a batch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from falconet.core.errors import UserError, closest
from falconet.core.registry import check_options

BATCH_TRANSFORMS = ('MixUp', 'CutMix')  # of torchvision.transforms.v2


class BatchAugment:
    """Mixup and cutmix, one of them drawn per batch, through torchvision.transforms.v2.

    Args:
        transforms: config entries, `dict(type='MixUp', alpha=0.2)`, `dict(type='CutMix', alpha=1.0)`.
        num_classes: classes in the data.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], *, num_classes: int) -> None:
        from torchvision.transforms import v2  # slow to import, and only wanted in training

        built = []
        for entry in transforms:
            name = entry.get('type')
            if name not in BATCH_TRANSFORMS:
                raise UserError(f'batch_augment: no {name!r}. {closest(str(name), BATCH_TRANSFORMS)}')
            options = {key: value for key, value in entry.items() if key != 'type'}
            factory = getattr(v2, name)
            check_options(factory, options, where='batch_augment', name=name)
            alpha = options.get('alpha', 1.0)
            if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
                raise UserError(f'batch_augment ({name}): alpha must be a number above 0, got {alpha!r}')
            built.append(factory(**options, num_classes=num_classes))
        self._choice = v2.RandomChoice(built)
        self.num_classes = num_classes

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: float (B, 3, H, W).
            labels: int64 (B,).

        Returns:
            Mixed images, and class probabilities, float (B, num_classes).
        """
        if len(images) == 1:  # nothing to mix with
            return images, torch.nn.functional.one_hot(labels, self.num_classes).to(images.dtype)
        images, labels = self._choice(images, labels)
        return images.contiguous(memory_format=torch.channels_last), labels
