"""An evaluation: a checkpoint, or a config with weights, scored on its data."""

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from torch import Tensor

from falconet.checkpoints.external_weights import adopt_file, is_falconet, load_weights
from falconet.checkpoints.file import read_checkpoint
from falconet.checkpoints.load import config_from_checkpoint, is_program, load_program, model_from_checkpoint
from falconet.core.errors import UserError, listing
from falconet.core.owned_files import check_writable
from falconet.core.registry import find
from falconet.core.schema import check_config
from falconet.datasets.classes import match_classes
from falconet.engine.builders import (
    build_metric,
    metric_files,
    report_of,
    runner_options,
    show_report,
    stage_loader,
    write_report,
)
from falconet.engine.device import pick_device
from falconet.engine.held_out import split_in, with_format, with_split
from falconet.engine.hooks.progress import ProgressHook
from falconet.engine.report import write_test_page
from falconet.engine.runner import FalconetRunner
from falconet.engine.work_dir import REPORT
from falconet.heads.base import HEADS
from falconet.tasks.build import build_dataset, build_model, data_root, evaluation_stage
from falconet.tasks.model import VisionModel
from falconet.tasks.predictor import Network

Quicken = Callable[[VisionModel, int, Callable[[str], Any]], Network | None]


def evaluate(
    config: Config | None,
    *,
    checkpoint: str | None = None,
    root: str | None = None,
    out: str | None = None,
    page: str | Path | None = None,
    multi_scale: bool = False,
    network: Network | None = None,
    quicken: Quicken | None = None,
    verbose: bool = False,
    overwrite: bool = False,
    data_format: str | None = None,
) -> dict[str, Any]:
    """Score a checkpoint on its data.

    Draws no random numbers of its own and prints nothing unless told to; unreadable files are in the report,
    and named on stderr.

    Args:
        config: the config, or None to take the one stored in the checkpoint.
        checkpoint: a Falconet checkpoint, or a program of tools/export.py; with a config, also other
            projects' weights.
        root: data root instead of the config's.
        out: file to write the scores to, as JSON; pictures and report.html go beside it.
        page: file to write report.html to where there is no `out`.
        multi_scale: average over several scales and mirror images, in tasks that can.
        network: computes the outputs instead of the model, from RGB uint8 images (B, 3, H, W).
        quicken: (model, number of pictures, log) -> such a network that says what the model says, or None;
            asked on a CPU, in a single process, where nothing else was chosen. See `deploy.openvino_eval`.
        overwrite: let `out` and the pictures beside it replace files that Falconet did not make.
        data_format: format of the data, for data sets that read several.
        verbose: log, show progress and print the table, as `tools/test.py` does.

    Returns:
        The report.

    Raises:
        UserError: something is missing, unreadable or does not fit.
    """
    start = time.monotonic()
    if out is not None and Path(out).suffix != '.json':
        raise UserError(f'--out {out}: the scores are written as JSON, give a name that ends in .json')
    content: Mapping[str, Any] | None = None
    program = load_program(checkpoint) if checkpoint is not None and is_program(checkpoint) else None
    if config is None:
        if checkpoint is None:
            raise UserError('give a checkpoint or a config')
        content = read_checkpoint(checkpoint) if program is None else dict(program.content)
        config = config_from_checkpoint(content, source=checkpoint)
    else:
        check_config(config)
    if data_format is not None:
        with_format(config, data_format)
    source = content
    if (
        source is None
        and program is None
        and checkpoint is not None
        and is_falconet(Path(checkpoint).expanduser())
    ):
        source = read_checkpoint(checkpoint)
    config = with_split(config, split_in(source))
    stage = evaluation_stage(config)
    classes = None if content is None else content['classes']
    dataset = build_dataset(config, stage, root=data_root(config, root), classes=classes, seed=0)
    if program is not None:
        task = program.task.name if content else find(HEADS, config.model['head'], where='model.head').task
        if task != program.task.name:
            raise UserError(f'{checkpoint} is a program of {program.task.name}, the config of {task}')
        match_classes(program.classes, dataset.classes, source=str(checkpoint), other='the data')
        model = program
    elif content is not None:
        match_classes(content['classes'], dataset.classes, source=str(checkpoint), other='the data')
        model = model_from_checkpoint(content, source=str(checkpoint))
    else:
        if checkpoint is not None:
            config = adopt_file(config, checkpoint, content=source)
        model = build_model(config, classes=dataset.classes)
        if checkpoint is not None:
            load_weights(model, checkpoint, content=source)
    dataset.fill_with(model.normalise.mean_pixel if program is None else program.mean_pixel)
    if multi_scale:
        if program is not None:
            raise UserError(f'--multi-scale: {checkpoint} takes pictures of one size only, give a checkpoint')
        if model.task.multi_scale is None:
            raise UserError(f'--multi-scale: {model.task.name} is scored at one scale only')
        network = partial(_at_several_scales, model)
    metric = build_metric(config, model)
    alone = program is None and pick_device().type == 'cpu' and get_world_size() == 1
    if quicken is not None and network is None and alone:
        network = quicken(model.eval(), len(dataset), lambda line: runner.logger.info(line))
    if out is not None:
        page = Path(out).parent / REPORT
        check_writable(metric_files(Path(out), metric), overwrite=overwrite, hint='Choose another --out')
    elif page is not None:
        check_writable([Path(page)], overwrite=overwrite, hint='Give --out FOLDER/metrics.json')
    with tempfile.TemporaryDirectory() as scratch:
        runner = FalconetRunner(
            model=model,
            work_dir=scratch,
            val_dataloader=stage_loader(config, stage, dataset, 0),
            val_cfg={},
            val_evaluator=[metric],
            custom_hooks=[ProgressHook()] if verbose else [],
            console=verbose,
            network=network,
            **runner_options(config, 0),
        )
        try:
            runner.logger.info(f'{stage.removesuffix("_dataloader")}: {dataset}')
            runner.val()
            if len(runner.evaluation_loop.skips.files) == len(dataset):
                raise UserError(
                    f'none of the {len(dataset)} images could be read: '
                    f'{listing(map(": ".join, runner.evaluation_loop.skips.files.items()), 3)}'
                )
            if verbose:
                show_report(runner)
            written = [] if out is None else write_report(runner, Path(out))
            if page is not None:
                seconds = time.monotonic() - start
                whole = write_test_page(runner, Path(page), seconds=seconds, checkpoint=checkpoint)
                written += [] if whole is None else [whole]
            if written:
                runner.logger.info(f'wrote {", ".join(map(str, written))}')
            return report_of(runner)
        finally:
            runner.close()


def _at_several_scales(model: VisionModel, images: Tensor) -> Any:
    return model.task.multi_scale(model, images.to(model.device))  # type: ignore[misc]  # asked for above
