"""Measuring which tensors are alive in torch: every storage made, until the last name for it goes."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LivePeak(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside this context.

    Attributes:
        alive: bytes now.
        peak: most bytes so far.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: dict[int, int] = {}
        for each in given:
            self._note(each)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        inputs = {_storage(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and _storage(each) not in inputs:
                self._note(each)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = size
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.alive -= self._known.pop(key, 0)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def live_peak(compute: Callable[[], Any], given: Sequence[Tensor] = ()) -> int:
    """Return the most bytes alive while `compute` runs; those `given` count until it lets them go."""
    mode = LivePeak(*given)
    with torch.no_grad(), mode:
        compute()
    return mode.peak
