"""Published augmentations by torchvision.transforms.v2, as entries of `augment` beside albumentations'.

RandAugment (arXiv 1909.13719), TrivialAugmentWide (arXiv 2103.10158), AugMix (arXiv 1912.02781), random
erasing (arXiv 1708.04896). They run on uint8 tensors, from a seed that the sample's random state draws, so
that a picture is the same with any number of workers.
"""

import math
from collections.abc import Sequence
from typing import Any

import albumentations
import numpy as np
import torch
from mmengine.registry import TRANSFORMS

from falconet.core.errors import UserError
from falconet.datasets.transforms.augment import IMAGENET_MEAN


class TorchvisionTransform(albumentations.ImageOnlyTransform):
    """Does what a transform of torchvision's does to RGB uint8 tensors.

    Attributes:
        moves_pixels: boxes and masks would no longer lie where they were.
    """

    moves_pixels = True

    def build(self) -> Any:
        """Return the transform of torchvision's; it is slow to import, and only wanted in training."""
        raise NotImplementedError

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the seed; UserError where boxes or a mask belong to the picture and it moves pixels."""
        belongs = [key for key in ('bboxes', 'mask') if key in data]
        if self.moves_pixels and belongs:
            raise UserError(
                f'augment: {type(self).__name__} turns and shifts pixels, which {belongs[0]} cannot follow. '
                'It is for classification; beside boxes and masks take transforms of albumentations '
                '(Affine, RandomBrightnessContrast, ...)'
            )
        return {'seed': int(self.random_generator.integers(2**63))}

    def apply(self, img: np.ndarray, seed: int, **params: Any) -> np.ndarray:
        if not hasattr(self, '_built'):
            self._built = self.build()
        picture = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1)
        # Elsewhere random draws go on as if nothing had been drawn here.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            changed = self._built(picture)
        return changed.permute(1, 2, 0).contiguous().numpy()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is built: loading processes build their own."""
        return {key: value for key, value in self.__dict__.items() if key != '_built'}


def _check(name: str, value: float, least: float, most: float) -> None:
    """Raise ValueError for a number outside its range; a whole one where the range is of whole numbers."""
    whole = isinstance(least, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(f'{name} must be a {"whole " if whole else ""}number, got {value!r}')
    if not least <= value <= most:
        raise ValueError(f'{name} must lie in {least}..{most}, got {value}')


def _colour(fill: Any) -> tuple[float, ...]:
    """Return RGB; ValueError for anything else."""
    values = fill if isinstance(fill, Sequence) and len(fill) == 3 else ()
    if not values or any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in values):
        raise ValueError(f'fill must be three numbers, red, green and blue in 0..255, got {fill!r}')
    if not all(0 <= each <= 255 for each in values):
        raise ValueError(f'fill must lie in 0..255, got {fill!r}')
    return tuple(values)


def _range(name: str, value: Any, most: float) -> tuple[float, float]:
    """Return (least, largest); ValueError for anything else."""
    try:
        least, largest = (float(each) for each in value)
    except (TypeError, ValueError):
        least = largest = 0.0
    if not 0 < least <= largest <= most:
        below = '' if most == math.inf else f' and at most {most:g}'
        raise ValueError(f'{name} must be (least, largest), above 0{below}, got {value!r}')
    return least, largest


