"""A training, from a config to its report."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook

from falconet.checkpoints.external_weights import adopt_file
from falconet.checkpoints.file import describe, read_checkpoint, with_old_fill
from falconet.checkpoints.transfer import transfer_weights
from falconet.core.errors import Interrupted, UserError
from falconet.core.plain_values import plain
from falconet.core.schema import check_config
from falconet.doctor.precheck import quick_check
from falconet.engine.builders import (
    build_metric,
    optional_hooks,
    report_of,
    runner_options,
    show_report,
    stage_loader,
    write_report,
)
from falconet.engine.cpu import choose_threads, tune_cpu
from falconet.engine.device import compile_parts, compiling, pick_device, resolve_amp, start_process_group
from falconet.engine.distill import TeacherHook, build_teacher
from falconet.engine.held_out import read_split_file, split_in, with_split, write_split_file
from falconet.engine.hooks.precision import PrecisionHook
from falconet.engine.hooks.progress import ProgressHook
from falconet.engine.hooks.saving import SaveHook
from falconet.engine.hooks.threads import ThreadsHook
from falconet.engine.min_steps import too_short
from falconet.engine.optim import check_optim_wrapper
from falconet.engine.report import write_training_page
from falconet.engine.resolution import resolution_of
from falconet.engine.runner import FalconetRunner
from falconet.engine.schedule import schedule_of
from falconet.engine.seeding import seed_everything
from falconet.engine.work_dir import check_run_files, checkpoint_to_resume, claimed
from falconet.layers.fast.fused import can_fuse, fused_kernels, is_fused
from falconet.tasks.build import build_dataset, build_model, data_root
from falconet.tasks.model import BatchAugment, VisionModel


def train(
    config: Config,
    *,
    root: str | None = None,
    work_dir: str | None = None,
    resume: str | bool = False,
    launcher: str = 'none',
    threads: int | str | None = None,
    kernels: str | None = None,
    hooks: Sequence[Hook] = (),
    notes: Sequence[str] = (),
    check: bool = False,
) -> dict[str, Any]:
    """Train, validate and save as a config says.

    Args:
        config: from `load_config`.
        root: data root instead of the config's.
        work_dir: where everything goes; by default work_dirs/<config name>.
        resume: True goes on from the work dir's last.pth (or begins, when there is none); a path from that.
        launcher: 'none', or what started the processes: 'pytorch', 'slurm', 'mpi'.
        threads: how many to compute with, or 'auto' for as many as there are free cores; None for as many as
            the run began with, or torch's own number.
        kernels: 'fused' computes batch norms and their activations as one where that is possible (on CPUs,
            with Numba), 'torch' never does; None for what the run began with, or 'fused'.
        hooks: further hooks of mmengine, beside the config's `custom_hooks`.
        notes: lines for the log, of what a command line has changed in the config.
        check: look at folders of own data before a new run, and log what is serious.

    Returns:
        The last validation's report, as written to metrics.json.

    Raises:
        UserError: something is missing, unreadable or does not fit; another run is in the work dir, or a file
            there that is nobody's of ours would be replaced.
    """
    check_config(config, training=True)
    start_process_group(launcher)
    tune_cpu()
    if threads is not None:
        choose_threads(threads)
    seed_everything(config.get('seed', 0))
    folder = Path(work_dir or config.get('work_dir') or f'work_dirs/{Path(config.filename).stem}')
    with claimed(folder), fused_kernels(kernels != 'torch'):
        checkpoint = checkpoint_to_resume(folder, resume)
        hooks = [ThreadsHook(told=threads is not None, told_kernels=kernels is not None), *hooks]
        return _train(
            config,
            folder,
            checkpoint,
            root=root,
            launcher=launcher,
            hooks=hooks,
            notes=notes,
            check=check,
        )


def _train(
    config: Config,
    folder: Path,
    checkpoint: Path | None,
    *,
    root: str | None,
    launcher: str,
    hooks: Sequence[Hook],
    notes: Sequence[str],
    check: bool,
) -> dict[str, Any]:
    start_time = time.monotonic()
    content = None if checkpoint is None else read_checkpoint(checkpoint)
    if content is not None and content.get('format', 0) < 2:
        config = with_old_fill(config)
    seed = config.get('seed', 0)
    place = data_root(config, root)
    parted = with_split(config, split_in(content) or read_split_file(folder))
    training = build_dataset(parted, 'train_dataloader', root=place, classes=None, seed=seed)
    held_out = getattr(training, 'held_out', None)
    parted = with_split(parted, held_out)
    validation = build_dataset(parted, 'val_dataloader', root=place, classes=training.classes, seed=seed)
    start = config.get('load_from')
    if start is not None:
        # A run that goes on needs its own checkpoint, not the one it once started from.
        config = adopt_file(config, checkpoint or start)
    model = build_model(config, classes=training.classes, training=training)
    for dataset in (training, validation):
        dataset.fill_with(model.normalise.mean_pixel)
    loaded = None if start is None or checkpoint is not None else transfer_weights(model, start)
    if config.get('compile', False):
        compile_parts(model, pick_device())
    amp = resolve_amp(config.get('amp', 'auto'), pick_device())
    from_scratch = start is None and not config.model.backbone.get('pretrained')
    own_wrapper = 'type' in config.optim_wrapper
    begins_wide = from_scratch and amp == torch.bfloat16 and not own_wrapper
    teacher = build_teacher(config, model, autocast=amp is not None, work_dir=folder)
    taught: list[Hook] = [] if teacher is None else [TeacherHook(teacher)]
    if begins_wide:
        taught.append(PrecisionHook())
    optim_wrapper = check_optim_wrapper(plain(config.optim_wrapper))
    if not own_wrapper:
        autocast = {} if amp is None else {'dtype': name_of(amp)}
        optim_wrapper |= {'type': 'AutocastOptimWrapper' if autocast else 'OptimWrapper', **autocast}
    metric = build_metric(config, model)
    if checkpoint is None:
        check_run_files(folder, config.filename, metric.files)
    loader = stage_loader(config, 'train_dataloader', training, seed)
    schedule = schedule_of(plain(config), iters_per_epoch=len(loader))
    resolution = resolution_of(config, loader)
    description = describe(model, config)
    if held_out is not None:
        description['split'] = {'held_out': held_out}
        write_split_file(folder, held_out)
    save = SaveHook(description, int(config.get('save_every_iters', 0)))
    runner = FalconetRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=plain(config.train_cfg),
        optim_wrapper=optim_wrapper,
        param_scheduler=schedule or None,
        val_dataloader=stage_loader(config, 'val_dataloader', validation, seed),
        val_cfg={},
        val_evaluator=[metric],
        custom_hooks=[ProgressHook(), save, *taught, *optional_hooks(config), *hooks],
        resume=checkpoint is not None,
        load_from=None if checkpoint is None else str(checkpoint),
        launcher=launcher,
        sync_bn=bool(config.get('sync_bn', False)),
        batch_augment=_batch_augment(config, model),
        teacher=teacher,
        **runner_options(config, seed),
    )
    log = runner.logger.info
    log(f'work dir {folder}')
    for note in notes:
        log(note)
    log(f'train: {training}')
    log(f'val: {validation}')
    if check and checkpoint is None and is_main_process():
        for line in quick_check(parted, {'train': training, 'val': validation}, root=place):
            log(line)
    if checkpoint is None and (short := too_short(config, iters_per_epoch=len(loader))) is not None:
        runner.logger.warning(short)
    if (report := getattr(model.backbone, 'load_report', None)) is not None:
        log(f'backbone {report}')
    if loaded is not None:
        log(f'load_from {loaded}')
    if teacher is not None:
        log(f'teacher {teacher}')
    if resolution is not None:
        log(f'resolution: {resolution}')
    if (weights := getattr(model.head, 'class_weights', None)) is not None:
        pairs = zip(model.classes, weights.tolist(), strict=True)
        log('class weights: ' + ', '.join(f'{name} {weight:.3g}' for name, weight in pairs))
    if begins_wide:
        log('precision: float32 at first, bfloat16 autocast once its gradient is the same; channels_last')
    else:
        log(f'precision: {"float32" if amp is None else f"{name_of(amp)} autocast"}; channels_last')
    if config.get('compile', False):
        log("kernels: torch.compile's, made in the first steps")
    elif pick_device().type == 'cpu':
        advice = '' if can_fuse() else " (pip install -e '.[fast]' makes training on a CPU faster)"
        log('kernels: ' + ('norms and activations fused' if is_fused() else f"torch's{advice}"))
    try:
        with warnings.catch_warnings():
            # While gradients accumulate the schedule steps first, as it should: it counts iterations.
            warnings.filterwarnings('ignore', r'Detected call of `scheduler\.step\(\)` before')
            try:
                with compiling():
                    runner.train()
            except (UserError, Interrupted) as error:
                if runner.iter:  # else nothing was trained here, and an earlier run's page stays
                    seconds = time.monotonic() - start_time
                    write_training_page(runner, folder, seconds=seconds, stopped=str(error))
                raise
        file = folder / 'metrics.json'
        if not report_of(runner) and not file.exists():
            runner.evaluation_loop.run()  # an earlier run stopped between its last epoch and its report
        if report_of(runner):
            show_report(runner)
            written = write_report(runner, file)
            page = write_training_page(runner, folder, seconds=time.monotonic() - start_time)
            written += [] if page is None else [page]
            log(f'wrote {", ".join(map(str, written))}')
        else:
            log('nothing was evaluated; the scores of the finished run stay as they are')
        barrier()  # a process that leaves early would take the others' connections with it
        return report_of(runner)
    finally:
        runner.close()


def name_of(dtype: torch.dtype) -> str:
    """Return 'bfloat16' for torch.bfloat16."""
    return str(dtype).removeprefix('torch.')


def _batch_augment(config: Config, model: VisionModel) -> BatchAugment | None:
    entries = plain(config.train_dataloader.get('batch_augment', []))
    if not entries:
        return None
    if model.task.batch_augment is None:
        raise UserError(f'batch_augment: {model.task.name} has none')
    try:
        return model.task.batch_augment(entries, num_classes=len(model.classes))
    except (TypeError, ValueError) as error:
        raise UserError(f'train_dataloader.batch_augment: {error}') from error
