"""A training, from a config to its report."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook

from falconet.checkpoints.external_weights import adopt_file
from falconet.checkpoints.file import describe, read_checkpoint, with_old_fill
from falconet.checkpoints.transfer import TransferReport, transfer_weights
from falconet.core.errors import Interrupted, UserError
from falconet.core.plain_values import plain
from falconet.core.schema import check_config
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.loader import Loader
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
from falconet.engine.distill import Teacher, TeacherHook, build_teacher
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
    data = open_data(config, folder, content, root=root)
    config, model, loaded = start_model(config, data, checkpoint)
    precision = choose_precision(config)
    teacher = build_teacher(config, model, autocast=precision.autocast is not None, work_dir=folder)
    loader = stage_loader(config, 'train_dataloader', data.training, config.get('seed', 0))
    resolution = resolution_of(config, loader)
    hooks = training_hooks(config, folder, data, model, precision, teacher, hooks)
    runner = build_runner(
        config,
        folder,
        checkpoint,
        data,
        model,
        precision,
        teacher,
        loader=loader,
        launcher=launcher,
        hooks=hooks,
    )
    for line in (f'work dir {folder}', *notes):
        runner.logger.info(line)
    announce(runner, data, fresh=checkpoint is None, check=check)
    for line in (
        None if loaded is None else f'load_from {loaded}',
        None if teacher is None else f'teacher {teacher}',
        None if resolution is None else f'resolution: {resolution}',
    ):
        if line is not None:
            runner.logger.info(line)
    announce_speed(runner, precision)
    try:
        run(runner, folder, start_time)
        return report(runner, folder, start_time)
    finally:
        runner.close()


class Data(NamedTuple):
    """What is learnt and what is validated on.

    Attributes:
        training, validation: the data sets.
        held_out: pictures set aside for validation, None where the data say their own split.
        config: the config with that split.
        root: where the data lie.
    """

    training: VisionDataset
    validation: VisionDataset
    held_out: Any
    config: Config
    root: Path


def open_data(config: Config, folder: Path, content: Mapping[str, Any] | None, *, root: str | None) -> Data:
    """Open the data sets, split as the checkpoint or the work dir says if they say anything."""
    seed, data_folder = config.get('seed', 0), data_root(config, root)
    config = with_split(config, split_in(content) or read_split_file(folder))
    training = build_dataset(config, 'train_dataloader', root=data_folder, classes=None, seed=seed)
    held_out = getattr(training, 'held_out', None)
    config = with_split(config, held_out)
    validation = build_dataset(
        config, 'val_dataloader', root=data_folder, classes=training.classes, seed=seed
    )
    return Data(training, validation, held_out, config, data_folder)


def start_model(
    config: Config, data: Data, checkpoint: Path | None
) -> tuple[Config, VisionModel, TransferReport | None]:
    """Build the model; return it with its config and what became of the weights it starts from."""
    start = config.get('load_from')
    if start is not None:
        # A run that goes on needs its own checkpoint, not the one it once started from.
        config = adopt_file(config, checkpoint or start)
    model = build_model(config, classes=data.training.classes, training=data.training)
    for dataset in (data.training, data.validation):
        dataset.fill_with(model.normalise.mean_pixel)
    loaded = None if start is None or checkpoint is not None else transfer_weights(model, start)
    if config.get('compile', False):
        compile_parts(model, pick_device())
    return config, model, loaded


class Precision(NamedTuple):
    """What a run computes in.

    Attributes:
        autocast: dtype of the maps, None for float32 throughout.
        begins_wide: float32 until bfloat16's gradient agrees with it; see `engine.hooks.precision`.
        own_wrapper: the config names an optimiser wrapper of its own, which decides for itself.
    """

    autocast: torch.dtype | None
    begins_wide: bool
    own_wrapper: bool

    def __str__(self) -> str:
        if self.begins_wide:
            return 'float32 at first, bfloat16 autocast once its gradient is the same'
        return 'float32' if self.autocast is None else f'{name_of(self.autocast)} autocast'

    def optim_wrapper(self, config: Config) -> dict[str, Any]:
        """Return the config's optimiser as mmengine's wrapper with this autocast."""
        options = check_optim_wrapper(plain(config.optim_wrapper))
        if self.own_wrapper:
            return options
        if self.autocast is None:
            return options | {'type': 'OptimWrapper'}
        return options | {'type': 'AutocastOptimWrapper', 'dtype': name_of(self.autocast)}


def choose_precision(config: Config) -> Precision:
    """Return what the config and the device allow."""
    amp = resolve_amp(config.get('amp', 'auto'), pick_device())
    from_scratch = config.get('load_from') is None and not config.model.backbone.get('pretrained')
    own_wrapper = 'type' in config.optim_wrapper
    return Precision(amp, from_scratch and amp == torch.bfloat16 and not own_wrapper, own_wrapper)


def build_runner(
    config: Config,
    folder: Path,
    checkpoint: Path | None,
    data: Data,
    model: VisionModel,
    precision: Precision,
    teacher: Teacher | None,
    *,
    loader: Loader,
    launcher: str,
    hooks: Sequence[Hook],
) -> FalconetRunner:
    """Put everything into the runner; a new run must find no file of others' in its work dir."""
    seed = config.get('seed', 0)
    optim_wrapper = precision.optim_wrapper(config)
    metric = build_metric(config, model)
    if checkpoint is None:
        check_run_files(folder, config.filename, metric.files)
    return FalconetRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=plain(config.train_cfg),
        optim_wrapper=optim_wrapper,
        param_scheduler=schedule_of(plain(config), iters_per_epoch=len(loader)) or None,
        val_dataloader=stage_loader(config, 'val_dataloader', data.validation, seed),
        val_cfg={},
        val_evaluator=[metric],
        custom_hooks=hooks,
        resume=checkpoint is not None,
        load_from=None if checkpoint is None else str(checkpoint),
        launcher=launcher,
        sync_bn=bool(config.get('sync_bn', False)),
        batch_augment=_batch_augment(config, model),
        teacher=teacher,
        **runner_options(config, seed),
    )


