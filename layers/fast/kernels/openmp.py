"""Runs compiled loops on the threads that torch computes with.

Two teams of threads would keep each other from the cores: OpenMP's wait in a loop between two operations of
torch's. So a pass is handed to the OpenMP that torch itself has loaded, by the function that compilers call
for a parallel region (libgomp's `GOMP_parallel`). Forks, several Python threads and regions inside others are
then as safe as torch is. Where torch has no such function (Windows), Python threads share the work: ctypes
lets go of the interpreter's lock.
"""

import ctypes
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from numba import cfunc, types

from falconet.layers.fast.kernels import depthwise, losses, norm

SIGNATURE = types.void(types.CPointer(types.int64))
Kind = torch.dtype | str  # which loops: those over maps of a dtype, or 'losses'


@cache
def openmp() -> Any:
    """`GOMP_parallel` of the OpenMP that torch computes with, or None."""
    folder = Path(torch.__file__).parent / 'lib'
    for place in (*folder.glob('libtorch_cpu.*'), torch._C.__file__):
        try:
            parallel = ctypes.CDLL(str(place)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
        return parallel
    return None


def entries(stamp: int) -> dict[Kind, Any]:
    """What a thread begins with, by kind of loops.

    Args:
        stamp: of all sources. Numba looks at the time of one file only to see whether its cache is stale.
    """

    def in_bfloat16(data: Any) -> None:
        if stamp and data[0] >= depthwise.FORWARD:
            depthwise.share_in_bfloat16(data)
        elif stamp:
            norm.share_in_bfloat16(data)

    def in_float32(data: Any) -> None:
        if stamp and data[0] >= depthwise.FORWARD:
            depthwise.share_in_float32(data)
        elif stamp:
            norm.share_in_float32(data)

    def for_losses(data: Any) -> None:
        if stamp:
            losses.share_of(data)

    return {torch.bfloat16: in_bfloat16, torch.float32: in_float32, 'losses': for_losses}


@cache
def compiled(kind: Kind) -> Any:
    """The machine code of one kind of loops, from Numba's cache on disk where there is one."""
    sources = sorted(Path(__file__).parent.glob('*.py'))
    stamp = zlib.crc32(b''.join(source.read_bytes() for source in sources)) | 1
    function = entries(stamp)[kind]
    try:
        return cfunc(SIGNATURE, cache=True)(function)
    except Exception:  # no folder to write to, a full disk, a file of another version: nothing depends on it
        return cfunc(SIGNATURE)(function)


@cache
def python_threads(process: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked one has none of its parent's."""
    return ThreadPoolExecutor(thread_name_prefix='kernels')


def run(call: Any, kind: Kind, *, threads: int) -> None:
    """Run a pass.

    Args:
        call: the numbers of `kernels.norm`, `kernels.depthwise` or `kernels.losses`, the pass first.
        kind: dtype of the maps it reads and writes, or 'losses'.
        threads: how many share it; the result does not depend on that.
    """
    parallel = openmp()
    if parallel is not None:
        parallel(compiled(kind).address, ctypes.addressof(call), threads, 0)
        return
    function, address = compiled(kind).ctypes, ctypes.cast(call, ctypes.POINTER(ctypes.c_int64))
    jobs = [python_threads(os.getpid()).submit(function, address) for _ in range(1, threads)]
    function(address)
    for job in jobs:
        job.result()
