"""What a training and an evaluation build alike around mmengine's Runner."""

import importlib.util
import itertools
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import HOOKS, METRICS, VISBACKENDS

from falconet.core.errors import UserError
from falconet.core.owned_files import is_ours, write_json
from falconet.core.plain_values import plain
from falconet.core.registry import build, find
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.images.reading import reading_of
from falconet.datasets.loader import Loader, build_loader
from falconet.engine.hooks.board import BoardHook
from falconet.engine.hooks.ema import EMAHook
from falconet.engine.hooks.stopping import EarlyStopping
from falconet.engine.runner import FalconetRunner
from falconet.engine.work_dir import REPORT, make_folder
from falconet.heads.base import HEADS
from falconet.tasks.model import VisionModel
from falconet.tasks.task import find_task, load_tasks

_run_numbers = itertools.count()


def stage_loader(config: Config, stage: str, dataset: VisionDataset, seed: int) -> Loader:
    """Build the loader of 'train_dataloader', 'val_dataloader' or 'test_dataloader'."""
    options, training = config[stage], stage == 'train_dataloader'
    dataset.reading = reading_of(plain(options), training=training)
    return build_loader(
        dataset,
        batch_size=options.get('batch_size', 32),
        num_workers=options.get('num_workers', 2),
        training=training,
        seed=seed,
        repeated=options.get('repeated', 1),
    )


def build_metric(config: Config, model: VisionModel) -> Any:
    """Build the metric a config names, or the task's own."""
    load_tasks()
    entry = plain(config.get('evaluator')) or model.task.metric
    factory = find(METRICS, entry, where='evaluator')
    # mmengine's own metrics have none; one of them writes files wherever it is told.
    if not hasattr(factory, 'primary'):
        raise UserError(f'evaluator: {entry["type"]} is no metric of {model.task.name}')
    known = {head.task for head in HEADS.module_dict.values() if hasattr(head, 'task')}
    others = {find_task(name).metric['type']: name for name in known if name != model.task.name}
    if entry['type'] in others and entry['type'] != model.task.metric['type']:
        raise UserError(
            f'evaluator: {entry["type"]} scores {others[entry["type"]]}, this is {model.task.name}: take '
            f'{model.task.metric["type"]}'
        )
    return build(METRICS, entry, where='evaluator')


def metric_files(path: Path, metric: Any) -> list[Path]:
    """Return the files that scores in `path` come with, itself first.

    A list of detections cannot carry our note: beside scores of ours it counts as ours.
    """
    return [
        path,
        path.parent / REPORT,
        *(path.parent / name for name in metric.files if not (is_ours(path) and '.json' in name)),
    ]


def optional_hooks(config: Config) -> list[Any]:
    """Return the hooks that a training config asks for."""
    hooks: list[Any] = []
    for key, factory in (('ema', EMAHook), ('early_stopping', EarlyStopping)):
        entry = plain(config.get(key))
        if entry is None or entry is False:
            continue
        hooks.append(factory(**entry))
    for index, entry in enumerate(plain(config.get('custom_hooks', []))):
        hooks.append(build(HOOKS, entry, where=f'custom_hooks[{index}]'))
    if config.get('tensorboard', False) or config.get('vis_backends'):
        hooks.append(BoardHook())
    return hooks


def runner_options(config: Config, seed: int) -> dict[str, Any]:
    """Return the Runner's options that training and evaluation share."""
    backends = [{'type': 'LocalVisBackend'}]
    if config.get('tensorboard', False):
        if importlib.util.find_spec('tensorboard') is None:
            raise UserError("tensorboard=True needs the extra: pip install -e '.[tensorboard]'")
        backends.append({'type': 'TensorboardVisBackend'})
    for index, entry in enumerate(plain(config.get('vis_backends', []))):
        find(VISBACKENDS, entry, where=f'vis_backends[{index}]')
        backends.append(entry)
    return {
        'cfg': config,
        # mmengine keeps one logger per name and second: two runs of one program need two names.
        'experiment_name': f'falconet_{next(_run_numbers)}',
        'randomness': {'seed': seed},
        'default_hooks': {
            'logger': {'type': 'LineHook', 'interval': int(config.get('log_interval', 10))},
            'checkpoint': None,
            'sampler_seed': None,
        },
        'visualizer': {'type': 'Visualizer', 'vis_backends': backends},
        'log_level': 'INFO',
    }


def report_of(runner: FalconetRunner) -> dict[str, Any]:
    """Return what metrics.json holds of the last evaluation; nothing when there was none."""
    metric, loop = runner.val_evaluator.metrics[0], runner.evaluation_loop
    return {**metric.report, 'skipped': loop.skips.files} if metric.report else {}


def show_report(runner: FalconetRunner) -> None:
    """Print the last evaluation's table, and what its means could hide."""
    if is_main_process():
        from rich.console import Console

        metric = runner.val_evaluator.metrics[0]
        Console().print(metric.table())
        for note in metric.notes():
            print(note)


def write_report(runner: FalconetRunner, path: Path) -> list[Path]:
    """Write the last evaluation's scores to `path` and its pictures beside it; return the files."""
    if not is_main_process():
        return []
    try:
        make_folder(path.parent)
        write_json(report_of(runner), path)
        return [path, *runner.val_evaluator.metrics[0].draw(path.parent)]
    except OSError as error:
        raise UserError(f'cannot write to {path.parent}: {error}') from error