@TRANSFORMS.register_module()
class RandAugment(TorchvisionTransform):
    """A few random operations of one strength.

    Args:
        num_ops: how many operations follow each other.
        magnitude: their strength, 0 to `num_magnitude_bins` - 1.
        num_magnitude_bins: steps of the scale.
        fill: RGB of what comes into view, 0..255; by default the mean pixel of the model's normalisation.
        p: probability of doing anything.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        fill: Sequence[float] = IMAGENET_MEAN,
        p: float = 1.0,
    ) -> None:
        _check('num_ops', num_ops, 1, 16)
        _check('num_magnitude_bins', num_magnitude_bins, 2, 1000)
        _check('magnitude', magnitude, 0, num_magnitude_bins - 1)
        super().__init__(p=p)
        self.num_ops, self.magnitude, self.num_magnitude_bins = num_ops, magnitude, num_magnitude_bins
        self.fill: Any = _colour(fill)

    def build(self) -> Any:
        from torchvision.transforms import v2

        return v2.RandAugment(self.num_ops, self.magnitude, self.num_magnitude_bins, fill=list(self.fill))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('num_ops', 'magnitude', 'num_magnitude_bins', 'fill')


@TRANSFORMS.register_module()
class TrivialAugment(TorchvisionTransform):
    """One random operation of random strength: nothing to tune.

    Args:
        num_magnitude_bins: steps of the scale of strengths.
        fill: as in `RandAugment`.
        p: probability of doing anything.
    """

    def __init__(
        self, num_magnitude_bins: int = 31, fill: Sequence[float] = IMAGENET_MEAN, p: float = 1.0
    ) -> None:
        _check('num_magnitude_bins', num_magnitude_bins, 2, 1000)
        super().__init__(p=p)
        self.num_magnitude_bins = num_magnitude_bins
        self.fill: Any = _colour(fill)

    def build(self) -> Any:
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide(self.num_magnitude_bins, fill=list(self.fill))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('num_magnitude_bins', 'fill')


@TRANSFORMS.register_module()
class AugMix(TorchvisionTransform):
    """Several chains of operations, mixed with the picture (without the consistency loss of its paper).

    Args:
        severity: strength of the operations, 1 to 10.
        mixture_width: how many chains.
        chain_depth: operations in a chain; -1 draws 1 to 3.
        alpha: of the distributions that the shares are drawn from.
        all_ops: also those that change colours and contrast as the paper's test corruptions do.
        fill: as in `RandAugment`.
        p: probability of doing anything.
    """

    def __init__(
        self,
        severity: int = 3,
        mixture_width: int = 3,
        chain_depth: int = -1,
        alpha: float = 1.0,
        all_ops: bool = True,
        fill: Sequence[float] = IMAGENET_MEAN,
        p: float = 1.0,
    ) -> None:
        _check('severity', severity, 1, 10)
        _check('mixture_width', mixture_width, 1, 16)
        _check('chain_depth', chain_depth, -1, 16)
        _check('alpha', alpha, 1e-3, 1e3)
        super().__init__(p=p)
        self.severity, self.mixture_width, self.chain_depth = severity, mixture_width, chain_depth
        self.alpha, self.all_ops = alpha, all_ops
        self.fill: Any = _colour(fill)

    def build(self) -> Any:
        from torchvision.transforms import v2

        options = {
            name: getattr(self, name)
            for name in ('severity', 'mixture_width', 'chain_depth', 'alpha', 'all_ops')
        }
        return v2.AugMix(**options, fill=list(self.fill))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('severity', 'mixture_width', 'chain_depth', 'alpha', 'all_ops', 'fill')


@TRANSFORMS.register_module()
class RandomErasing(TorchvisionTransform):
    """Paint a random rectangle in one colour. Boxes and masks stay: it may hide what they mark.

    Args:
        scale: least and largest area of the rectangle, as shares of the picture's.
        ratio: least and largest of its height by its width.
        fill: as in `RandAugment`.
        p: probability of doing anything.
    """

    moves_pixels = False

    def __init__(
        self,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        fill: Sequence[float] = IMAGENET_MEAN,
        p: float = 0.25,
    ) -> None:
        super().__init__(p=p)
        self.scale, self.ratio = _range('scale', scale, 1.0), _range('ratio', ratio, math.inf)
        self.fill: Any = _colour(fill)

    def build(self) -> Any:
        from torchvision.transforms import v2

        colour: Any = [float(each) for each in self.fill]
        return v2.RandomErasing(p=1.0, scale=self.scale, ratio=self.ratio, value=colour)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ('scale', 'ratio', 'fill')
