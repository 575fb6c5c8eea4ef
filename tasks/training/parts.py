"""What a training and an evaluation build alike around mmengine's Runner."""

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import HOOKS, METRICS

from tasks.data.dataset import VisionDataset
from tasks.data.loader import build_loader
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.plain import plain
from tasks.registry import build, check_options, find
from tasks.training.hooks.ema import EMAHook
from tasks.training.hooks.stopping import EarlyStopping
from tasks.training.runner import KestrelRunner

_run_numbers = itertools.count()


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder {folder}: {error}') from error


def stage_loader(config: Config, stage: str, dataset: VisionDataset, seed: int) -> Any:
    options = config[stage]
    return build_loader(
        dataset,
        batch_size=options.get('batch_size', 32),
        num_workers=options.get('num_workers', 2),
        training=stage == 'train_dataloader',
        seed=seed,
    )


def build_metric(config: Config, model: VisionModel) -> Any:
    entry = plain(config.get('evaluator')) or model.task.metric
    factory = find(METRICS, entry, where='evaluator')
    if not hasattr(
        factory, 'primary'
    ):  # mmengine's own metrics: one of them writes files wherever it is told
        raise UserError(f'evaluator: {entry["type"]} is no metric of {model.task.name}')
    return build(METRICS, entry, where='evaluator')


def optional_hooks(config: Config | None) -> list[Any]:
    hooks: list[Any] = [build(HOOKS, {'type': 'ProgressHook'}, where='progress')]
    if config is None:
        return hooks
    for key, factory in (('ema', EMAHook), ('early_stopping', EarlyStopping)):
        entry = plain(config.get(key))
        if entry is None or entry is False:
            continue
        if not isinstance(entry, dict):
            raise UserError(f'{key} must be dict(...) or None, got {entry!r}')
        check_options(factory, entry, where=key, name=factory.__name__)
        hooks.append(factory(**entry))
    for index, entry in enumerate(plain(config.get('custom_hooks', []))):
        hooks.append(build(HOOKS, entry, where=f'custom_hooks[{index}]'))
    return hooks


def runner_options(config: Config, seed: int) -> dict[str, Any]:
    interval = int(config.get('log_interval', 10))
    backends = [{'type': 'LocalVisBackend'}]
    if config.get('tensorboard', False):
        if importlib.util.find_spec('tensorboard') is None:
            raise UserError("tensorboard=True needs the extra: pip install -e '.[tensorboard]'")
        backends.append({'type': 'TensorboardVisBackend'})
    return {
        'cfg': config,
        # mmengine keeps one logger per name and second: two runs of one program need two names.
        'experiment_name': f'kestrel_{next(_run_numbers)}',
        'randomness': {'seed': seed},
        'default_hooks': {
            'logger': {'type': 'LoggerHook', 'interval': interval},
            'checkpoint': None,
            'sampler_seed': None,
        },
        'visualizer': {'type': 'Visualizer', 'vis_backends': backends},
        'log_level': 'INFO',
    }


def write_report(runner: KestrelRunner, folder: Path | None, name: str = 'metrics.json') -> dict[str, Any]:
    """Print the last evaluation's table, write metrics.json and draw its pictures."""
    metric: Any = runner.val_loop.evaluator.metrics[0]  # type: ignore[attr-defined]
    if not metric.report:  # resumed when nothing was left to do
        runner.logger.info('nothing was evaluated; the scores of the finished run stay as they are')
        return {}
    skipped = runner.val_loop.skips.files  # type: ignore[attr-defined]
    report = {**metric.report, 'skipped': skipped}
    if not is_main_process():
        return report
    from rich.console import Console

    Console().print(metric.table())
    for note in metric.notes():
        print(note)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(report, indent=1), encoding='utf-8')
            pictures = metric.draw(folder)
        except OSError as error:
            raise UserError(f'cannot write to {folder}: {error}') from error
        print(f'wrote {", ".join(str(path) for path in (folder / name, *pictures))}')
    return report
