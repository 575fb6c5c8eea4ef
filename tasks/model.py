"""VisionModel: normalisation, backbone and head in one module, with everything needed to use it alone.

uint8 or float images (B, 3, H, W) -> normalise -> backbone -> [maps] -> head.forward -> outputs
                                                   training:   head.loss    -> {'loss_...': scalar}
                                                   evaluation: head.predict -> one typed result an image
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from falconet.backbones.base import BACKBONES
from falconet.core.nested import in_float32, on_device
from falconet.core.registry import build, find
from falconet.datasets.samples import SampleInfo, Skipped
from falconet.datasets.transforms.augment import fill_left_open
from falconet.heads.base import HEADS
from falconet.layers.fast.depthwise import fast_depthwise
from falconet.layers.fast.recompute import recompute
from falconet.tasks.normalise import Normalise, agree
from falconet.tasks.predictor import Predictor, Predicts
from falconet.tasks.task import find_task

# (images, targets) -> (images, targets)
BatchAugment = Callable[[Tensor, Any], tuple[Tensor, Any]]
# (images in 0..255, float outputs, targets, losses of the labels) -> all losses
Teach = Callable[[Tensor, Any, Any, dict[str, Tensor]], dict[str, Tensor]]


class NonFiniteLossError(ArithmeticError):
    """The loss is NaN or infinite; the weights have not been touched by it."""


class VisionModel(Predicts, nn.Module):
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
        self.norm_eval = norm_eval
        given = None if normalise is None else Normalise.from_config(normalise)
        self.backbone = build(BACKBONES, backbone, where='model.backbone')
        self.normalise = agree(given, self.backbone.normalise, source=backbone.get('pretrained'))
        self.preprocess = tuple(fill_left_open(preprocess, self.normalise.mean_pixel))
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
        self.predictor = Predictor(
            self.infer, head=self.head, task=self.task, classes=self.classes, preprocess=self.preprocess
        )
        self.to(memory_format=torch.channels_last)

    # mmengine's Runner asks whether a model has these; both steps stand in `engine.loops`. Its own base class
    # has them, too; to import that is to import all of torch's distributed training, which takes seconds.
    train_step = val_step = None

    def data_preprocessor(self, data: Any, training: bool = False) -> Any:
        """Return a batch on the model's device."""
        return on_device(data, self.device)

    def init_weights(self) -> None:
        """Do nothing: backbone and head have initialised themselves."""

    def train(self, mode: bool = True) -> 'VisionModel':
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(
        self,
        images: Tensor,
        targets: Any = None,
        infos: Sequence[SampleInfo] = (),
        skipped: Sequence[Skipped] = (),
        batch_augment: BatchAugment | None = None,
        teacher: Teach | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run the network.

        Args:
            images: RGB in 0..255, uint8 or float, (B, 3, H, W).
            targets, infos, skipped: the rest of a `datasets.samples.Batch`.
            batch_augment: mixes normalised images and targets before the loss.
            teacher: adds what another network says of the same images to the losses.
            mode: 'tensor' returns the head's raw outputs, 'loss' the losses, 'predict' the results.
        """
        if mode == 'predict':
            return self.predictor.answer(images, infos)
        images = self.normalise(images.contiguous(memory_format=torch.channels_last))
        if batch_augment is not None:
            images, targets = batch_augment(images, targets)
        is_step = mode == 'loss'
        with fast_depthwise(images.device) if is_step else nullcontext(), recompute(is_step):
            outputs = self.head(self.backbone(images))
        if mode == 'tensor':
            return outputs
        # Losses are cheap and want the full range of float32.
        with torch.autocast(images.device.type, enabled=False):
            outputs = in_float32(outputs)
            losses = self.head.loss(outputs, targets)
            return (
                losses if teacher is None else teacher(self.normalise.undo(images), outputs, targets, losses)
            )

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

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def infer(self, images: Tensor) -> Any:
        """Return the outputs of RGB images (B, 3, H, W) on any device, in evaluation mode for that long."""
        was_training = self.training
        if was_training:
            self.eval()
        try:
            return self(images.to(self.device))
        finally:
            if was_training:
                self.train()
