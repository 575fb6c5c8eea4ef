"""Normalisation of pixels, which travels inside the model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from falconet.backbones.weights.layouts import NORMALISATIONS
from falconet.core.errors import UserError
from falconet.core.options import check_options, number, sequence
from falconet.core.registry import check_options as check_names


class Normalise(nn.Module):
    """Pixels 0..255 to (pixel / 255 - mean) / std, with mean and std as buffers.

    Args:
        mean, std: per RGB channel, in units of 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        numbers = number(least=-1e6, most=1e6)
        three = sequence(numbers, '3 numbers, for red, green and blue', least=3, most=3)
        check_options({'mean': three, 'std': three}, locals())
        if min(std) <= 0:
            raise ValueError(f'mean and std need 3 numbers each, std above 0; got {mean} and {std}')
        self.mean, self.std = tuple(mean), tuple(std)
        # In double precision first: the two roundings together stay below one unit in the last place.
        scale = [1 / (255 * each) for each in std]
        shift = [-middle / each for middle, each in zip(mean, std, strict=True)]
        self.register_buffer('scale', torch.tensor(scale).view(3, 1, 1))
        self.register_buffer('shift', torch.tensor(shift).view(3, 1, 1))

    @property
    def mean_pixel(self) -> tuple[int, ...]:
        """RGB in 0..255 that becomes zero, rounded."""
        return tuple(round(255 * value) for value in self.mean)

    @classmethod
    def from_config(cls, entry: str | Mapping[str, Sequence[float]]) -> 'Normalise':
        """Build from a name or dict(mean=, std=), or raise UserError."""
        if isinstance(entry, str) and entry not in NORMALISATIONS:
            raise UserError(
                f'model.normalise: {entry!r} is none of {list(NORMALISATIONS)}, nor dict(mean=, std=)'
            )
        if not isinstance(entry, (str, Mapping)):
            raise UserError(f'model.normalise must be a name or dict(mean=, std=), got {entry!r}')
        statistics = NORMALISATIONS[entry] if isinstance(entry, str) else dict(entry)
        check_names(cls, statistics, where='model.normalise', name='Normalise')
        try:
            return cls(**statistics)
        except (TypeError, ValueError) as error:
            raise UserError(f'model.normalise: {error}') from error

    def forward(self, images: Tensor) -> Tensor:
        """uint8 or float (B, 3, H, W) in 0..255 -> float of the same shape and memory format."""
        exported = torch.compiler.is_compiling() or bool(torch._C._get_tracing_state())
        if exported or images.device.type != 'cpu' or images.requires_grad or not _lies_in_rows(images):
            return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)
        # Of channels_last memory torch computes three numbers at a time, one pixel's; here a row of pixels.
        # The same bits in a quarter of the time.
        batch, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels)
        scale, shift = (each.flatten().repeat(width) for each in (self.scale, self.shift))
        normalised = rows.to(self.scale.dtype, copy=True)  # float pictures are the caller's
        torch.addcmul(shift, normalised, scale, out=normalised)
        return normalised.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def undo(self, images: Tensor) -> Tensor:
        """Return normalised images (B, 3, H, W) as float pixels, 0..255 again up to rounding."""
        return (images - self.shift) / self.scale


def _lies_in_rows(images: Tensor) -> bool:
    """Whether the pixels of images (B, 3, H, W) follow each other in memory, each with its three channels."""
    return images.numel() > 0 and images.is_contiguous(memory_format=torch.channels_last)


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
