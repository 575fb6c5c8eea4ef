"""The one door to albumentations: build transforms by name, and make their randomness repeatable.

What an image goes through depends on (seed, epoch, sample index) and on nothing else: not on the number of
workers, not on what was drawn before, not on whether the run was resumed.
"""

import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from torch import Tensor

from falconet.core.errors import UserError, closest
from falconet.datasets.transforms.dynamic_resize import Image, number, resize_any, whole_line
from falconet.datasets.transforms.fast_path import quick_steps
from falconet.datasets.transforms.jpeg_draft import reduction
from falconet.datasets.transforms.tensor_resize import METHODS, resize_tensors

# Without this the import asks the network for a newer release.
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

# OpenCV's numbers, so that a config can name them and a checkpoint stays readable.
INTERPOLATIONS = {'nearest': 0, 'linear': 1, 'cubic': 2, 'area': 3, 'lanczos': 4}  # cv2.INTER_*
IMAGENET_MEAN = (124, 116, 104)  # mean pixel of ImageNet, RGB in 0..255: zero after normalisation


class Augment:
    """A list of albumentations transforms, by name, applied with a random state of its own per sample.

    Args:
        transforms: config entries, `dict(type='HorizontalFlip', p=0.5)`: any class of albumentations, or
            one registered in mmengine's TRANSFORMS. Interpolations may be named ('nearest', 'linear',
            'cubic', 'area', 'lanczos').
        where: the config key, for messages.
        seed: seed of the run.
        **compose: further arguments of `albumentations.Compose`, for example `bbox_params`.

    Attributes:
        combines: whether a transform makes one sample of several, and so wants `others` beside its targets.

    Raises:
        UserError: an unknown transform or option; the closest names are shown.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any]] = (),
        *,
        where: str = 'augment',
        seed: int = 0,
        **compose: Any,
    ) -> None:
        self.seed = seed
        self._entries, self._where, self._options = tuple(transforms), where, compose
        self._smaller: dict[int, Any] = {}  # by the side they end with
        self._compose = self._build()
        self.combines = _any_combines(self._compose.transforms)
        self._random = random.Random()
        self._quick = None if compose else quick_steps(self._compose.transforms)
        self._moved = self._compose.available_keys - {'image'}

    def _build(self, *last: Any) -> Any:
        """Return the transforms, with `last` behind them."""
        import albumentations

        built = [build_transform(entry, where=f'{self._where}[{i}]') for i, entry in enumerate(self._entries)]
        with warnings.catch_warnings():
            # A list that moves nothing (colours only, or empty) leaves boxes where they are, as it should.
            warnings.filterwarnings('ignore', 'Got processor for .*, but no transform to process it')
            return albumentations.Compose([*built, *last], seed=self.seed, **self._options)

    def __call__(
        self, *, epoch: int, index: int, copy: int = 0, side: int | None = None, **targets: Any
    ) -> dict[str, Any]:
        """Apply the transforms.

        Args:
            epoch, index: which pass over the data, and which sample.
            copy: which of several augmentations of that sample.
            side: shrink what comes out until its shorter side has so many pixels. All else stays as without.
            **targets: `image` (RGB uint8, (H, W, 3)) and whatever is to move with it: `mask`, `bboxes`, ...

        Returns:
            The transformed targets under the same names; the image contiguous.
        """
        # Spawned from one sequence, so that neither stream repeats the other or another sample's.
        key = [self.seed, epoch, index, *([copy] if copy else [])]
        if max(key) < 2**32:  # the same sequence, told in half the time
            key = np.array(key, np.uint32)
        state = np.random.SeedSequence(key).generate_state(4, np.uint64)
        self._random.seed(int(state[2]))
        if self._quick is not None and side is None and self._moved.isdisjoint(targets):
            return {**targets, 'image': self._quickly(targets['image'])}
        compose = self._compose if side is None else self._shrinking(side)
        compose.set_random_state(np.random.default_rng(state[:2]), self._random)
        result = compose(**targets)
        return {**result, 'image': np.ascontiguousarray(result['image'])}

    def _quickly(self, image: np.ndarray) -> np.ndarray:
        """Do what `_compose` does to a picture alone."""
        self._random.random()  # by which Compose decides to do anything: always
        for transform, step in self._quick or ():
            transform.py_random = self._random
            if transform.should_apply():
                image = step(transform, image)
        return np.ascontiguousarray(image)

    def _shrinking(self, side: int) -> Any:
        """Return the transforms with one more behind them, which draws no random number."""
        import albumentations
        import cv2

        if side not in self._smaller:
            shrink = albumentations.SmallestMaxSize(
                max_size=side, interpolation=cv2.INTER_AREA, mask_interpolation=cv2.INTER_NEAREST, p=1.0
            )
            self._smaller[side] = self._build(shrink)
        return self._smaller[side]

    def content_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return which part of the transformed image a (height, width) image fills.

        Returns:
            (height, width) from the upper left corner, in pixels; None for all of it. A transform that
            pads says so with a method of this name.
        """
        size: tuple[int, int] | None = None
        for transform in self._compose.transforms:
            if (content_size := getattr(transform, 'content_size', None)) is not None:
                size = content_size(*(size or (height, width)))
        return size

    def reduction(self, height: int, width: int) -> int:
        """Return by how much the sides of a picture (height, width) may be divided before: 1, 2, 4 or 8."""
        return reduction(self._compose.transforms, height, width)

    def on_tensors(self, images: Tensor) -> Tensor:
        """Do to a batch of pictures of one size what the transforms do to each, so that it can be exported.

        Args:
            images: RGB uint8 or float (B, 3, H, W), in 0..255.

        Returns:
            float32 (B, 3, h, w), in 0..255: the same grey levels up to OpenCV's rounding.

        Raises:
            UserError: a transform has no twin for tensors (colours, random crops, ...).
        """
        images = images.float()
        for transform in self._compose.transforms:
            images = twin(transform, 'on_tensors')(images)
        return images

    def on_any_size(self, picture: Tensor) -> Image:
        """Do the same to one picture whose size may stay open when this is exported.

        Args:
            picture: RGB uint8 or float (H, W, 3), in 0..255.

        Returns:
            As `on_tensors`, of a batch of one, and the part of it that the picture fills.

        Raises:
            UserError: as `on_tensors`, or there is no transform that gives every picture one size.
        """
        first, *others = self._compose.transforms or [None]
        if first is None:
            raise UserError(
                'the model has no transforms that bring pictures of any size to one: say --size HxW instead'
            )
        images, content = twin(first, 'on_any_size')(picture)
        for transform in others:
            images = twin(transform, 'on_tensors')(images)
        return Image(images, content)

    def check_maps_back(self) -> None:
        """Raise UserError unless what is found in the transformed image can be brought back to the original.

        That needs the whole image, stretched over the result or, by one transform that says so with
        `content_size`, in its upper left corner.
        """
        import albumentations

        moved = False
        for transform in self._compose.transforms:
            if isinstance(transform, albumentations.ImageOnlyTransform) and not hasattr(transform, 'crop'):
                continue  # colours
            stretches = isinstance(transform, albumentations.Resize) or getattr(transform, 'stretches', False)
            if moved or not (stretches or hasattr(transform, 'content_size')):
                raise UserError(
                    f'evaluation and prediction cannot use {type(transform).__name__} here: boxes and masks '
                    'have to be brought back to the picture. Beside colours take one of Resize (stretches) '
                    'and ResizePad (keeps the shape; enlarge=True for small pictures too)'
                )
            moved = True


