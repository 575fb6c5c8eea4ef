"""From a config to a run. The one place that builds mmengine's Runner.

load_config -> data sets -> classes -> VisionModel -> Runner -> train() or evaluate()
"""

import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.registry import DATASETS, HOOKS, METRICS

from heads.base import HEADS
from tasks.dataset import VisionDataset
from tasks.errors import UserError
from tasks.loading import adopt_file, check_classes, load_weights, model_from_checkpoint, transfer_weights
from tasks.model import VisionModel
from tasks.registry import build, check_options, closest, find
from tasks.runtime.checkpoint import read_checkpoint, to_plain
from tasks.runtime.cpu import tune_cpu
from tasks.runtime.device import pick_device, resolve_amp, start_process_group
from tasks.runtime.ema import EMAHook
from tasks.runtime.engine import KestrelRunner
from tasks.runtime.loader import build_loader
from tasks.runtime.optim import check_optim_wrapper, check_schedulers
from tasks.runtime.saving import LAST, SaveHook
from tasks.runtime.seeding import seed_everything
from tasks.runtime.stopping import EarlyStopping
from tasks.task import find_task

# Every key a config may have, so that a misspelt one is an error and not a silent default.
KEYS = (
    'model',
    'load_from',
    'data_root',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'evaluator',
    'ema',
    'early_stopping',
    'save_every_iters',
    'log_interval',
    'custom_hooks',
    'custom_imports',
    'amp',
    'seed',
    'sync_bn',
    'tensorboard',
    'work_dir',
)
_run_numbers = itertools.count()
MODEL_KEYS = ('backbone', 'head', 'normalise', 'norm_eval')
CYCLE_KEYS = ('max_epochs', 'val_begin', 'val_interval')
LOADER_KEYS = ('dataset', 'batch_size', 'num_workers', 'batch_augment')


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply `--cfg-options`.

    Args:
        path: a Python config; it is run.
        options: 'key.inner=value' strings.

    Raises:
        UserError: missing or broken file, malformed option, unknown key.
    """
    path = Path(path)
    if not path.is_file():
        nearby = [str(each) for each in sorted(Path('configs').rglob('*.py')) if '_base_' not in each.parts]
        raise UserError(f'there is no config {path}. {closest(str(path), nearby) if nearby else ""}')
    try:
        config = Config.fromfile(path)
        config.merge_from_dict(_parse_options(options))
    except UserError:
        raise
    except Exception as error:  # a config is code: anything can go wrong in it
        raise UserError(f'cannot read {path}: {type(error).__name__}: {error}') from error
    for key in list(config):
        if inspect.ismodule(config[key]) or inspect.isroutine(config[key]) or key.startswith('_'):
            config.pop(key)  # what the config imported or defined to compute its values
        elif key not in KEYS:
            raise UserError(f'{path}: unknown key {key!r}. {closest(key, KEYS)}')
    model = config.get('model')
    if not isinstance(model, Mapping) or not {'backbone', 'head'} <= set(model):
        raise UserError(f'{path} needs model=dict(backbone=dict(...), head=dict(...))')
    for key in model:
        if key not in MODEL_KEYS:
            raise UserError(f'{path}: unknown key model.{key}. {closest(key, MODEL_KEYS)}')
    return config


def check_numbers(config: Config) -> None:
    """Raise UserError for a training config with a part missing, or a number out of its range."""
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'train_cfg'):
        if not isinstance(config.get(key), Mapping):
            raise UserError(f'training needs {key}=dict(...), got {config.get(key)!r}')
    for key in config.train_cfg:
        if key not in CYCLE_KEYS:
            raise UserError(f'train_cfg: unknown key {key!r}. {closest(key, CYCLE_KEYS)}')
    if 'max_epochs' not in config.train_cfg:
        raise UserError('train_cfg needs max_epochs')
    numbers = {
        'seed': (config.get('seed', 0), 0),
        'log_interval': (config.get('log_interval', 10), 1),
        'save_every_iters': (config.get('save_every_iters', 0), 0),
        **{f'train_cfg.{key}': (value, 1) for key, value in config.train_cfg.items()},
    }
    check_whole(numbers)
    for stage in ('train_dataloader', 'val_dataloader'):
        check_loader(config, stage)


def check_loader(config: Config, stage: str) -> None:
    """Raise UserError for a number of a loader that is out of its range."""
    loader = config.get(stage) or {}
    sizes = {
        'batch_size': (loader.get('batch_size', 32), 1),
        'num_workers': (loader.get('num_workers', 2), 0),
    }
    check_whole({f'{stage}.{key}': value for key, value in sizes.items()})


def check_whole(numbers: Mapping[str, tuple[Any, int]]) -> None:
    """Raise UserError unless each value, by name, is a whole number that reaches its minimum."""
    for name, (value, least) in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f'{name} must be a whole number of at least {least}, got {value!r}')


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder {folder}: {error}') from error


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    parsed = {}
    for option in options:
        key, separator, value = option.partition('=')
        if not separator or not key:
            raise UserError(f'--cfg-options takes key=value, got {option!r}')
        parsed[key] = DictAction._parse_iterable(value)
    return parsed


def data_root(config: Config, override: str | None) -> Path:
    """Return where the data lies: `--data-root`, else $KESTREL_DATA/<name>, else the config's own.

    KESTREL_DATA replaces the leading `data` of a config's `data/<name>`.
    """
    if override is not None:
        return Path(override).expanduser()
    root = Path(config.get('data_root', 'data'))
    base = os.environ.get('KESTREL_DATA')
    if base and root.parts[:1] == ('data',):
        return Path(base).expanduser().joinpath(*root.parts[1:])
    return root


def build_dataset(
    config: Config, stage: str, *, root: Path, classes: Sequence[str] | None, seed: int
) -> VisionDataset:
    """Build the data set of 'train_dataloader', 'val_dataloader' or 'test_dataloader'."""
    find_task(find(HEADS, config.model.get('head'), where='model.head').task)  # registers its data sets
    loader = config.get(stage)
    if loader is None:
        raise UserError(f'the config has no {stage}')
    for key in loader:
        if key not in LOADER_KEYS:
            raise UserError(f'{stage}: unknown key {key!r}. {closest(key, LOADER_KEYS)}')
    return build(
        DATASETS,
        loader.get('dataset'),
        where=f'{stage}.dataset',
        root=str(root),
        classes=classes,
        training=stage == 'train_dataloader',
        seed=seed,
    )


def evaluation_stage(config: Config) -> str:
    """Return the loader that `tools/test.py` scores: 'test_dataloader' where there is one."""
    return 'test_dataloader' if 'test_dataloader' in config else 'val_dataloader'


def build_model(
    config: Config, *, classes: Sequence[str] | None = None, training: VisionDataset | None = None
) -> VisionModel:
    """Build the untrained (or pretrained) model of a config.

    Args:
        config: from `load_config`.
        classes: class names; by default those of the config's data.
        training: the training data, from which `class_weights='data'` in the head are computed. They shape
            the loss only: without it, as when evaluating, there are none.
    """
    if classes is None:
        stage = 'train_dataloader' if 'train_dataloader' in config else evaluation_stage(config)
        root = data_root(config, None)
        classes = build_dataset(config, stage, root=root, classes=None, seed=0).classes
    options = plain(config.model)
    if options['head'].get('class_weights') == 'data':
        options['head']['class_weights'] = None if training is None else _class_weights(training)
    stage = config.get(evaluation_stage(config)) or {}
    preprocess = plain(stage.get('dataset', {}).get('augment', []))
    return VisionModel(**options, classes=classes, preprocess=preprocess)


def _class_weights(training: VisionDataset) -> list[float]:
    compute = getattr(training, 'class_weights', None)
    if compute is None:
        raise UserError(
            f"class_weights='data': {type(training).__name__} does not count its classes; give the numbers"
        )
    return compute()


def train(
    config: Config,
    *,
    root: str | None = None,
    work_dir: str | None = None,
    resume: str | bool = False,
    launcher: str = 'none',
) -> dict[str, Any]:
    """Train, validate and save as a config says.

    Args:
        config: from `load_config`.
        root: data root instead of the config's.
        work_dir: where everything goes; by default work_dirs/<config name>.
        resume: True goes on from the work dir's last.pth (or begins, when there is none); a path from that.
        launcher: 'none', or what started the processes: 'pytorch', 'slurm', 'mpi'.

    Returns:
        The last validation's report, as written to metrics.json.
    """
    check_numbers(config)
    start_process_group(launcher)
    tune_cpu()
    seed = config.get('seed', 0)
    seed_everything(seed)
    folder = Path(work_dir or config.get('work_dir') or f'work_dirs/{Path(config.filename).stem}')
    checkpoint = _checkpoint_to_resume(folder, resume)
    place = data_root(config, root)
    training = build_dataset(config, 'train_dataloader', root=place, classes=None, seed=seed)
    validation = build_dataset(config, 'val_dataloader', root=place, classes=training.classes, seed=seed)
    start = config.get('load_from')
    if start is not None:
        # A run that goes on needs its own checkpoint, not the one it once started from.
        adopt_file(config, checkpoint or start)
    model = build_model(config, classes=training.classes, training=training)
    loaded = None if start is None or checkpoint is not None else transfer_weights(model, start)
    entries = plain(config.train_dataloader.get('batch_augment', []))
    if entries:
        if model.task.batch_augment is None:
            raise UserError(f'batch_augment: {model.task.name} has none')
        model.batch_augment = model.task.batch_augment(entries, num_classes=len(training.classes))

    amp = resolve_amp(config.get('amp', 'auto'), pick_device())
    optim_wrapper = check_optim_wrapper(plain(config.optim_wrapper))
    optim_wrapper.setdefault('type', 'AutocastOptimWrapper' if amp else 'OptimWrapper')
    cycle = plain(config.train_cfg)
    _make_folder(folder)
    save = SaveHook(describe(model, config), int(config.get('save_every_iters', 0)))
    runner = KestrelRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=_loader(config, 'train_dataloader', training, seed),
        train_cfg={'type': 'TrainLoop', **cycle},
        optim_wrapper=optim_wrapper,
        param_scheduler=check_schedulers(plain(config.get('param_scheduler', []))) or None,
        val_dataloader=_loader(config, 'val_dataloader', validation, seed),
        val_cfg={'type': 'EvalLoop'},
        val_evaluator=_metric(config, model),
        custom_hooks=[save, *_optional_hooks(config)],
        resume=checkpoint is not None,
        load_from=None if checkpoint is None else str(checkpoint),
        launcher=launcher,
        sync_bn=bool(config.get('sync_bn', False)),
        **_common(config, seed),
    )
    log = runner.logger.info
    log(f'work dir {folder}')
    log(f'train: {training}')
    log(f'val: {validation}')
    if (report := getattr(model.backbone, 'load_report', None)) is not None:
        log(f'backbone {report}')
    if loaded is not None:
        log(f'load_from {loaded}')
    if (weights := getattr(model.head, 'class_weights', None)) is not None:
        pairs = zip(model.classes, weights.tolist(), strict=True)
        log('class weights: ' + ', '.join(f'{name} {weight:.3g}' for name, weight in pairs))
    log(f'precision: {"bfloat16 autocast" if amp else "float32"}; channels_last')
    try:
        with warnings.catch_warnings():
            # While gradients accumulate the schedule steps first, as it should: it counts iterations.
            warnings.filterwarnings('ignore', r'Detected call of `scheduler\.step\(\)` before')
            runner.train()
        validation: Any = runner.val_loop
        if not validation.evaluator.metrics[0].report and not (folder / 'metrics.json').exists():
            validation.run()  # an earlier run stopped after its last epoch, before it wrote its report
        return _write_report(runner, folder)
    finally:
        runner.close()


def evaluate(
    config: Config | None,
    *,
    checkpoint: str | None = None,
    root: str | None = None,
    out: str | None = None,
    multi_scale: bool = False,
) -> dict[str, Any]:
    """Score a checkpoint on its data.

    Args:
        config: the config, or None to take the one stored in the checkpoint.
        checkpoint: a Kestrel checkpoint; with a config, also other projects' weights.
        root: data root instead of the config's.
        out: file to write the report to, as JSON.
        multi_scale: average over several scales and mirror images, in tasks that can.

    Returns:
        The report.
    """
    if out is not None:
        _make_folder(Path(out).parent)
    tune_cpu()
    seed_everything(0)
    content: Mapping[str, Any] | None = None
    if config is None:
        if checkpoint is None:
            raise UserError('give a checkpoint or a config')
        content = read_checkpoint(checkpoint)
        # Of a stranger's config only what describes the data; what runs is looked up by name.
        kept = ('model', 'data_root', 'val_dataloader', 'test_dataloader', 'evaluator')
        config = Config({key: content['config'][key] for key in kept if key in content['config']})
    stage = evaluation_stage(config)
    check_loader(config, stage)
    classes = None if content is None else content['classes']
    dataset = build_dataset(config, stage, root=data_root(config, root), classes=classes, seed=0)
    if content is not None:
        check_classes(content['classes'], dataset.classes, source=str(checkpoint))
        model = model_from_checkpoint(content, source=str(checkpoint))
    else:
        if checkpoint is not None:
            adopt_file(config, checkpoint)
        model = build_model(config, classes=dataset.classes)
        if checkpoint is not None:
            load_weights(model, checkpoint)
    if multi_scale:
        if model.task.multi_scale is None:
            raise UserError(f'--multi-scale: {model.task.name} is scored at one scale only')
        model.multi_scale = model.task.multi_scale
    with tempfile.TemporaryDirectory() as scratch:
        runner = KestrelRunner(
            model=model,
            work_dir=scratch,
            val_dataloader=_loader(config, stage, dataset, 0),
            val_cfg={'type': 'EvalLoop'},
            val_evaluator=_metric(config, model),
            custom_hooks=_optional_hooks(None),
            **_common(config, 0),
        )
        try:
            runner.logger.info(f'{stage.removesuffix("_dataloader")}: {dataset}')
            runner.val()
            folder = None if out is None else Path(out).parent
            return _write_report(runner, folder, name='metrics.json' if out is None else Path(out).name)
        finally:
            runner.close()


def describe(model: VisionModel, config: Config) -> dict[str, Any]:
    """Return what every checkpoint of a run says of its model, as plain values."""
    libraries = ('torch', 'torchvision', 'mmengine-lite', 'albumentations', 'numpy')
    return to_plain(
        {
            'task': model.task.name,
            'model': model.spec,
            'classes': list(model.classes),
            'preprocess': {
                'transforms': list(model.preprocess),
                'channel_order': 'RGB',
                'normalise': model.spec['normalise'],
            },
            'config': plain(config),
            'config_text': config.pretty_text,
            'versions': {name: _version(name) for name in ('kestrel', *libraries)},
        }
    )


def plain(config: Any) -> Any:
    """Return a config's dicts and lists as ordinary ones."""
    if isinstance(config, Config):
        config = config._cfg_dict
    return config.to_dict() if hasattr(config, 'to_dict') else to_plain(config)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return None


