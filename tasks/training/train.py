"""A training, from a config to its report."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from tasks.build import build_dataset, build_model, check_numbers, data_root
from tasks.checkpoints.file import describe
from tasks.checkpoints.foreign import adopt_file
from tasks.checkpoints.transfer import transfer_weights
from tasks.errors import UserError
from tasks.model import BatchAugment, VisionModel
from tasks.plain import plain
from tasks.training.cpu import tune_cpu
from tasks.training.device import pick_device, resolve_amp, start_process_group
from tasks.training.hooks.progress import ProgressHook
from tasks.training.hooks.saving import LAST, SaveHook
from tasks.training.optim import check_optim_wrapper, check_schedulers
from tasks.training.parts import (
    build_metric,
    make_folder,
    optional_hooks,
    report_of,
    runner_options,
    show_report,
    stage_loader,
    write_report,
)
from tasks.training.runner import KestrelRunner
from tasks.training.seeding import seed_everything


def train(
    config: Config,
    *,
    root: str | None = None,
    work_dir: str | None = None,
    resume: str | bool = False,
    launcher: str = 'none',
    hooks: Sequence[Hook] = (),
) -> dict[str, Any]:
    """Train, validate and save as a config says.

    Args:
        config: from `load_config`.
        root: data root instead of the config's.
        work_dir: where everything goes; by default work_dirs/<config name>.
        resume: True goes on from the work dir's last.pth (or begins, when there is none); a path from that.
        launcher: 'none', or what started the processes: 'pytorch', 'slurm', 'mpi'.
        hooks: further hooks of mmengine, beside the config's `custom_hooks`.

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
        config = adopt_file(config, checkpoint or start)
    model = build_model(config, classes=training.classes, training=training)
    loaded = None if start is None or checkpoint is not None else transfer_weights(model, start)
    amp = resolve_amp(config.get('amp', 'auto'), pick_device())
    optim_wrapper = check_optim_wrapper(plain(config.optim_wrapper))
    optim_wrapper.setdefault('type', 'AutocastOptimWrapper' if amp else 'OptimWrapper')
    make_folder(folder)
    save = SaveHook(describe(model, config), int(config.get('save_every_iters', 0)))
    runner = KestrelRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=stage_loader(config, 'train_dataloader', training, seed),
        train_cfg=plain(config.train_cfg),
        optim_wrapper=optim_wrapper,
        param_scheduler=check_schedulers(plain(config.get('param_scheduler', []))) or None,
        val_dataloader=stage_loader(config, 'val_dataloader', validation, seed),
        val_cfg={},
        val_evaluator=[build_metric(config, model)],
        custom_hooks=[ProgressHook(), save, *optional_hooks(config), *hooks],
        resume=checkpoint is not None,
        load_from=None if checkpoint is None else str(checkpoint),
        launcher=launcher,
        sync_bn=bool(config.get('sync_bn', False)),
        batch_augment=_batch_augment(config, model),
        **runner_options(config, seed),
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
        file = folder / 'metrics.json'
        if not report_of(runner) and not file.exists():
            runner.evaluation_loop.run()  # an earlier run stopped between its last epoch and its report
        if report_of(runner):
            show_report(runner)
            written = write_report(runner, file)
            log(f'wrote {", ".join(map(str, written))}')
        else:
            log('nothing was evaluated; the scores of the finished run stay as they are')
        return report_of(runner)
    finally:
        runner.close()


def _batch_augment(config: Config, model: VisionModel) -> BatchAugment | None:
    entries = plain(config.train_dataloader.get('batch_augment', []))
    if not entries:
        return None
    if model.task.batch_augment is None:
        raise UserError(f'batch_augment: {model.task.name} has none')
    return model.task.batch_augment(entries, num_classes=len(model.classes))


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
