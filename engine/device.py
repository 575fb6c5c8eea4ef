"""The one place that knows about devices: where a model runs, and in which precision it trains."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from falconet.core.errors import UserError


def pick_device() -> torch.device:
    """Return this process's device: its own GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        # A launcher without LOCAL_RANK (MPI) has chosen this process's GPU when it joined its group.
        return torch.device('cuda', int(os.environ.get('LOCAL_RANK', torch.cuda.current_device())))
    if torch.backends.mps.is_available():
        return torch.device('mps')
    return torch.device('cpu')


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 in hardware. Without that autocast is slower than float32."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == 'cpu':
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get('avx512_bf16') or capabilities.get('amx_bf16'))
    return False


def resolve_amp(amp: str, device: torch.device) -> torch.dtype | None:
    """Decide which type autocast trains in: bfloat16, float16 or, for None, float32 throughout.

    Args:
        amp: 'auto' (bfloat16 where the hardware has it, float16 on GPUs that compute only that) or 'off'.
        device: where the model runs.
    """
    if amp != 'auto':
        return None
    if has_fast_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == 'cuda' else None


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper with autocast, on the CPU too (its AmpOptimWrapper refuses CPUs).

    bfloat16 has float32's range. float16 has not: its losses are scaled, by a factor that halves when a
    gradient is no longer finite, and such a step is left out.

    Args:
        dtype: 'bfloat16' or 'float16'.
        **options: of mmengine's OptimWrapper.

    Attributes:
        enabled: whether autocast is on; see `engine.hooks.precision`.
    """

    def __init__(self, *, dtype: str = 'bfloat16', **options: Any) -> None:
        super().__init__(**options)
        self.enabled = True
        self.dtype = {'bfloat16': torch.bfloat16, 'float16': torch.float16}[dtype]
        device = self.optimizer.param_groups[0]['params'][0].device
        self._scaler = torch.amp.GradScaler(device.type) if dtype == 'float16' else None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device
        with super().optim_context(model), torch.autocast(device.type, self.dtype, enabled=self.enabled):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        super().backward(loss if self._scaler is None else self._scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        if self._scaler is None:
            super().step(**kwargs)
            return
        if self.clip_grad_kwargs:
            self._scaler.unscale_(self.optimizer)
            self._clip_grad()
        self._scaler.step(self.optimizer, **kwargs)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state, and the scale of float16's losses."""
        state = super().state_dict()
        return state if self._scaler is None else {**state, 'loss_scaler': self._scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up both."""
        state = dict(state_dict)
        scale = state.pop('loss_scaler', None)
        if scale is not None and self._scaler is not None:
            self._scaler.load_state_dict(scale)
        super().load_state_dict(state)


def compile_parts(model: nn.Module, device: torch.device, *, backend: str = 'inductor') -> None:
    """Let torch.compile make code of a model's backbone and head; names of weights stay.

    Args:
        model: has `backbone` and `head`.
        device: where it is going to run.
        backend: of torch.compile.

    Raises:
        UserError: what the compiler needs is missing.
    """
    if backend == 'inductor' and device.type == 'cpu':
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:
            raise UserError(
                'compile=True needs a C++ compiler on a CPU (g++ or clang++); none was found. Install one '
                "or leave compile out: the fused kernels (pip install -e '.[fast]') need none"
            ) from error
    if backend == 'inductor' and device.type == 'cuda' and importlib.util.find_spec('triton') is None:
        raise UserError('compile=True needs Triton on a GPU (pip install triton), or leave compile out')
    for part in (model.backbone, model.head):
        part.compile(backend=backend)  # type: ignore[union-attr,operator]


@contextmanager
def compiling() -> Iterator[None]:
    """Name what torch.compile could not do as the user's error it is; code is made when a part first runs."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(('torch._dynamo', 'torch._inductor')):
            raise
        lines = str(error).splitlines() or ['']
        said = next((line for line in lines if 'error: ' in line), lines[0])  # in a compiler's output
        raise UserError(
            f'compile=True: torch.compile failed ({type(error).__name__}: {said.strip()}). On a CPU it needs '
            "a C++ compiler and Python's headers (python3-dev); without compile=True training needs neither. "
            'FALCONET_DEBUG=1 shows all that was said'
        ) from error


def start_process_group(launcher: str) -> None:
    """Join the process group that `torchrun`, slurm or MPI has started this process for.

    mmengine's own start selects a GPU first and fails on a machine without one, so the CPU case
    of torchrun is done here (gloo); everything else is left to mmengine (NCCL).
    """
    if launcher == 'none' or torch.distributed.is_initialized():
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch needs torchrun: torchrun --nproc_per_node=2 tools/train.py CONFIG '
            '--launcher pytorch'
        )
    if torch.cuda.is_available():
        from mmengine.dist import init_dist

        try:
            init_dist(launcher, backend='nccl')
        except KeyError as error:  # the variables that srun or mpirun sets
            raise UserError(
                f'--launcher {launcher}: {error} is not set; was this started by {launcher}?'
            ) from error
    elif launcher == 'pytorch':
        torch.distributed.init_process_group('gloo')
    else:
        raise UserError(f'--launcher {launcher} needs GPUs; on CPUs use torchrun and --launcher pytorch')
