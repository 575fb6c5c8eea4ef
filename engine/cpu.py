"""Settings of the process that make training on a CPU fast, alone and beside other programs.

What changes results: the number of threads. Batch norms' statistics and, in float32, the gradients of dense
convolutions' and linear layers' weights are sums divided among them, and another division rounds differently
in the last bits. (Found with 1 and 2 threads; depthwise convolutions, gradients with respect to inputs and
everything in evaluation were identical.) How threads wait for each other changes nothing.
"""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

import torch

from falconet.core.errors import UserError

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
NEVER = -1


def tune_cpu() -> None:
    """Keep freed memory, and treat numbers below 1e-38 as zero.

    A CPU computes many times slower with numbers that small, should gradients get there; how much that
    matters in training has not been measured. Threads inherit the setting from the one that starts them, so
    call this before any computation.
    """
    keep_freed_memory()
    torch.set_flush_denormal(True)


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks.

    By default glibc maps every block above 32 MB anew and unmaps it when freed, and the kernel clears
    each page again: half a million page faults a step of MobileNetV2 at batch 32 and 224 px. Freed
    memory stays with the process instead. Does nothing on other systems.

    Returns:
        Whether the setting took effect.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    limit = 2**30
    # Older glibc refuses thresholds above 32 MB; there, forbid separate maps altogether.
    kept = mallopt(M_MMAP_THRESHOLD, limit) or mallopt(M_MMAP_MAX, 0)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, NEVER))


def choose_threads(wish: int | str) -> None:
    """Compute with a number of threads.

    Args:
        wish: the number, or 'auto': one for each core that other programs leave free at this moment, at least
            one and at most as many as torch takes on its own.

    Raises:
        UserError: neither.
    """
    if wish == 'auto':
        number = max(1, round(torch.get_num_threads() - _cores_taken_by_others()))
    elif str(wish).isdecimal() and 1 <= int(wish) <= 1024:
        number = int(wish)
    else:
        raise UserError(f"--threads takes a whole number from 1 to 1024 or 'auto', got {wish!r}")
    torch.set_num_threads(number)


def _cores_taken_by_others(seconds: float = 1.0) -> float:
    """Cores of ours that other programs kept busy during a moment; 0 where the system does not tell."""
    if not Path('/proc/stat').exists():
        return 0.0
    before = _seconds_worked()
    time.sleep(seconds)
    return max(0.0, (_seconds_worked() - before) / seconds)


def _seconds_worked() -> float:
    """Processor seconds that others have used on the cores this process may run on."""
    allowed = {f'cpu{core}' for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path('/proc/stat').read_text().splitlines():
        name, *counts = line.split()
        if name in allowed:  # man proc_stat: user nice system idle iowait irq softirq steal
            ticks += sum(int(counts[index]) for index in (0, 1, 2, 5, 6, 7))
    return ticks / os.sysconf('SC_CLK_TCK') - time.process_time()


def seconds_kept_waiting() -> float | None:
    """Seconds that this process's threads were ready to run and had no core, added up; None if not known."""
    total = 0
    try:
        for file in Path('/proc/self/task').glob('*/schedstat'):
            total += int(file.read_text().split()[1])
    except (OSError, IndexError):  # a thread that has just ended, a kernel that keeps no such counts
        return None
    return total / 1e9 if total else None


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon when they wait for each other, for the rest of this process.

    Alone it is best to wait in a loop. When another program holds a core, the thread that loops keeps the
    one that works from its own. GNU's OpenMP loops 300,000 times, but 1,000 times while the process has more
    threads than cores (libgomp, `gomp_throttled_spin_count_var`): a second team, which only sleeps, sees to
    that. The team that computes and its results stay as they are.
    """

    ready = threading.Event()

    def hold_a_team() -> None:
        torch.ones(2**20).add_(1)
        ready.set()
        threading.Event().wait()

    threading.Thread(target=hold_a_team, name='second team', daemon=True).start()
    ready.wait()  # a program that ended while the thread is inside torch would abort