def _checkpoint_to_resume(folder: Path, resume: str | bool) -> Path | None:
    last = folder / LAST
    if isinstance(resume, str):
        if last.exists() and last.resolve() != Path(resume).resolve():
            raise UserError(f'{folder} already holds another run than {resume}: give another --work-dir')
        return Path(resume)
    if resume:
        return last if last.exists() else None
    if last.exists():
        raise UserError(
            f'{folder} already holds a run. Go on with --resume, or give another --work-dir, or delete it.'
        )
    return None


def _loader(config: Config, stage: str, dataset: VisionDataset, seed: int) -> Any:
    options = config[stage]
    return build_loader(
        dataset,
        batch_size=options.get('batch_size', 32),
        num_workers=options.get('num_workers', 2),
        training=stage == 'train_dataloader',
        seed=seed,
    )


def _metric(config: Config, model: VisionModel) -> list[Any]:
    entry = plain(config.get('evaluator')) or model.task.metric
    factory = find(METRICS, entry, where='evaluator')
    if not hasattr(
        factory, 'primary'
    ):  # mmengine's own metrics: one of them writes files wherever it is told
        raise UserError(f'evaluator: {entry["type"]} is no metric of {model.task.name}')
    return [build(METRICS, entry, where='evaluator')]


def _optional_hooks(config: Config | None) -> list[Any]:
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


def _common(config: Config, seed: int) -> dict[str, Any]:
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


def _write_report(runner: KestrelRunner, folder: Path | None, name: str = 'metrics.json') -> dict[str, Any]:
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
