"""The one place that knows about devices: where a model runs, and in which precision it trains."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from tasks.errors import UserError


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


def resolve_amp(amp: str, device: torch.device) -> bool:
    """Decide whether training uses bfloat16 autocast.

    Args:
        amp: 'auto' (where the hardware has it) or 'off'.
        device: where the model runs.
    """
    return amp == 'auto' and has_fast_bf16(device)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper with bfloat16 autocast, on the CPU too (its AmpOptimWrapper refuses CPUs).

    bfloat16 has float32's range, so the gradients need no scaler.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device
        with super().optim_context(model), torch.autocast(device.type, dtype=torch.bfloat16):
            yield


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
