"""mmengine's Runner with Kestrel's checkpoints, logging and devices."""

import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from tasks.checkpoints.file import read_checkpoint
from tasks.data.loader import close_loader
from tasks.errors import UserError
from tasks.plain import to_plain
from tasks.training.device import pick_device
from tasks.training.hooks.ema import EMAHook
from tasks.training.hooks.progress import ConsoleHandler, ProgressHook
from tasks.training.hooks.saving import SaveHook
from tasks.training.loops import TrainLoop


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else to_plain(value)


@RUNNERS.register_module()
class KestrelRunner(Runner):
    """The Runner that `tasks.training.train` builds.

    Args:
        sync_bn: share batch-norm statistics between processes (GPUs only, as in torch).
        **runner: mmengine Runner's own arguments.
    """

    def __init__(self, *, sync_bn: bool = False, **runner: Any) -> None:
        self._sync_bn = sync_bn
        super().__init__(**runner)

    @property
    def saver(self) -> SaveHook:
        """The hook that writes checkpoints."""
        return next(hook for hook in self.hooks if isinstance(hook, SaveHook))

    @property
    def training_loop(self) -> TrainLoop | None:
        """The training loop, or None when this runner only evaluates."""
        return self._train_loop if isinstance(self._train_loop, TrainLoop) else None

    def build_logger(
        self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """Log to the console in plain lines and, when training, to train.log in the work dir."""
        if self._train_loop is not None:
            log_file = str(Path(self.work_dir) / 'train.log')
        logger = MMLogger.get_instance(
            self._experiment_name, log_level=log_level, log_file=log_file, file_mode='a'
        )
        kept = [each for each in logger.handlers if isinstance(each, logging.FileHandler)]
        logger.handlers = [ConsoleHandler(), *kept]
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        # mmengine runs compilers to ask their versions; what a score depends on fits in one line.
        self.logger.info(
            f'torch {torch.__version__}, {pick_device()}, {self.world_size} processes, seed {self.seed}'
        )

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and wrap it for several processes."""
        device = pick_device()
        model = model.to(device)
        if not self.distributed:
            return model
        if self._sync_bn:
            if device.type != 'cuda':
                raise UserError(
                    'sync_bn=True needs GPUs: torch synchronises batch norms there only. On CPUs use '
                    'model.norm_eval=True or larger batches.'
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return MMDistributedDataParallel(
            module=model,
            device_ids=[device.index] if device.type == 'cuda' else None,
            # Every process keeps its own running statistics; the main one's are saved.
            broadcast_buffers=False,
        )

    def close(self) -> None:
        """End the loaders' processes and the log file; the runner is done."""
        for loop in (self._train_loop, self._val_loop):
            dataloader = getattr(loop, 'dataloader', None)
            if dataloader is not None:
                close_loader(dataloader)
        for hook in self.hooks:
            if isinstance(hook, ProgressHook):
                hook.close()
        for handler in self.logger.handlers:
            handler.close()

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """mmengine's, with what a schedule's constructor refuses as a user's error."""
        try:
            return super().build_param_scheduler(scheduler)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f'param_scheduler: {error}') from error

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """mmengine's, with what an optimiser's constructor refuses as a user's error."""
        try:
            return super().build_optim_wrapper(optim_wrapper)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f'optim_wrapper: {error}') from error

    def load_or_resume(self) -> None:
        """Take up `last.pth`, or the checkpoint named by `--resume`."""
        if self._has_loaded or not self._resume:
            return
        self._has_loaded = True
        content = read_checkpoint(str(self._load_from))
        self._check_resumable(content)
        self.saver.resume(self, content)
        self.logger.info(f'resumed {self._load_from} at iteration {self.iter} of {self.max_iters}')

    def _check_resumable(self, content: dict[str, Any]) -> None:
        source = self._load_from
        state = content.get('training')
        if state is None:
            raise UserError(
                f'{source} holds weights but no training state (best.pth never does): resume from last.pth'
            )
        loop = self.training_loop
        assert loop is not None, 'only training resumes'
        here = len(loop.dataloader)
        if state['iters_per_epoch'] != here:
            raise UserError(
                f'{source} comes from a run of {state["iters_per_epoch"]} iterations per epoch, this one '
                f'has {here}: resume with the same data, batch size and number of processes'
            )
        if state['seed'] != self.seed:
            raise UserError(f'{source} comes from a run with --seed {state["seed"]}, not {self.seed}')
        if (state['weights'] is None) != (not any(isinstance(hook, EMAHook) for hook in self.hooks)):
            raise UserError(
                f'{source} comes from a run {"without" if state["weights"] is None else "with"} ema'
            )
        for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'early_stopping'):
            if content['config'].get(key) != _plain(self.cfg.get(key)):
                self.logger.warning(
                    f'{key} differs from {source}, whose learning rate and schedule go on as they were'
                )
        classes = list(loop.dataloader.dataset.classes)  # type: ignore[attr-defined]
        if list(content['classes']) != classes:
            raise UserError(f'{source} was trained on other classes: {list(content["classes"])[:10]}')

    def dump_config(self) -> None:
        """Write the config into the work dir (a run only; an evaluation leaves no file behind)."""
        if self._train_loop is not None and self.rank == 0:
            name = Path(self.cfg.filename or 'config.py').name
            (Path(self.work_dir) / name).write_text(self.cfg.pretty_text, encoding='utf-8')
