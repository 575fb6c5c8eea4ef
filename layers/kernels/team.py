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

import llvmlite.binding as llvm
import torch
from numba import cfunc, types
from numba.core.types import ExternalFunction

from layers.kernels import depthwise, losses, norm

thread_number = ExternalFunction('kestrel_thread_number', types.int32())
thread_count = ExternalFunction('kestrel_thread_count', types.int32())
WITHIN_A_TEAM = types.void(types.CPointer(types.int64))
BY_ITSELF = types.void(types.CPointer(types.int64), types.int64, types.int64)
Kind = torch.dtype | str  # which loops: those over maps of a dtype, or 'losses'


@cache
def openmp() -> Any:
    """`GOMP_parallel` of the OpenMP that torch computes with, its thread functions known to LLVM; or None."""
    folder = Path(torch.__file__).parent / 'lib'
    for place in (*folder.glob('libtorch_cpu.*'), torch._C.__file__):
        try:
            library = ctypes.CDLL(str(place))
            parallel, number, count = (
                getattr(library, name)
                for name in ('GOMP_parallel', 'omp_get_thread_num', 'omp_get_num_threads')
            )
        except (OSError, AttributeError):
            continue
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
        for name, function in (('kestrel_thread_number', number), ('kestrel_thread_count', count)):
            llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
        return parallel
    return None


def entries(stamp: int) -> dict[tuple[Kind, bool], Any]:
    """What threads begin with, by kind of loops and by whether OpenMP runs them.

    Args:
        stamp: of all sources. Numba looks at the time of one file only to see whether its cache is stale.
    """

    def team_in_bfloat16(data: Any) -> None:
        if stamp and data[0] >= depthwise.FORWARD:
            depthwise.share_in_bfloat16(data, thread_number(), thread_count())
        elif stamp:
            norm.share_in_bfloat16(data, thread_number(), thread_count())

    def team_in_float32(data: Any) -> None:
        if stamp and data[0] >= depthwise.FORWARD:
            depthwise.share_in_float32(data, thread_number(), thread_count())
        elif stamp:
            norm.share_in_float32(data, thread_number(), thread_count())

    def team_for_losses(data: Any) -> None:
        if stamp:
            losses.share_of(data, thread_number(), thread_count())

    def one_in_bfloat16(data: Any, thread: int, threads: int) -> None:
        if stamp and data[0] >= depthwise.FORWARD:
            depthwise.share_in_bfloat16(data, thread, threads)
        elif stamp:
            norm.share_in_bfloat16(data, thread, threads)

    def one_in_float32(data: Any, thread: int, threads: int) -> None:
        if stamp and data[0] >= depthwise.FORWARD:
            depthwise.share_in_float32(data, thread, threads)
        elif stamp:
            norm.share_in_float32(data, thread, threads)

    def one_for_losses(data: Any, thread: int, threads: int) -> None:
        if stamp:
            losses.share_of(data, thread, threads)

    return {
        (torch.bfloat16, True): team_in_bfloat16,
        (torch.float32, True): team_in_float32,
        (torch.bfloat16, False): one_in_bfloat16,
        (torch.float32, False): one_in_float32,
        ('losses', True): team_for_losses,
        ('losses', False): one_for_losses,
    }


@cache
def compiled(kind: Kind, team: bool) -> Any:
    """The machine code of one kind of loops, from Numba's cache on disk where there is one."""
    sources = sorted(Path(__file__).parent.glob('*.py'))
    stamp = zlib.crc32(b''.join(source.read_bytes() for source in sources)) | 1
    function = entries(stamp)[kind, team]
    signature = WITHIN_A_TEAM if team else BY_ITSELF
    try:
        return cfunc(signature, cache=True)(function)
    except Exception:  # no folder to write to, a full disk, a file of another version: nothing depends on it
        return cfunc(signature)(function)


@cache
def python_threads(process: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked one has none of its parent's."""
    return ThreadPoolExecutor(thread_name_prefix='kernels')


def run(call: Any, kind: Kind, *, threads: int) -> None:
    """Run a pass.

    Args:
        call: the numbers of `layers.kernels.norm`, `layers.kernels.depthwise` or `layers.kernels.losses`, the
            pass first.
        kind: dtype of the maps it reads and writes, or 'losses'.
        threads: how many share it; the result does not depend on that.
    """
    parallel = openmp()
    if parallel is not None:
        parallel(compiled(kind, True).address, ctypes.addressof(call), threads, 0)
        return
    function, address = compiled(kind, False).ctypes, ctypes.cast(call, ctypes.POINTER(ctypes.c_int64))
    if threads == 1:
        function(address, 0, 1)
        return
    jobs = [
        python_threads(os.getpid()).submit(function, address, each, threads) for each in range(1, threads)
    ]
    function(address, 0, threads)
    for job in jobs:
        job.result()
