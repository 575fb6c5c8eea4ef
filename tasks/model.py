"""VisionModel: normalisation, backbone and head in one module, with everything needed to use it alone.

uint8 or float images (B, 3, H, W) -> normalise -> backbone -> [maps] -> head.forward -> outputs
                                                   training:   head.loss    -> {'loss_...': scalar}
                                                   evaluation: head.predict -> one typed result an image
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from backbones.base import BACKBONES
from backbones.weights.layouts import NORMALISATIONS
from heads.base import HEADS
from layers.depthwise import fast_depthwise
from tasks.data.augment import Augment
from tasks.data.images import read_image
from tasks.data.samples import SampleInfo, Skipped
from tasks.errors import UserError
from tasks.registry import build, check_options, find
from tasks.task import find_task


class NonFiniteLossError(ArithmeticError):
    """The loss is NaN or infinite; the weights have not been touched by it."""


class Normalise(nn.Module):
    """Pixels 0..255 to (pixel / 255 - mean) / std, with mean and std as buffers.

    Args:
        mean, std: per RGB channel, in units of 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f'mean and std need 3 numbers each, std above 0; got {mean} and {std}')
        self.mean, self.std = tuple(mean), tuple(std)
        # In double precision first: the two roundings together stay below one unit in the last place.
        std64 = torch.tensor(std, dtype=torch.float64)
        mean64 = torch.tensor(mean, dtype=torch.float64)
        self.register_buffer('scale', (1 / (255 * std64)).float().view(3, 1, 1))
        self.register_buffer('shift', (-mean64 / std64).float().view(3, 1, 1))

    @classmethod
    def from_config(cls, entry: str | Mapping[str, Sequence[float]]) -> 'Normalise':
        """Build from a name or dict(mean=, std=), or raise UserError."""
        if isinstance(entry, str) and entry not in NORMALISATIONS:
            raise UserError(
                f'model.normalise: {entry!r} is none of {list(NORMALISATIONS)}, nor dict(mean=, std=)'
            )
        statistics = NORMALISATIONS[entry] if isinstance(entry, str) else dict(entry)
        check_options(cls, statistics, where='model.normalise', name='Normalise')
        try:
            return cls(**statistics)
        except (TypeError, ValueError) as error:
            raise UserError(f'model.normalise: {error}') from error

    def forward(self, images: Tensor) -> Tensor:
        """uint8 or float (B, 3, H, W) in 0..255 -> float of the same shape and memory format."""
        return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)


def agree(
    given: Normalise | None, wanted: Mapping[str, Sequence[float]] | None, *, source: str | None
) -> Normalise:
    """Return the normalisation to use: the given one, else what pretrained weights want, else ImageNet's.

    Raises:
        UserError: given and wanted differ.
    """
    implied = Normalise(**(wanted or NORMALISATIONS['imagenet']))
    if given is None:
        return implied
    if wanted is not None and (given.mean, given.std) != (implied.mean, implied.std):
        raise UserError(
            f'model.normalise (mean {given.mean}, std {given.std}) contradicts pretrained={source!r}, whose '
            f'weights are only right with mean {implied.mean}, std {implied.std}: leave normalise out'
        )
    return given