def training_hooks(
    config: Config,
    folder: Path,
    data: Data,
    model: VisionModel,
    precision: Precision,
    teacher: Teacher | None,
    hooks: Sequence[Hook],
) -> list[Hook]:
    """Return the hooks of a training, in their order: ours, the config's, the caller's."""
    description = describe(model, config)
    if data.held_out is not None:
        description['split'] = {'held_out': data.held_out}
        write_split_file(folder, data.held_out)
    return [
        ProgressHook(),
        SaveHook(description, int(config.get('save_every_iters', 0))),
        *([] if teacher is None else [TeacherHook(teacher)]),
        *([PrecisionHook()] if precision.begins_wide else []),
        *optional_hooks(config),
        *hooks,
    ]


def announce(runner: FalconetRunner, data: Data, *, fresh: bool, check: bool) -> None:
    """Say what is trained on, and what could go wrong."""
    log, config, model = runner.logger.info, runner.cfg, runner.bare_model
    log(f'train: {data.training}')
    log(f'val: {data.validation}')
    if check and fresh and is_main_process():
        for line in quick_check(
            data.config, {'train': data.training, 'val': data.validation}, root=data.root
        ):
            log(line)
    iterations = len(runner.train_dataloader)
    if fresh and (short := too_short(config, iters_per_epoch=iterations)) is not None:
        runner.logger.warning(short)
    if (loaded := getattr(model.backbone, 'load_report', None)) is not None:
        log(f'backbone {loaded}')


def announce_speed(runner: FalconetRunner, precision: Precision) -> None:
    """Say what the losses weigh, and in which precision and by which kernels the run computes."""
    log, config, model = runner.logger.info, runner.cfg, runner.bare_model
    if (weights := getattr(model.head, 'class_weights', None)) is not None:
        pairs = zip(model.classes, weights.tolist(), strict=True)
        log('class weights: ' + ', '.join(f'{name} {weight:.3g}' for name, weight in pairs))
    log(f'precision: {precision}; channels_last')
    if config.get('compile', False):
        log("kernels: torch.compile's, made in the first steps")
    elif pick_device().type == 'cpu':
        advice = '' if can_fuse() else " (pip install -e '.[fast]' makes training on a CPU faster)"
        log('kernels: ' + ('norms and activations fused' if is_fused() else f"torch's{advice}"))


def run(runner: FalconetRunner, folder: Path, start_time: float) -> None:
    """Train; a run that stops early leaves a page of what it has reached."""
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


def report(runner: FalconetRunner, folder: Path, start_time: float) -> dict[str, Any]:
    """Show and write the last validation's report, and return it."""
    file = folder / 'metrics.json'
    if not report_of(runner) and not file.exists():
        runner.evaluation_loop.run()  # an earlier run stopped between its last epoch and its report
    if report_of(runner):
        show_report(runner)
        written = write_report(runner, file)
        page = write_training_page(runner, folder, seconds=time.monotonic() - start_time)
        written += [] if page is None else [page]
        runner.logger.info(f'wrote {", ".join(map(str, written))}')
    else:
        runner.logger.info('nothing was evaluated; the scores of the finished run stay as they are')
    barrier()  # a process that leaves early would take the others' connections with it
    return report_of(runner)


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
