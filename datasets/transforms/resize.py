"""Transforms that bring a picture of any size to the network's input, each for arrays and for tensors.

`apply` does it to a picture, with OpenCV, before it enters a batch; `on_tensors` does the same to a batch of
equal pictures in torch operations that export: uint8 or float (B, 3, H, W) in 0..255 -> float32 (B, 3, h, w),
whole grey levels. `on_any_size` does it to one picture (H, W, 3) whose size is left open in the export.
"""

from collections.abc import Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from albumentations.core.type_definitions import Targets
from mmengine.registry import TRANSFORMS
from torch import Tensor

from falconet.datasets.transforms.augment import IMAGENET_MEAN, INTERPOLATIONS
from falconet.datasets.transforms.dynamic_resize import Image, Line, number, resize_any, whole_line
from falconet.datasets.transforms.tensor_resize import resize_tensors
from falconet.heads.base import IGNORE


def as_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of a size given as that or as one side; ValueError unless both are above 0."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f'size must be above 0, got {size}')
    return height, width


@TRANSFORMS.register_module()
class ResizePad(albumentations.DualTransform):
    """Fit an image into a box, keeping its shape, and fill the box to the right and below.

    The evaluation of DeepLab, where 513 holds every VOC image unscaled. A large photograph costs no more than
    a small one; boxes and masks are brought back to its own size by the head.

    Args:
        size: (height, width) of the box, or its side, in pixels.
        fill: RGB of the rest of the box; by default the mean pixel of the model's normalisation, which is
            ImageNet's unless the weights come from TensorFlow. See `fill_left_open`.
        fill_mask: label of the rest of a mask.
        enlarge: also enlarge images that are smaller than the box.
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)
    fill: Any  # the base class declares both as numbers
    fill_mask: Any

    def __init__(
        self,
        size: int | Sequence[int] = 513,
        fill: Sequence[int] = IMAGENET_MEAN,
        fill_mask: int = IGNORE,
        enlarge: bool = False,
    ) -> None:
        super().__init__(p=1.0)
        self.size = as_size(size)
        self.fill = tuple(fill)
        self.fill_mask = fill_mask
        self.enlarge = enlarge

    def content_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that an image of this size has inside the box, in pixels."""
        scale = min(self.size[0] / height, self.size[1] / width)
        scale = scale if self.enlarge else min(1.0, scale)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def shrinks(self, height: int, width: int) -> float:
        """Return how many pixels along a side become one; see `datasets.transforms.jpeg_draft`."""
        return max(height / self.size[0], width / self.size[1])

    def _method(self, height: int, width: int) -> str:
        return 'area' if self.content_size(height, width)[0] < height else 'linear'

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return self._fit(img, INTERPOLATIONS[self._method(*img.shape[:2])], self.fill)

    def on_tensors(self, images: Tensor) -> Tensor:
        """The twin of `apply`; see `Augment.on_tensors`."""
        old = (images.shape[2], images.shape[3])
        height, width = self.content_size(*old)
        fill = torch.tensor(self.fill, device=images.device).float().round().view(3, 1, 1)
        images = resize_tensors(images, (height, width), self._method(*old))
        # `pad` knows one number for all channels.
        return F.pad(images - fill, (0, self.size[1] - width, 0, self.size[0] - height)) + fill

    def on_any_size(self, picture: Tensor) -> Image:
        """The same for a size left open; see `Augment.on_any_size`."""
        old = [number(side, picture) for side in picture.shape[:2]]
        scale = torch.minimum(self.size[0] / old[0], self.size[1] / old[1])
        scale = scale if self.enlarge else scale.clamp(max=1)
        height, width = [(side * scale).round().clamp(min=1) for side in old]
        zero = torch.zeros_like(scale)
        rows = Line(old[0], height, zero, zero, self.size[0])
        columns = Line(old[1], width, zero, zero, self.size[1])
        methods = {'area': height < old[0], 'linear': None}
        return Image(resize_any(picture, rows, columns, methods, fill=self.fill), (height, width))

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return self._fit(mask, cv2.INTER_NEAREST, (self.fill_mask,))

    def apply_to_bboxes(self, bboxes: np.ndarray, **params: Any) -> np.ndarray:
        height, width = self.content_size(*params['shape'][:2])
        moved = bboxes.copy()
        moved[:, :4] *= [width / self.size[1], height / self.size[0]] * 2
        return moved

    def _fit(self, array: np.ndarray, method: int, fill: Sequence[int]) -> np.ndarray:
        height, width = self.content_size(*array.shape[:2])
        if (height, width) != array.shape[:2]:
            array = cv2.resize(array, (width, height), interpolation=method)
        return cv2.copyMakeBorder(
            array,
            0,
            self.size[0] - height,
            0,
            self.size[1] - width,
            cv2.BORDER_CONSTANT,
            value=tuple(float(each) for each in fill),
        )

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('size', 'fill', 'fill_mask', 'enlarge')


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

    def shrinks(self, height: int, width: int) -> float:
        """Return how many pixels along a side become one; see `datasets.transforms.jpeg_draft`."""
        return min(height, width) / self.resize

    def _plan(self, height: int, width: int) -> tuple[Any, tuple[int, int], str, Any]:
        """Return which part is scaled, to which size, by which method, and which part of that is kept."""
        short = min(height, width)
        limit = 4 * short
        middle = tuple(slice(max(0, side - limit) // 2, (side + limit) // 2) for side in (height, width))
        # Rounded as torchvision rounds: one pixel more or less shifts the crop by half a pixel.
        height, width = (int(self.resize * min(side, limit) / short) for side in (height, width))
        # INTER_LINEAR_EXACT is not antialiased; averaging is what PIL and torchvision do when shrinking.
        method = 'area' if self.resize < short else 'linear'
        starts = [round((side - self.crop) / 2) for side in (height, width)]
        return middle, (height, width), method, tuple(slice(start, start + self.crop) for start in starts)

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        middle, size, method, square = self._plan(*img.shape[:2])
        return cv2.resize(img[middle], size[::-1], interpolation=INTERPOLATIONS[method])[square]

    def on_tensors(self, images: Tensor) -> Tensor:
        """The twin of `apply`; see `Augment.on_tensors`."""
        middle, size, method, square = self._plan(images.shape[2], images.shape[3])
        return resize_tensors(images[(..., *middle)], size, method)[(..., *square)]

    def on_any_size(self, picture: Tensor) -> Image:
        """The same for a size left open; see `Augment.on_any_size`."""
        sides = [number(side, picture) for side in picture.shape[:2]]
        short = torch.minimum(*sides)

        def line(side: Tensor) -> Line:
            old = torch.minimum(side, 4 * short)
            new = (self.resize * old / short).trunc()
            first = ((side - 4 * short).clamp(min=0) / 2).floor()
            return Line(old, new, first, ((new - self.crop) / 2).round(), self.crop)

        rows, columns = map(line, sides)
        return Image(resize_any(picture, rows, columns, {'area': self.resize < short, 'linear': None}))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('resize', 'crop')


@TRANSFORMS.register_module()
class ResizeTensorFlow(albumentations.DualTransform):
    """Resize bilinearly as TensorFlow 1 did, for weights that were trained that way.

    Output pixel i reads the input at i * input / output, without the half pixel that centres pixels
    (`tf.compat.v1.image.resize_bilinear`), and without antialiasing.

    Args:
        height, width: of the output, in pixels.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)
    stretches = True  # the whole image over the whole result; see `Augment.check_maps_back`

    def __init__(self, height: int, width: int) -> None:
        if min(height, width) < 1:
            raise ValueError(f'height and width must be at least 1, got {height} and {width}')
        super().__init__(p=1.0)
        self.height, self.width = height, width

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        # In TensorFlow's order, float32 throughout; of a large picture only the pixels that are read.
        top, bottom, down = _read_places(img.shape[0], self.height)
        left, right, across = _read_places(img.shape[1], self.width)
        rows = np.take(img, np.concatenate([top, bottom]), axis=0)
        corners = np.take(rows, np.concatenate([left, right]), axis=1).astype(np.float32)
        corners = corners.reshape(2, self.height, 2, 3 * self.width)
        before, after = corners[:, :, 0], corners[:, :, 1]
        after -= before  # in place: new memory for each of these would take longer than the sums
        after *= np.repeat(across, 3)
        before += after
        upper, lower = before
        lower -= upper
        lower *= down[:, None]
        upper += lower
        return np.rint(upper).astype(np.uint8).reshape(self.height, self.width, 3)

    def on_tensors(self, images: Tensor) -> Tensor:
        """The twin of `apply`; see `Augment.on_tensors`."""
        return resize_tensors(images, (self.height, self.width), 'tensorflow')

    def on_any_size(self, picture: Tensor) -> Image:
        """The same for a size left open; see `Augment.on_any_size`."""
        rows = whole_line(number(picture.shape[0], picture), self.height)
        columns = whole_line(number(picture.shape[1], picture), self.width)
        return Image(resize_any(picture, rows, columns, {'tensorflow': None}))

    def apply_to_bboxes(self, bboxes: np.ndarray, **params: Any) -> np.ndarray:
        return bboxes  # fractions of the image stay what they are

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('height', 'width')


def _read_places(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two input pixels that each output pixel reads, int64 (new,), and the second one's share."""
    position = np.arange(new, dtype=np.float32) * (old / new)
    low = position.astype(np.int64)
    return low, np.minimum(low + 1, old - 1), (position - low).astype(np.float32)
