"""A backbone that carries out a plan: the same maps, in the plan's memory.

Every step is one torch operation, so tracing it gives a graph whose order is the plan's.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.deploy.memory.build import build
from falconet.deploy.memory.network import Convolution, read_network
from falconet.deploy.memory.plan import Plan
from falconet.deploy.memory.steps import Step


class PlannedBackbone(nn.Module):
    """The maps of a backbone, step by step.

    Args:
        backbone: a MobileNetV2 without batch norms (`deploy.program.fold_norms`); it stays as it is.
        plan: for pictures of one size.
        scale, shift: (1, 3, 1, 1); what normalises a picture; with `plan.rules.pictures` only.

    Attributes:
        steps: what it does.
    """

    def __init__(
        self,
        backbone: nn.Module,
        plan: Plan,
        *,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.steps = build(read_network(backbone), plan)
        # Pictures stay (B, H, W, 3) until they are normalised: engines that want channels last copy nothing.
        self.register_buffer('scale', None if scale is None else scale.detach().reshape(3).clone())
        self.register_buffer('shift', None if shift is None else shift.detach().reshape(3).clone())
        # Tensors that are parts of the picture still: numbers before the first step that normalises.
        self.bytes = {0}
        for step in self.steps.steps:
            if step.kind in ('slice', 'turn') and step.inputs[0] in self.bytes:
                self.bytes.add(step.output)
        self._free: dict[int, list[int]] = {}
        for tensor, place in self.steps.last_uses().items():
            self._free.setdefault(place, []).append(tensor)
        self._bias: dict[tuple[Any, ...], bool] = {}
        for step in self.steps.steps:
            if step.convolution is not None:
                self._take(backbone, step.convolution, step)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of uint8 pictures (B, H, W, 3), or of normalised images (B, 3, H, W)."""
        return self.execute([images])

    def execute(self, images: list[Tensor]) -> list[Tensor]:
        """Return the maps of the one tensor in a list, which is taken out of it to be let go in time."""
        tensors = {0: images.pop()}
        size = tuple(tensors[0].shape[1:3] if self.plan.rules.pictures else tensors[0].shape[2:])
        if size != self.plan.size:
            raise ValueError(
                f'this plan is for pictures of {self.plan.size}, got {size}: make another for those'
            )
        for place, step in enumerate(self.steps.steps):
            tensors[step.output] = self._run(step, tensors)
            for each in self._free.get(place, ()):
                del tensors[each]
        return [tensors[each] for each in self.steps.maps]

    def _run(self, step: Step, tensors: dict[int, Tensor]) -> Tensor:
        inputs = [tensors[each] for each in step.inputs]
        if step.kind == 'start':
            return self._start(step, next(iter(tensors.values())))
        if step.kind == 'join':
            return torch.cat(inputs, dim=step.axis)
        if step.kind == 'add':
            made = inputs[0] + inputs[1]
            return F.relu6(made) if step.relu6 else made
        return _OPERATIONS[step.kind](self, step, *inputs)

    def _start(self, step: Step, like: Tensor) -> Tensor:
        shape = self.steps.shapes[step.output]
        _, bias = self._weights(step)
        made = torch.empty(like.shape[0], *shape[:3], dtype=torch.float32, device=like.device)
        made[:] = 0 if bias is None else bias[:, None, None]
        return made

    def _accumulate(self, step: Step, inner: Tensor, total: Tensor) -> Tensor:
        weight, _ = self._weights(step)
        rows = total.view(*total.shape[:2], -1)
        rows.baddbmm_(
            weight[:, :, 0, 0].expand(len(total), -1, -1), inner.reshape(len(total), inner.shape[1], -1)
        )
        return total

    def _convolve(self, step: Step, tensor: Tensor) -> Tensor:
        convolution = step.convolution
        assert convolution is not None
        weight, bias = self._weights(step)
        above, below, left, right = step.zeros
        padding = (above, left)
        if (above, left) != (below, right) and self.plan.rules.same_only:
            tensor, padding = F.pad(tensor, (left, right, above, below)), (0, 0)
        groups = len(weight) if convolution.depthwise else 1
        made = F.conv2d(
            tensor,
            weight,
            bias if step.bias else None,
            convolution.stride,
            padding,
            convolution.dilation,
            groups,
        )
        if not step.relu6:
            return made
        return F.relu6(made) if torch.compiler.is_exporting() else F.hardtanh_(made, 0.0, 6.0)

    def _weights(self, step: Step) -> tuple[Tensor, Tensor | None]:
        name = _name(step)
        return getattr(self, f'{name}_weight'), getattr(self, f'{name}_bias', None)

    def _take(self, backbone: nn.Module, convolution: Convolution, step: Step) -> None:
        """Take the weights that a step needs, turned where the network is."""
        name = _name(step)
        if hasattr(self, f'{name}_weight'):
            return
        layer: Any = backbone.features[convolution.layer]  # type: ignore[index]
        found: Any = getattr(layer, 'conv', layer)[convolution.place]
        found = next(each for each in found.modules() if isinstance(each, nn.Conv2d))
        weight, bias = found.weight.detach(), None if found.bias is None else found.bias.detach()
        first, end = step.part
        if end:
            if _is_projection(backbone, convolution):
                weight = weight[:, first:end]
            else:
                weight, bias = weight[first:end], None if bias is None else bias[first:end]
        if self.plan.turned:
            weight = weight.flip(2, 3)
        self.register_buffer(f'{name}_weight', weight.contiguous().clone())
        if bias is not None:
            self.register_buffer(f'{name}_bias', bias.clone())