def _any_combines(transforms: Sequence[Any]) -> bool:
    return any(
        getattr(each, 'combines', False) or _any_combines(getattr(each, 'transforms', ()))
        for each in transforms
    )


def fill_left_open(
    transforms: Sequence[Mapping[str, Any]], pixel: tuple[int, ...], *, explicit: bool = False
) -> list[Mapping[str, Any]]:
    """Return config entries in which transforms that fill with ImageNet's mean unless told fill with `pixel`.

    Args:
        transforms: config entries, of which those with a `fill` of their own keep it.
        pixel: RGB in 0..255 that the model's normalisation makes zero.
        explicit: write it down even where it is ImageNet's, so that no other is put there later.
    """
    if pixel == IMAGENET_MEAN and not explicit:
        return list(transforms)
    entries = []
    for entry in transforms:
        if not isinstance(entry, Mapping):
            entries.append(entry)  # refused where the transforms are built
            continue
        inner = {}
        if 'transforms' in entry:
            inner['transforms'] = fill_left_open(entry['transforms'], pixel, explicit=explicit)
        factory = TRANSFORMS.module_dict.get(str(entry.get('type')))
        option = inspect.signature(factory).parameters.get('fill') if factory is not None else None
        is_open = option is not None and option.default == IMAGENET_MEAN
        entries.append({**({'fill': pixel} if is_open else {}), **entry, **inner})
    return entries


