"""An evaluation: a checkpoint, or a config with weights, scored on its data."""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from tasks.answer import Network
from tasks.build import build_dataset, build_model, check_loader, data_root, evaluation_stage
from tasks.checkpoints.file import read_checkpoint
from tasks.checkpoints.foreign import adopt_file, check_classes, load_weights
from tasks.checkpoints.load import model_from_checkpoint
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.training.hooks.progress import ProgressHook
from tasks.training.parts import (
    build_metric,
    make_folder,
    report_of,
    runner_options,
    show_report,
    stage_loader,
    write_report,
)
from tasks.training.runner import KestrelRunner


def evaluate(
    config: Config | None,
    *,
    checkpoint: str | None = None,
    root: str | None = None,
    out: str | None = None,
    multi_scale: bool = False,
    network: Network | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Score a checkpoint on its data.

    Draws no random numbers of its own and prints nothing unless told to; unreadable files are in the report,
    and named on stderr.

    Args:
        config: the config, or None to take the one stored in the checkpoint.
        checkpoint: a Kestrel checkpoint; with a config, also other projects' weights.
        root: data root instead of the config's.
        out: file to write the report to, as JSON.
        multi_scale: average over several scales and mirror images, in tasks that can.
        network: computes the outputs instead of the model, from RGB uint8 images (B, 3, H, W).
        verbose: log, show progress and print the table, as `tools/test.py` does.

    Returns:
        The report.

    Raises:
        UserError: something is missing, unreadable or does not fit.
    """
    if out is not None:
        make_folder(Path(out).parent)
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
            config = adopt_file(config, checkpoint)
        model = build_model(config, classes=dataset.classes)
        if checkpoint is not None:
            load_weights(model, checkpoint)
    if multi_scale:
        if model.task.multi_scale is None:
            raise UserError(f'--multi-scale: {model.task.name} is scored at one scale only')
        network = partial(_at_several_scales, model)
    with tempfile.TemporaryDirectory() as scratch:
        runner = KestrelRunner(
            model=model,
            work_dir=scratch,
            val_dataloader=stage_loader(config, stage, dataset, 0),
            val_cfg={},
            val_evaluator=[build_metric(config, model)],
            custom_hooks=[ProgressHook()] if verbose else [],
            console=verbose,
            network=network,
            **runner_options(config, 0),
        )
        try:
            runner.logger.info(f'{stage.removesuffix("_dataloader")}: {dataset}')
            runner.val()
            if verbose:
                show_report(runner)
            if out is not None:
                written = write_report(runner, Path(out))
                runner.logger.info(f'wrote {", ".join(map(str, written))}')
            return report_of(runner)
        finally:
            runner.close()


def _at_several_scales(model: VisionModel, images: Tensor) -> Any:
    return model.task.multi_scale(model, images.to(model.device))  # type: ignore[misc]  # asked for above
