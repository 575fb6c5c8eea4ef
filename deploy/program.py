"""A trained model as one program: pictures go in, the task's answer comes out.

    uint8 RGB (B, H, W, 3) -> [resize] -> multiply and add -> backbone -> head -> decode -> answer in pixels

It is an nn.Module of plain operations, which torch.export traces; formats are made from that trace. Batch
norms become part of the convolutions before them.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from falconet.core.errors import UserError
from falconet.datasets.images.images import MAX_PIXELS
from falconet.datasets.transforms.dynamic_resize import number
from falconet.deploy.answers import FORMS, LONGEST, PLAIN, Form, Geometry
from falconet.heads.base import Head
from falconet.layers import LenientBatchNorm2d
from falconet.tasks.model import VisionModel

Size = tuple[int, int]
ANY = 'any'
# Sizes on which programs for any are traced and compared: landscape, portrait, smaller than most networks'.
EXAMPLES = ((341, 473), (640, 360), (61, 97))
NORMS = (nn.BatchNorm2d, LenientBatchNorm2d)  # and no others: timm's of the same base activate as well


def check_amount(batch: int, height: int, width: int) -> None:
    """Raise UserError for pictures that together are larger than any picture that is read."""
    if batch * height * width > MAX_PIXELS:
        raise UserError(
            f'{batch} pictures of {height}x{width} have more than {MAX_PIXELS / 1e6:.0f} million pixels: '
            'take a smaller --size or --batch'
        )


class Program(nn.Module):
    """Pictures to answers.

    Args:
        model: whose weights it takes; the model itself stays as it is.
        size: (height, width) of the pictures, of whatever size, which the program itself brings to the
            network's. 'any': one picture at a time, of any size. None: the pictures come as the model's
            transforms made them.
        raw: end at the outputs of the head's `forward`.

    Attributes:
        form: what comes out.
        any_size: whether one picture of any size goes in.
        network: (height, width) of the images that the network sees.
        nest: 'tensor', 'dict' or 'tuple' when `raw`, else None.

    Raises:
        UserError: the size of the network's images is not known without `size`, the transforms cannot be
            done to tensors, or the head has no `decode`, or one of another form, and `raw` is not asked for.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, model: VisionModel, *, size: Size | Literal['any'] | None = None, raw: bool = False
    ) -> None:
        super().__init__()
        self.transforms = None if size is None else model.predictor.transforms
        self.backbone, self.head = fold_norms(model.backbone), fold_norms(model.head)
        scale, shift = (each.cpu().clone() for each in (model.normalise.scale, model.normalise.shift))
        self.register_buffer('scale', scale)
        self.register_buffer('shift', shift)
        self.form: Form = FORMS.get(model.task.name, PLAIN)
        self.raw = raw
        self.nest: Literal['tensor', 'dict', 'tuple'] | None = None
        self.any_size = size == ANY
        self.picture: Size | None = None if self.any_size else fixed_size(model) if size is None else size  # type: ignore[assignment]
        self.network: Size = self._images(self.blank(1)).shape[2:]  # type: ignore[assignment]
        name = type(self.head).__name__
        if not raw and type(self.head).decode is Head.decode:
            raise UserError(
                f'{name} answers through its own predict, which is Python and stays behind: add --raw to '
                'export what the network computes, or give the head decode and place (heads/base.py)'
            )
        self.eval()
        try:
            with torch.no_grad():
                found = self.head(self.backbone(self._images(self.blank(1))))
                self._say(found, self.geometry_of(self.blank(1).shape[1:3]))
        except KeyError as error:
            raise UserError(
                f'{name}.decode gives no {error}, which a program of {model.task.name} answers with: add it, '
                'or export with --raw'
            ) from error
        if raw:
            self.nest = 'dict' if isinstance(found, Mapping) else 'tuple'
            if isinstance(found, Tensor):
                self.nest = 'tensor'

    def blank(self, batch: int) -> Tensor:
        """Return black pictures of the size it takes, or one that it may, uint8 (batch, H, W, 3).

        Raises:
            UserError: they are larger than any picture that is read.
        """
        height, width = self.picture or EXAMPLES[0]
        check_amount(batch, height, width)
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8)

    def geometry_of(self, size: Sequence[int]) -> Geometry:
        """Return the sizes that go with pictures of (height, width), one that it takes."""
        size = (size[0], size[1])
        content = None if self.transforms is None else self.transforms.content_size(*size)
        return Geometry(size, self.network, content, LONGEST if self.any_size else None)

    def shapes(self, batch: int | str) -> dict[str, tuple[Tensor, tuple[int | str, ...]]]:
        """Return by name an example of each output and its shape, with names for sizes that differ."""
        with torch.no_grad():
            one = self(self.blank(1))
            if self.any_size:
                two = self(torch.zeros(1, *EXAMPLES[1], 3, dtype=torch.uint8))
            else:
                two = self(self.blank(2))
        names = (batch, 'height', 'width', 'depth')
        return {
            # Default boxes, for example, are there once for all pictures.
            key: (
                each,
                tuple(
                    side if side == other else name
                    for side, other, name in zip(each.shape, two[key].shape, names, strict=False)
                ),
            )
            for key, each in one.items()
        }

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Answer for RGB uint8 pictures (B, H, W, 3).

        Returns:
            The outputs that `deploy.answers.FORMS` names for the task; with `raw` those of the head, a tensor
            as 'outputs', items of a tuple as 'output_0', ...
        """
        if not self.any_size:
            geometry = self.geometry_of(pictures.shape[1:3])
            return self._say(self.head(self.backbone(self._images(pictures))), geometry)
        assert self.transforms is not None
        images, content = self.transforms.on_any_size(pictures[0])
        height, width = (number(side, pictures) for side in pictures.shape[1:3])
        outputs = self.head(self.backbone(images * self.scale + self.shift))
        return self._say(outputs, Geometry((height, width), self.network, content, LONGEST))

    def _say(self, outputs: Any, geometry: Geometry) -> dict[str, Tensor]:
        return named(outputs) if self.raw else self.form.finish(self.head, outputs, geometry)

    def _images(self, pictures: Tensor) -> Tensor:
        """Return normalised images, float32 (B, 3, h, w)."""
        images = pictures.permute(0, 3, 1, 2)
        if self.any_size and self.transforms is not None:
            images = self.transforms.on_any_size(pictures[0]).pixels
        elif self.transforms is not None:
            images = self.transforms.on_tensors(images)
        return images.float() * self.scale + self.shift


def named(outputs: Any) -> dict[str, Tensor]:
    """Return a head's outputs by name."""
    if isinstance(outputs, Tensor):
        return {'outputs': outputs}
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return {f'output_{place}': each for place, each in enumerate(outputs)}