def twin(transform: Any, name: str) -> Any:
    """Return what does a transform to tensors: its method called `name`, or that of albumentations' Resize.

    Raises:
        UserError: it has none.
    """
    import albumentations

    if (method := getattr(transform, name, None)) is not None:
        return method
    known = isinstance(transform, albumentations.Resize) and transform.p == 1
    if known and transform.interpolation < len(METHODS):
        return partial({'on_tensors': resize_on_tensors, 'on_any_size': resize_on_any}[name], transform)
    raise UserError(
        f'{type(transform).__name__} cannot be done to tensors, so it cannot be exported. Take '
        'ResizeCenterCrop, ResizePad, ResizeTensorFlow, or a Resize with p=1 and one of the '
        f'interpolations {", ".join(METHODS)}'
    )


def resize_on_tensors(transform: Any, images: Tensor) -> Tensor:
    """Do what albumentations' Resize does, by its `area_for_downscale` and `interpolation`."""
    shrinks = transform.height < images.shape[2] or transform.width < images.shape[3]
    averages = shrinks and transform.area_for_downscale is not None
    method = 'area' if averages else METHODS[transform.interpolation]
    return resize_tensors(images, (transform.height, transform.width), method)


def resize_on_any(transform: Any, picture: Tensor) -> Image:
    """Do the same to a picture (H, W, 3) whose size may stay open."""
    rows, columns = (number(side, picture) for side in picture.shape[:2])
    methods: dict[str, Tensor | None] = {METHODS[transform.interpolation]: None}
    if transform.area_for_downscale is not None and 'area' not in methods:
        methods = {'area': torch.logical_or(transform.height < rows, transform.width < columns), **methods}
    lines = (whole_line(rows, transform.height), whole_line(columns, transform.width))
    return Image(resize_any(picture, *lines, methods))


def build_transform(entry: Mapping[str, Any], *, where: str) -> Any:
    """Build one transform from its config entry. `transforms` inside it are built as well (OneOf, ...)."""
    import albumentations
    from albumentations.core.composition import BaseCompose
    from albumentations.core.transforms_interface import BasicTransform

    if not isinstance(entry, Mapping) or not isinstance(entry.get('type'), str):
        raise UserError(f"{where} must be dict(type='Name', ...), got {entry!r}")
    name = entry['type']
    options = {key: value for key, value in entry.items() if key != 'type'}
    factory = TRANSFORMS.module_dict.get(name) or getattr(albumentations, name, None)
    if not (isinstance(factory, type) and issubclass(factory, (BasicTransform, BaseCompose))):
        known = [
            key
            for key, value in vars(albumentations).items()
            if isinstance(value, type) and issubclass(value, (BasicTransform, BaseCompose))
        ]
        known += list(TRANSFORMS.module_dict)
        raise UserError(f'{where}: no transform is called {name!r}. {closest(name, known)}')

    if 'transforms' in options:
        options['transforms'] = [
            build_transform(inner, where=f'{where}.transforms[{i}]')
            for i, inner in enumerate(options['transforms'])
        ]
    for key, value in options.items():
        if key.endswith('interpolation') and isinstance(value, str):
            if value not in INTERPOLATIONS:
                raise UserError(f'{where} ({name}): {key}={value!r} is none of {list(INTERPOLATIONS)}')
            options[key] = INTERPOLATIONS[value]
        elif isinstance(value, list) and key != 'transforms':
            options[key] = tuple(value)  # a checkpoint's config comes back with lists
    try:
        with warnings.catch_warnings():
            # albumentations only warns of an option it does not know, and goes on without it.
            warnings.simplefilter('error', UserWarning)
            return factory(**options)
    except (TypeError, ValueError, UserWarning) as error:
        raise UserError(f'{where} ({name}): {error}') from error
