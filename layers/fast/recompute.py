"""Maps that are made again in the backward pass instead of being kept for it.

A convolution keeps its input for the gradient of its weights. Where that input is a fused norm's result
(`layers.fast.fused`), the norm has already kept its own input, from which the result is made anew, bit by bit
the same, in one walk over the rows. So of the two maps that each block of a network otherwise keeps, one is
left.
"""

import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Recipe(Protocol):
    """Makes a map again."""

    def __call__(self) -> Tensor: ...


# By address: the map, its version (it counts changes in place), and how to make it. Entries last as long as
# their maps, so that no other tensor can have the address.
_known: dict[int, tuple[Any, int, Recipe]] = {}


def remember(made: Tensor, recipe: Recipe) -> None:
    """Note how a map can be made again."""
    address = made.data_ptr()
    _known[address] = (weakref.ref(made, lambda _: _known.pop(address, None)), made._version, recipe)


class Recompute(saved_tensors_hooks):
    """Inside this context operations keep, instead of a map that is known, the way to make it."""

    def __init__(self) -> None:
        super().__init__(_pack, _unpack)


def recompute(wanted: bool = True) -> AbstractContextManager[Any]:
    """Return the context, or one in which nothing changes."""
    return Recompute() if wanted else nullcontext()


class _Kept:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe


class _Saved:
    """A map that is kept as it is. With hooks torch no longer looks whether it was changed in place."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version


def _pack(tensor: Tensor) -> Any:
    entry = _known.get(tensor.data_ptr()) if _known else None
    if entry is None:
        return _Saved(tensor)
    made, version, recipe = entry[0](), entry[1], entry[2]
    same = (
        made is not None
        and made._version == version
        and tensor.dtype == made.dtype
        and tensor.shape == made.shape
        and tensor.stride() == made.stride()
    )
    return _Kept(recipe) if same else _Saved(tensor)


def _unpack(kept: _Kept | _Saved) -> Tensor:
    """Return the map; RuntimeError, as torch's own, where a change in place has made it another."""
    if isinstance(kept, _Kept):
        return kept.recipe()
    tensor, version = kept.tensor, kept.version
    if tensor._version != version:
        raise RuntimeError(
            'one of the variables needed for gradient computation has been modified by an inplace operation: '
            f'{tuple(tensor.shape)} is at version {tensor._version}; expected version {version}'
        )
    return tensor