def _name(step: Step) -> str:
    assert step.convolution is not None
    return f'layer{step.convolution.layer}_{step.convolution.place}_{step.part[0]}_{step.part[1]}'


def _is_projection(backbone: nn.Module, convolution: Convolution) -> bool:
    unit = read_network(backbone)[convolution.layer]
    return unit.project == convolution


def _slice(module: PlannedBackbone, step: Step, tensor: Tensor) -> Tensor:
    top, bottom, left, right = step.box
    if _is_picture(module, step):
        part = tensor[:, top:bottom, left:right]
    else:
        part = tensor[:, :, top:bottom, left:right]
    return part if torch.compiler.is_exporting() else part.clone()


def _turn(module: PlannedBackbone, step: Step, tensor: Tensor) -> Tensor:
    return tensor.flip(1, 2) if _is_picture(module, step) else tensor.flip(2, 3)


def _is_picture(module: PlannedBackbone, step: Step) -> bool:
    """Say whether a step works on uint8."""
    return module.plan.rules.pictures and step.output in module.bytes


def _channels(_: Any, step: Step, tensor: Tensor) -> Tensor:
    part = tensor[:, step.part[0] : step.part[1]]
    return part if torch.compiler.is_exporting() else part.clone()


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    'slice': _slice,
    'channels': _channels,
    'turn': _turn,
    'cast': lambda _, step, tensor: tensor.float(),
    'scale': lambda self, step, tensor: tensor * self.scale,
    'shift': lambda self, step, tensor: (tensor + self.shift).permute(0, 3, 1, 2),
    'pad': lambda _, step, tensor: F.pad(tensor, (*step.zeros[2:], *step.zeros[:2])),
    'relu6': lambda _, step, tensor: F.hardtanh_(tensor, 0.0, 6.0),
    'convolve': lambda self, step, tensor: self._convolve(step, tensor),
    'accumulate': lambda self, step, inner, total: self._accumulate(step, inner, total),
}


def apply(
    backbone: nn.Module, plan: Plan, *, scale: Tensor | None = None, shift: Tensor | None = None
) -> PlannedBackbone:
    """Return a module that computes a backbone's maps by a plan; see `PlannedBackbone`."""
    return PlannedBackbone(backbone, plan, scale=scale, shift=shift).eval()
