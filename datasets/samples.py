"""What travels from a data set to the model: samples, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from falconet.core.errors import UserError


class SampleKey(NamedTuple):
    """What the sampler hands to a data set: augmentation depends on these and the run's seed only.

    Attributes:
        sample: its number.
        epoch: which pass over the data.
        copy: which of several augmentations of the sample in that pass.
        side: length in pixels that the shorter side of what comes out is shrunk to; None leaves it.
    """

    sample: int
    epoch: int
    copy: int = 0
    side: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class SampleInfo:
    """What a metric or an error message needs to know of a sample.

    Attributes:
        index: position in the data set.
        path: the image file.
        size: (height, width) of the original image, in pixels.
        content: (height, width) of the part of the network's input that the image fills, from the upper
            left corner; None when it fills all of it. Less than all where a transform pads.
        turned: it was turned as its EXIF orientation says.
    """

    index: int
    path: str
    size: tuple[int, int]
    content: tuple[int, int] | None = None
    turned: bool = False


@dataclass(frozen=True)
class Sample:
    """One augmented image with its target.

    Attributes:
        image: RGB uint8, (H, W, 3), contiguous.
        target: a class index (int), a label map (H, W), or a dict of arrays (boxes, labels).
        info: where it came from.
        skipped: files that were passed over to get here.
    """

    image: np.ndarray
    target: Any
    info: SampleInfo
    skipped: tuple[Skipped, ...] = ()


class Batch(TypedDict):
    """A collated batch; the keyword arguments of `VisionModel.forward`.

    images: uint8 (B, 3, H, W), in channels_last memory.
    targets: int64 (B,) for class indices; uint8 (B, H, W) for label maps, or a list of (H, W) where their
        sizes differ; a list of dicts of tensors for boxes.
    """

    images: Tensor
    targets: Any
    infos: list[SampleInfo]
    skipped: list[Skipped]


def collate(samples: Sequence[Sample | Skipped]) -> Batch:
    """Put samples of one size into a batch. Skipped ones are listed, not batched.

    A batch with nothing left has `images` of shape (0, 3, 0, 0).
    """
    good = [sample for sample in samples if isinstance(sample, Sample)]
    skipped = [sample for sample in samples if isinstance(sample, Skipped)]
    skipped += [each for sample in good for each in sample.skipped]
    if good:
        if len(shapes := {sample.image.shape for sample in good}) > 1:
            sizes = ' and '.join(f'{height} x {width}' for height, width, _ in sorted(shapes)[:2])
            raise UserError(
                f'a batch needs images of one size, got {sizes} (height x width) pixels: end `augment` with '
                'a crop or a resize, or set batch_size=1'
            )
        # Images come as (H, W, 3): stacking and permuting the view *is* channels_last, at no cost.
        images = torch.from_numpy(np.stack([sample.image for sample in good])).permute(0, 3, 1, 2)
    else:
        images = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Batch(
        images=images,
        targets=_collate_targets([sample.target for sample in good]),
        infos=[sample.info for sample in good],
        skipped=skipped,
    )


def _collate_targets(targets: Sequence[Any]) -> Any:
    first = targets[0] if targets else None
    if first is None or isinstance(first, int):
        return torch.tensor([-1 if target is None else target for target in targets], dtype=torch.int64)
    if isinstance(first, np.ndarray):
        if any(target.shape != first.shape for target in targets):
            return [torch.from_numpy(target) for target in targets]
        return torch.from_numpy(np.stack(targets))
    return [{key: torch.from_numpy(value) for key, value in target.items()} for target in targets]
