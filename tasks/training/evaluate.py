"""An evaluation: a checkpoint, or a config with weights, scored on its data."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tasks.build import build_dataset, build_model, check_loader, data_root, evaluation_stage
from tasks.checkpoints.file import read_checkpoint
from tasks.checkpoints.foreign import adopt_file, check_classes, load_weights
from tasks.checkpoints.load import model_from_checkpoint
from tasks.errors import UserError
from tasks.training.cpu import tune_cpu
from tasks.training.parts import (
    build_metric,
    make_folder,
    optional_hooks,
    runner_options,
    stage_loader,
    write_report,
)
from tasks.training.runner import KestrelRunner
from tasks.training.seeding import seed_everything


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
        make_folder(Path(out).parent)
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
            val_dataloader=stage_loader(config, stage, dataset, 0),
            val_cfg={'type': 'EvalLoop'},
            val_evaluator=[build_metric(config, model)],
            custom_hooks=optional_hooks(None),
            **runner_options(config, 0),
        )
        try:
            runner.logger.info(f'{stage.removesuffix("_dataloader")}: {dataset}')
            runner.val()
            folder = None if out is None else Path(out).parent
            return write_report(runner, folder, name='metrics.json' if out is None else Path(out).name)
        finally:
            runner.close()
