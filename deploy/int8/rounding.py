"""Eight bits in torch: a model that computes, and learns, on the grid that its INT8 files will have.

Weights of convolutions and linear layers are rounded by output channel, symmetrically, to 127 steps; what
goes into those, into sums, means and concatenations by tensor, to 255 steps of a range that holds 0. What
comes before the first convolution and what the last layers say is not, as in the files
(`deploy.int8.inside`).
Gradients pass the rounding as if it were not there, and not where a value was cut off (arXiv 1712.05877).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from falconet.deploy.int8.inside import Step, network_of
from falconet.deploy.int8.ranges import LEVELS, Ranges
from falconet.tasks.model import VisionModel

WEIGHTS = 127
CONVOLUTIONS = ('conv2d',)
PRODUCTS = ('linear',)
# What else reads maps in eight bits, by the name of torch's function.
READERS = ('add', '__add__', '__iadd__', 'add_', 'cat', 'mean', 'adaptive_avg_pool2d', 'interpolate')
LAYERS = (nn.Conv2d, nn.Linear)
# Which reader of a forward pass, in order, and which of its tensors.
Place = tuple[int, int]


def rounded_weight(weight: Tensor) -> Tensor:
    """Return a weight (out, ...) rounded by output channel, as the files round it."""
    scale = weight.detach().flatten(1).abs().amax(dim=1).clamp(min=1e-12) / WEIGHTS
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHTS, WEIGHTS)


def snap(model: nn.Module) -> None:
    """Round the weights of a model for good: rounding them again, or scaling channels, changes nothing."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LAYERS):
                module.weight.copy_(rounded_weight(module.weight))


class Rounding(TorchFunctionMode):
    """Has a model's backbone and head compute in eight bits, once `measure` has seen pictures.

    Args:
        model: whose `forward` of backbone and head are replaced; its weights stay in float32.
    """

    def __init__(self, model: VisionModel) -> None:
        super().__init__()
        self._model = model
        self._place = 0
        self._record: _Record | None = None
        self._seen: Ranges | None = None
        self._names: dict[Place, Place] = {}  # places of one tensor have one name
        self._grids: dict[Place, tuple[float, int]] = {}  # step and zero of each name
        for module, begins in ((model.backbone, True), (model.head, False)):
            module.forward = self._within(module.forward, begins=begins)

    def measure(self, images: Iterable[Tensor]) -> None:
        """Choose the range of each map, of the network with rounded weights.

        Args:
            images: RGB uint8 (B, 3, H, W).
        """
        self._grids, self._seen = {}, Ranges()
        was_training = self._model.training
        self._model.eval()
        with torch.no_grad():
            for each in images:
                if not self._names:
                    self._record = _Record()
                    self._model(each)
                    self._names, self._record = self._record.names(), None
                self._model(each)
        self._model.train(was_training)
        # Names are places here, words there.
        found = {str(name): name for name in self._names.values()}
        for word, (low, high) in self._seen.best().items():
            step = (high - low) / LEVELS
            self._grids[found[word]] = step, round(-low / step)
        self._seen = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, options = getattr(func, '__name__', ''), dict(kwargs or {})
        layer = name in CONVOLUTIONS + PRODUCTS
        if not layer and name not in READERS:
            found = func(*args, **options)
            if self._record is not None:
                self._record.add('', args, found)
            return found
        place, given = self._place, list(args)
        self._place += 1
        if self._record is not None:
            kind = 'convolution' if name in CONVOLUTIONS else 'product' if layer else ''
            found = func(*args, **options)
            self._record.add(kind, given[:1] if layer else given, found, place)
            return found
        if layer:
            given[:2] = self._rounded(given[0], (place, 0)), rounded_weight(given[1])
        elif name == 'cat':
            given[0] = [self._rounded(each, (place, index)) for index, each in enumerate(given[0])]
        else:
            given = [self._rounded(each, (place, index)) for index, each in enumerate(given)]
        return func(*given, **options)

    def _rounded(self, value: Any, place: Place) -> Any:
        name = self._names.get(place)
        if name is None or not isinstance(value, Tensor):
            return value
        if self._seen is not None:
            if name == place:
                self._seen.see({str(name): value.numpy()})
            return value
        if name not in self._grids:
            return value
        step, zero = self._grids[name]
        return torch.fake_quantize_per_tensor_affine(value, step, zero, 0, LEVELS)

    def _within(self, forward: Callable[..., Any], *, begins: bool) -> Callable[..., Any]:
        def rounded(*args: Any, **kwargs: Any) -> Any:
            if begins:
                self._place = 0
            with self:
                return forward(*args, **kwargs)

        return rounded


class _Record:
    """What one forward pass computed from what, and which tensors its readers read."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._read: dict[str, list[tuple[Place, tuple[int, int]]]] = {}
        self._kept: list[Tensor] = []  # an address is one tensor's as long as that lives

    def add(self, kind: str, given: Sequence[Any], found: Any, place: int | None = None) -> None:
        """Note one function; `place` of a reader."""
        inputs, outputs = list(_tensors(given)), list(_tensors([found]))
        name = str(len(self._steps))
        self._steps.append(
            Step(name, kind, [str(id(each)) for each in inputs], [str(id(each)) for each in outputs])
        )
        self._kept += [*inputs, *outputs]
        if place is not None:
            where = given[0] if given and isinstance(given[0], (list, tuple)) else given
            self._read[name] = [
                # Changed in place it is another one. A sum's output may be its own first input by now.
                ((place, index), (id(each), each._version - any(each is other for other in outputs)))
                for index, each in enumerate(where)
                if isinstance(each, Tensor)
                and each.is_floating_point()
                and not isinstance(each, nn.Parameter)
            ]

    def names(self) -> dict[Place, Place]:
        """Return of each place to round the first place that reads the same tensor."""
        first: dict[tuple[int, int], Place] = {}
        return {
            place: first.setdefault(tensor, place)
            for step in network_of(self._steps)
            for place, tensor in self._read.get(step, [])
        }


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _tensors(each)