class VisionModel(BaseModel):
    """A backbone and a head, paired.

    Args:
        backbone: config entry, `dict(type='MobileNetV2', ...)`.
        head: config entry, `dict(type='LinearHead', ...)`, without a class count.
        classes: class names in the order of their indices.
        normalise: 'imagenet', 'tensorflow', or dict(mean=..., std=...) in units of 0..1; by default what
            the backbone's pretrained weights want, or 'imagenet' without any.
        norm_eval: keep every batch norm's running statistics as they are while training, as small
            batches want it.
        preprocess: config entries of the transforms that turn a picture into the network's input.

    Attributes:
        spec: the constructor's plain arguments, from which a checkpoint rebuilds the model.

    Raises:
        UserError: an unknown name or option in `backbone` or `head`, or another normalisation than the
            pretrained weights want.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        *,
        classes: Sequence[str],
        normalise: str | Mapping[str, Sequence[float]] | None = None,
        norm_eval: bool = False,
        preprocess: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        self.task = find_task(find(HEADS, head, where='model.head').task)
        self.classes = tuple(classes)
        self.preprocess = tuple(preprocess)
        self.norm_eval = norm_eval
        given = None if normalise is None else Normalise.from_config(normalise)
        self.backbone = build(BACKBONES, backbone, where='model.backbone')
        self.normalise = agree(given, self.backbone.normalise, source=backbone.get('pretrained'))
        self.head = build(
            HEADS,
            head,
            where='model.head',
            channels=self.backbone.channels,
            strides=self.backbone.strides,
            num_classes=len(self.classes),
        )
        # A checkpoint brings its own weights: the file they once started from must not be asked for.
        self.spec = {
            'backbone': {
                **{key: value for key, value in backbone.items() if key != 'pretrained'},
                **self.backbone.settled,
            },
            'head': dict(head),
            'normalise': {'mean': self.normalise.mean, 'std': self.normalise.std},
            'norm_eval': norm_eval,
        }
        self.batch_augment: Any = None
        self.multi_scale: Any = None  # `Task.multi_scale`, to score several scales instead of one
        self._transforms: Augment | None = None
        if self.task.maps_back and self.preprocess:
            self.transforms.check_maps_back()
        self.to(memory_format=torch.channels_last)

    def init_weights(self) -> None:
        """Do nothing: backbone and head have initialised themselves. (mmengine calls this.)"""

    def train(self, mode: bool = True) -> 'VisionModel':
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(  # type: ignore[override]  # mmengine passes a batch by keyword
        self,
        images: Tensor,
        targets: Any = None,
        infos: Sequence[SampleInfo] = (),
        skipped: Sequence[Skipped] = (),
        mode: str = 'tensor',
    ) -> Any:
        """Run the network.

        Args:
            images: RGB in 0..255, uint8 or float, (B, 3, H, W).
            targets, infos, skipped: the rest of a `tasks.data.samples.Batch`.
            mode: 'tensor' returns the head's raw outputs, 'loss' the losses, 'predict' the results.
        """
        if mode == 'predict' and len(images) == 0:
            return []
        images = self.normalise(images.contiguous(memory_format=torch.channels_last))
        if mode == 'loss' and self.batch_augment is not None:
            images, targets = self.batch_augment(images, targets)
        if mode == 'predict' and self.multi_scale is not None:
            outputs = self.multi_scale(self, images)
        else:
            with fast_depthwise(images.device) if mode == 'loss' else nullcontext():
                outputs = self.head(self.backbone(images))
        if mode == 'tensor':
            return outputs
        # Losses and post-processing are cheap and want the full range of float32.
        with torch.autocast(images.device.type, enabled=False):
            outputs = in_float32(outputs)
            if mode == 'loss':
                return self.head.loss(outputs, targets)
            answers = self.head.predict(
                outputs,
                [info.size for info in infos],
                input_size=(images.shape[2], images.shape[3]),
                content_sizes=[info.content for info in infos],
            )
        return [
            self.task.result(**answer, class_names=self.classes, path=info.path)
            for answer, info in zip(answers, infos, strict=True)
        ]

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up what begins with 'loss_'; stop at a loss that is not finite, before it reaches the weights.

        mmengine's own adds up whatever has 'loss' in its name.
        """
        total = torch.stack([value for name, value in losses.items() if name.startswith('loss_')]).sum()
        log = {'loss': total, **losses}
        if not torch.isfinite(total):
            parts = ', '.join(f'{name} {float(value.detach()):g}' for name, value in log.items())
            raise NonFiniteLossError(parts)
        return total, log

    def predict(self, inputs: Any, *, batch_size: int = 16) -> Any:
        """Answer for one picture or many.

        Args:
            inputs: a path, an RGB uint8 (H, W, 3) array, a folder, or a list of paths and arrays.
            batch_size: pictures run through the network at a time.

        Returns:
            One result for one picture, a list for a list or folder (in sorted order). Each result keeps its
            picture for `draw()`.

        Raises:
            UserError: a file is missing or no picture, or a folder holds none.
        """
        if isinstance(inputs, (str, Path)) and not Path(inputs).is_dir():
            return next(self.predict_each([inputs]))
        if isinstance(inputs, np.ndarray) or not isinstance(inputs, (str, Path, Sequence)):
            return next(self.predict_each([inputs]))
        if isinstance(inputs, (str, Path)):
            from tasks.data.folders import find_images

            inputs = find_images([inputs])
        return list(self.predict_each(inputs, batch_size=batch_size))

    @torch.inference_mode()
    def predict_each(
        self, pictures: Sequence[str | Path | np.ndarray], *, batch_size: int = 1
    ) -> Iterator[Any]:
        """Yield one result per picture, reading `batch_size` of them at a time; see `predict`."""
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(pictures), batch_size):
                yield from self._predict_batch(pictures[start : start + batch_size])
        finally:
            self.train(was_training)

    def _predict_batch(self, pictures: Sequence[str | Path | np.ndarray]) -> Iterator[Any]:
        originals = [to_image(picture) for picture in pictures]
        inputs = [self.to_input(original) for original in originals]
        contents = [self.content_size(original) for original in originals]
        device = next(self.parameters()).device
        # Inputs of one size share a batch; a task that keeps sizes gets batches of one.
        groups = [inputs] if len({each.shape for each in inputs}) == 1 else [[each] for each in inputs]
        outputs: list[Any] = []
        position = 0
        for group in groups:
            images = torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2).to(device)
            end = position + len(group)
            sizes = [original.shape[:2] for original in originals[position:end]]
            raw = in_float32(self(images))
            outputs += self.head.predict(
                raw,
                sizes,
                input_size=(images.shape[2], images.shape[3]),
                content_sizes=contents[position:end],
            )
            position = end
        for picture, original, answer in zip(pictures, originals, outputs, strict=True):
            path = None if isinstance(picture, np.ndarray) else str(picture)
            yield self.task.result(**answer, class_names=self.classes, image=original, path=path)

    def to_input(self, image: np.ndarray) -> np.ndarray:
        """Turn an RGB uint8 (H, W, 3) picture into the network's input, RGB uint8 (h, w, 3)."""
        return self.transforms(epoch=0, index=0, image=image)['image']

    def content_size(self, image: np.ndarray) -> tuple[int, int] | None:
        """Return which part of `to_input(image)` the picture fills; see `SampleInfo.content`."""
        return self.transforms.content_size(image.shape[0], image.shape[1])

    @property
    def transforms(self) -> Augment:
        """What turns a picture into the network's input."""
        if self._transforms is None:
            self._transforms = Augment(self.preprocess, where='preprocess')
        return self._transforms


def in_float32(outputs: Any) -> Any:
    """Return a tensor, or a nest of them, in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, Mapping):
        return {key: in_float32(value) for key, value in outputs.items()}
    return type(outputs)(in_float32(value) for value in outputs)


def to_image(picture: str | Path | np.ndarray) -> np.ndarray:
    """Read a user's own picture, turned as its EXIF says, or check an array."""
    if isinstance(picture, (str, Path)):
        return read_image(picture, honour_exif=True)
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f'a picture must be a path or an RGB uint8 array, got {type(picture).__name__} (of a PIL image: '
            "np.asarray(image.convert('RGB')))"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise UserError(
            f'a picture must be RGB uint8 (height, width, 3), got {picture.dtype} {picture.shape}'
        )
    return picture
