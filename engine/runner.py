"""mmengine's Runner with Falconet's checkpoints, logging and devices."""

import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor, MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.core.names import MARK
from falconet.core.plain_values import plain, text_of
from falconet.datasets.classes import match_classes
from falconet.datasets.loader import close_loader
from falconet.engine.device import pick_device
from falconet.engine.hooks.progress import ConsoleHandler, ProgressHook
from falconet.engine.hooks.saving import SaveHook, hooks_with_state, restore
from falconet.engine.loops import EvalLoop, TrainLoop
from falconet.engine.resume import changes, check_same_batches, check_same_model, check_same_optimiser
from falconet.tasks.model import BatchAugment, Teach, VisionModel
from falconet.tasks.predictor import Network


class FalconetRunner(Runner):
    """The Runner of a training or an evaluation.

    Args:
        console: log to the console; else only warnings, to stderr.
        sync_bn: share batch-norm statistics between processes (GPUs only, as in torch).
        batch_augment: mixes the batches of training.
        teacher: adds to the losses of training.
        network: computes the outputs that are evaluated, instead of the model.
        **runner: mmengine Runner's own arguments; `train_cfg` are those of `TrainLoop`.

    Attributes:
        averaged_model: what is evaluated and saved instead of the model that is trained, if anything.
    """

    def __init__(
        self,
        *,
        console: bool = True,
        sync_bn: bool = False,
        batch_augment: BatchAugment | None = None,
        teacher: Teach | None = None,
        network: Network | None = None,
        **runner: Any,
    ) -> None:
        self._console = console
        self._sync_bn = sync_bn
        self._batch_augment, self._teacher, self._network = batch_augment, teacher, network
        self.averaged_model: VisionModel | None = None
        super().__init__(**runner)

    @property
    def saver(self) -> SaveHook:
        """The hook that writes checkpoints."""
        return next(hook for hook in self.hooks if isinstance(hook, SaveHook))

    @property
    def training_loop(self) -> TrainLoop | None:
        """The training loop, or None when this runner only evaluates."""
        return self._train_loop if isinstance(self._train_loop, TrainLoop) else None

    @property
    def evaluation_loop(self) -> EvalLoop:
        """The validation loop, built."""
        loop = self.val_loop
        assert isinstance(loop, EvalLoop)
        return loop

    @property
    def metric(self) -> Any:
        """The task's metric."""
        return self.val_evaluator.metrics[0]  # type: ignore[union-attr]  # built with the validation loop

    @property
    def bare_model(self) -> VisionModel:
        """The model that is trained, without what distributes it."""
        return self.model.module if is_model_wrapper(self.model) else self.model  # type: ignore[return-value]

    @property
    def model_to_use(self) -> VisionModel:
        """The model that is evaluated and saved."""
        return self.bare_model if self.averaged_model is None else self.averaged_model

    def build_train_loop(self, loop: Any) -> TrainLoop:
        """Our loop, with its batch augmentation."""
        if not isinstance(loop, TrainLoop):
            loop = TrainLoop(
                self,
                self._train_dataloader,
                batch_augment=self._batch_augment,
                teacher=self._teacher,
                **loop,
            )
        return loop

    def build_val_loop(self, loop: Any) -> EvalLoop:
        """Our loop, with its network."""
        if not isinstance(loop, EvalLoop):
            loop = EvalLoop(self, self._val_dataloader, self._val_evaluator, network=self._network)
        return loop

    def set_randomness(self, seed: int, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        """Remember the seed. The command has seeded already, and every iteration does; see `seeding`."""
        self._seed, self._deterministic = seed, deterministic

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
        logger.handlers = [ConsoleHandler() if self._console else warnings_only(), *kept]
        return logger

    def _maybe_compile(self, target: str) -> None:
        # mmengine would compile the whole step once more, optimiser included, for each new learning rate.
        # `compile=True` means backbone and head here: `engine.device.compile_parts`.
        pass

    def _log_env(self, env_cfg: dict) -> None:
        # mmengine runs compilers to ask their versions; what a score depends on fits in one line.
        self.logger.info(
            f'torch {torch.__version__}, {pick_device()}, {self.world_size} processes, seed {self.seed}'
        )

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and wrap it for several processes."""
        device = pick_device()
        if device.type == 'cuda':
            # Batches lie in pinned memory (`datasets.loader`): the copy need not be waited for.
            model.data_preprocessor = BaseDataPreprocessor(non_blocking=True)
        model = model.to(device)
        if not self.distributed:
            if self._sync_bn:
                self.logger.warning(
                    'sync_bn=True does nothing here: there is one process, which sees the batch'
                )
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
                dataloader.dataset.close()
        for hook in self.hooks:
            if isinstance(hook, ProgressHook):
                hook.close()
        for handler in self.logger.handlers:
            handler.close()

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """mmengine's; a place to log to whose library is missing is a user's error."""
        built = super().build_visualizer(visualizer)
        try:
            for backend in built._vis_backends.values() if is_main_process() else ():
                _ = backend.experiment  # begins it; mmengine would with its first entry
        except ImportError as error:
            raise UserError(f'vis_backends: {error}, or leave that entry out') from error
        return built

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """mmengine's, with what a schedule's constructor refuses as a user's error."""
        try:
            return super().build_param_scheduler(scheduler)
        except Exception as error:  # whatever it trips over is in its options
            raise UserError(f'param_scheduler: {error or type(error).__name__}') from error

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """mmengine's, with what an optimiser's constructor refuses as a user's error."""
        try:
            return super().build_optim_wrapper(optim_wrapper)
        except Exception as error:  # whatever it trips over is in its options
            raise UserError(f'optim_wrapper: {error or type(error).__name__}') from error

    def load_or_resume(self) -> None:
        """Take up `last.pth`, or the checkpoint named by `--resume`."""
        if self._has_loaded or not self._resume:
            return
        self._has_loaded = True
        content = read_checkpoint(str(self._load_from))
        try:
            self._check_resumable(content)
            restore(self, content)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f'{self._load_from}: its training state does not fit this run, or is broken '
                f'({type(error).__name__}: {error}). Take an earlier checkpoint, or begin a new run with '
                'load_from'
            ) from error
        self.dump_config()
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
        check_same_model(self.bare_model, content, source=str(source))
        check_same_batches(loop.dataloader, state, source=str(source))
        if state['seed'] != self.seed:
            raise UserError(f'{source} comes from a run with --seed {state["seed"]}, not {self.seed}')
        if (state['weights'] is None) != (self.averaged_model is None):
            raise UserError(
                f'{source} comes from a run {"without" if state["weights"] is None else "with"} ema'
            )
        for name in hooks_with_state(self).keys() - state['hooks'].keys():
            self.logger.warning(f'{source} knows nothing of {name}, which begins anew')
        classes = loop.dataloader.dataset.classes  # type: ignore[attr-defined]
        match_classes(content['classes'], classes, source=str(source), other='the data')
        config = plain(self.cfg)
        optimiser = self.optim_wrapper.optimizer  # type: ignore[union-attr]  # built before
        check_same_optimiser(optimiser, config, content, source=str(source))
        for change in changes(config, content):
            self.logger.warning(f'resumed: {change}')

    def dump_config(self) -> None:
        """Write the config into the work dir (a run only; an evaluation leaves no file behind)."""
        if self._resume and not self._has_loaded:
            return  # it may yet turn out that this config cannot go on
        if self._train_loop is not None and self.rank == 0:
            name = Path(self.cfg.filename or 'config.py').name
            text = f'# {MARK}: the config of this run\n{text_of(self.cfg)}'
            (Path(self.work_dir) / name).write_text(text, encoding='utf-8')


def warnings_only() -> logging.Handler:
    """Return a handler for programs that call Falconet: they hear of what was left out only."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    return handler