def unnamed(outputs: Mapping[str, Tensor], nest: str) -> Any:
    """Return what `named` was given."""
    return {
        'tensor': lambda: outputs['outputs'],
        'dict': lambda: outputs,
        'tuple': lambda: (*outputs.values(),),
    }[nest]()


def fixed_size(model: VisionModel) -> Size:
    """Return the (height, width) to which the model's transforms bring pictures of any size.

    Raises:
        UserError: it depends on the picture.
    """
    small, large = (
        model.to_input(np.zeros((*size, 3), np.uint8)).shape[:2] for size in ((40, 30), (700, 900))
    )
    if small != large:
        raise UserError(
            f'the transforms of this model bring pictures to different sizes ({small[0]}x{small[1]} and '
            f'{large[0]}x{large[1]} for 40x30 and 700x900): say with --size HxW which the program is to take'
        )
    return small


def fold_norms(module: nn.Module) -> Any:
    """Return a copy on the CPU, in evaluation mode, with norms made part of the convolutions before them."""
    module = copy.deepcopy(module).cpu().eval()
    for sequence in [each for each in module.modules() if isinstance(each, nn.Sequential)]:
        for (place, layer), (after, norm) in pairwise(list(sequence.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and type(norm) in NORMS:
                sequence.register_module(place, fuse_conv_bn_eval(layer, norm))
                sequence.register_module(after, nn.Identity())
    # ExecuTorch takes weights for what their order in memory says.
    return module.to(memory_format=torch.contiguous_format)
