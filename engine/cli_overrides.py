"""What the command line says in one word: the length of a run, the size of its batches, where it starts.

Each changes a config and returns the line that the log gets.
"""

from pathlib import Path

from mmengine.config import Config

from falconet.checkpoints.external_weights import is_falconet
from falconet.core.errors import UserError


def set_epochs(config: Config, epochs: int) -> str:
    """Set a run's length; its schedule follows (`engine.schedule`)."""
    if epochs < 1:
        raise UserError(f'--epochs {epochs}: a run has 1 epoch or more')
    cycle = _part(config, 'train_cfg', '--epochs')
    was, cycle['max_epochs'] = cycle.get('max_epochs'), epochs
    if cycle.get('val_begin', 1) > epochs:
        cycle['val_begin'] = epochs
    return f'--epochs {epochs}: the config has {was}; the schedule follows'


def set_batch_size(config: Config, size: int) -> str:
    """Set the size of training's batches, and scale the learning rate with it, linearly.

    Source of the rule: Goyal et al., arXiv 1706.02677, section 2.1.
    """
    if size < 1:
        raise UserError(f'--batch-size {size}: a batch has 1 picture or more')
    loader = _part(config, 'train_dataloader', '--batch-size')
    optimizer = _part(_part(config, 'optim_wrapper', '--batch-size'), 'optimizer', '--batch-size')
    was = loader.get('batch_size', 32)
    loader['batch_size'] = size
    if 'lr' not in optimizer or was == size:
        return f'--batch-size {size}: the config has {was}; the learning rate stays'
    rate, optimizer['lr'] = optimizer['lr'], optimizer['lr'] * size / was
    schedule = config.get('schedule')
    if schedule is not None and schedule.get('lowest'):
        schedule['lowest'] = schedule['lowest'] * size / was
    entries = config.get('param_scheduler') or []
    for entry in [entries] if isinstance(entries, dict) else entries:
        for key in ('eta_min', 'eta_max'):
            if entry.get(key):
                entry[key] = entry[key] * size / was
    return (
        f'--batch-size {size}: the config has {was}, so the learning rate is {optimizer["lr"]:g} '
        f'instead of {rate:g} (it grows with the batch, linearly)'
    )


def set_start(config: Config, file: str) -> str:
    """Start from a file: all weights from a Falconet checkpoint, those of the backbone from any other."""
    path = Path(file).expanduser()
    if not path.is_file() and not Path(f'{path}.index').is_file():  # the latter a TensorFlow checkpoint
        raise UserError(f'--init {file}: there is no such file')
    if is_falconet(path):
        config['load_from'] = str(path)
        return f'--init {file}: a Falconet checkpoint, load_from={str(path)!r}'
    backbone = _part(_part(config, 'model', '--init'), 'backbone', '--init')
    backbone['pretrained'] = str(path)
    config['load_from'] = None
    return f'--init {file}: weights of a backbone, model.backbone.pretrained={str(path)!r}'


def _part(config: Config, key: str, option: str) -> Config:
    part = config.get(key)
    if not isinstance(part, dict):
        raise UserError(f'{option}: the config has no {key}=dict(...)')
    return part  # type: ignore[return-value]
