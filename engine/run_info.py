"""What a run was: its data, its network, its versions, its machine."""

import os
import platform
import re
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from falconet.engine.device import pick_device

LIBRARIES = ('torch', 'torchvision', 'mmengine-lite', 'albumentations', 'numpy')
MOST_LETTERS = 1500  # of a fact


def facts_of(runner: Any, *, seconds: float, checkpoint: str | None = None) -> dict[str, str]:
    """Return what was run, title -> text.

    Args:
        runner: a `FalconetRunner` that has run.
        seconds: that this took.
        checkpoint: the file that was scored.
    """
    facts = {'command': shlex.join(_short_program(sys.argv))}
    if runner.cfg.filename:
        facts['config'] = str(runner.cfg.filename)
    if checkpoint is not None:
        facts['checkpoint'] = checkpoint
    loop = runner.training_loop
    if loop is not None:
        facts['training data'] = str(loop.dataloader.dataset)
        facts['course'] = (
            f'{loop.iter:,} of {loop.max_iters:,} iterations, epoch {loop.epoch} of {loop.max_epochs}'
        )
    facts['evaluation data'] = str(runner.evaluation_loop.dataloader.dataset)
    model = runner.model_to_use
    parameters = sum(each.numel() for each in model.parameters()) if isinstance(model, torch.nn.Module) else 0
    if parameters:
        kinds = f'{type(model.backbone).__name__} with {type(model.head).__name__}'
        facts['network'] = f'{kinds}, {parameters:,} parameters'
    facts['seed'] = str(runner.seed)
    facts['time'] = f'{duration(seconds)}, ended {time.strftime("%Y-%m-%d %H:%M %Z")}'
    facts['machine'] = f'{machine()}, {runner.world_size} process{"es" if runner.world_size > 1 else ""}'
    facts['versions'] = ', '.join([f'Python {platform.python_version()}', *map(_version, LIBRARIES)])
    return {title: text[:MOST_LETTERS] for title, text in facts.items()}


def machine() -> str:
    """Return processor, cores, threads and GPU in words."""
    device = pick_device()
    gpu = f'{torch.cuda.get_device_name(device)}, ' if device.type == 'cuda' else ''
    return (
        f'{gpu}{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.system()}'
    )


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f'{seconds:.1f} s'
    if seconds < 5400:
        return f'{seconds / 60:.1f} min'
    return f'{seconds / 3600:.1f} h'


def _short_program(arguments: list[str]) -> list[str]:
    program = Path(arguments[0])
    return [
        f'{program.parent.name}/{program.name}' if program.parent.name == 'tools' else program.name,
        *arguments[1:],
    ]


def _processor() -> str:
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        text = ''
    found = re.search(r'^model name\s*:\s*(.+)$', text, re.M)
    return found[1] if found else platform.processor() or platform.machine()


def _version(library: str) -> str:
    return f'{library} {version(library)}'
