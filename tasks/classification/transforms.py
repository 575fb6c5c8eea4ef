"""Transforms of classification: the evaluation crop, and mixup and cutmix on a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from torch import Tensor

from tasks.errors import UserError
from tasks.registry import check_options, closest

BATCH_TRANSFORMS = ('MixUp', 'CutMix')  # of torchvision.transforms.v2


@TRANSFORMS.register_module()
class ResizeCenterCrop(albumentations.ImageOnlyTransform):
    """Scale the short side to `resize` pixels and take the central `crop` x `crop` square.

    The evaluation of every ImageNet recipe (256, then 224). Shrinks by area averaging, which matches
    the antialiased resize weights were evaluated with. Of a very long image only the middle is scaled, so
    that a 1 x 5000 one does not become 256 x 1,280,000.

    Args:
        resize: short side in pixels.
        crop: side of the square in pixels, at most `resize`.
    """

    def __init__(self, resize: int = 256, crop: int = 224) -> None:
        if not 0 < crop <= resize:
            raise ValueError(f'crop must lie in 1..resize, got crop={crop} and resize={resize}')
        super().__init__(p=1.0)
        self.resize = resize
        self.crop = crop

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        height, width = img.shape[:2]
        short = min(height, width)
        limit = 4 * short
        if max(height, width) > limit:
            top, left = max(0, height - limit) // 2, max(0, width - limit) // 2
            img = img[top : top + limit, left : left + limit]
            height, width = img.shape[:2]
        scale = self.resize / short
        # Rounded as torchvision rounds: one pixel more or less shifts the crop by half a pixel.
        size = (int(self.resize * width / short), int(self.resize * height / short))
        # INTER_LINEAR_EXACT is not antialiased; averaging is what PIL and torchvision do when shrinking.
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        img = cv2.resize(img, size, interpolation=method)
        top, left = round((size[1] - self.crop) / 2), round((size[0] - self.crop) / 2)
        return img[top : top + self.crop, left : left + self.crop]

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('resize', 'crop')


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
