"""Training and validation loops on top of mmengine's: exact resume, stop requests, skipped files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, broadcast, get_world_size
from mmengine.runner import EpochBasedTrainLoop, ValLoop
from torch import Tensor, nn

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import Interrupted, UserError
from falconet.datasets.loader import WorkerLostError
from falconet.datasets.samples import Batch, SampleInfo
from falconet.engine.hooks.saving import LAST
from falconet.engine.hooks.stopping import StopRequest
from falconet.engine.seeding import seed_everything
from falconet.tasks.model import BatchAugment, NonFiniteLossError, Teach, VisionModel
from falconet.tasks.predictor import Network

# A CPU evaluates so many pixels at a time, at least one picture: 16 of 224 px.
PIXELS = 16 * 224**2


class TrainLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop, able to begin in the middle of an epoch.

    mmengine's iteration loop walks through all the data up to the place where it resumes
    (open-mmlab/mmengine#1520); its epoch loop can only resume between epochs.

    Args:
        runner, dataloader: as in mmengine.
        batch_augment: mixes every batch before its loss.
        teacher: adds to every batch's losses; see `engine.distill`.
        **cycle: `max_epochs`, `val_begin`, `val_interval`.

    Attributes:
        validated_iter: iteration count at the latest validation, so that a run stopped between an epoch
            and its validation validates first.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        *,
        batch_augment: BatchAugment | None = None,
        teacher: Teach | None = None,
        **cycle: Any,
    ) -> None:
        super().__init__(runner, dataloader, **cycle)
        self.batch_augment, self.teacher = batch_augment, teacher
        self.validated_iter = -1
        self.stop_request = StopRequest()
        self.skips = SkipLog(self.runner, 'training')

    @property
    def at_update(self) -> bool:
        """Whether no gradients are held back for accumulation: only then is the state complete."""
        return self.runner.optim_wrapper.should_update()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the position that `training_state` noted."""
        self._iter, self._epoch = state['iter'], state['epoch']
        self.validated_iter = state['validated_iter']
        self.stop_training = state['stop_training']

    def run(self) -> nn.Module:
        """Train to the end, or until a stop request, which saves and raises Interrupted.

        Raises:
            UserError: a loading process was lost; what is complete has been saved.
        """
        with self.stop_request.listening():
            try:
                self._run_epochs()
            except WorkerLostError as error:
                # Batches come between steps: unless gradients are held back, the state is complete.
                if self.at_update:
                    self.runner.saver.write(self.runner, LAST)
                raise UserError(
                    f'{error} That was after iteration {self._iter} of {self._max_iters}. '
                    f'{self._newest_checkpoint()} Continue with the same command and --resume.'
                ) from error
            except RuntimeError as error:
                if get_world_size() == 1 or 'Connection closed by peer' not in str(error):  # gloo's words
                    raise
                raise UserError(
                    f'another process of this run has ended; it says why itself. {self._newest_checkpoint()} '
                    'Continue with the same command and --resume.'
                ) from error
        return self.runner.model

    def _run_epochs(self) -> None:
        self.runner.call_hook('before_train')
        if self._validation_due():
            self._finish_epoch()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.stop_if_asked()
            self._finish_epoch()
            self.stop_if_asked()
        self.runner.call_hook('after_train')
        self.skips.close()

    def _validation_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and self._iter > 0
            and self._iter == self._epoch * len(self.dataloader)
            and self.validated_iter != self._iter
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
        )

    def _finish_epoch(self) -> None:
        if self._validation_due():
            self._warn_of_young_statistics()
            self.runner.val_loop.run()
        if self.at_update:
            self.runner.saver.write(self.runner, LAST)

    def _warn_of_young_statistics(self) -> None:
        """Say when batch norms' running statistics still remember their start.

        The classic way to a model that is good in training and bad in evaluation
        (tensorflow/tensorflow#36065, pytorch/pytorch#5406).
        """
        model = self.runner.bare_model
        if hasattr(model.backbone, 'load_report') or model.norm_eval:
            return
        momenta = [
            module.momentum
            for module in model.modules()
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None
        ]
        share = (1 - min(momenta, default=1.0)) ** self._iter
        if share > 0.05:
            self.runner.logger.warning(
                f'after {self._iter} iterations the norm statistics are still {share:.0%} their initial '
                f'values (momentum {min(momenta)}): scores are lower than the weights deserve'
            )

    def run_epoch(self) -> None:
        """Run what is left of the current epoch."""
        done = self._iter - self._epoch * len(self.dataloader)
        sampler: Any = self.dataloader.sampler
        sampler.epoch = self._epoch
        sampler.start = done * (self.dataloader.batch_size or 1)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, batch in enumerate(self.dataloader, start=done):
            self.run_iter(index, batch)
            self.runner.call_hook('between_iterations')
            self.stop_if_asked()
        sampler.start = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Batch) -> None:  # type: ignore[override]
        """Train on one batch, from a random state that depends on its position only."""
        self.skips.add(data_batch)
        seed_everything(self.runner.seed, self._iter, self.runner.rank)
        batch = {**data_batch, 'batch_augment': self.batch_augment, 'teacher': self.teacher}
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=batch)
        try:
            losses = self.step(batch)
        except NonFiniteLossError as error:
            paths = [info.path for info in data_batch['infos']]
            shown = '\n  '.join(paths[:64]) + ('\n  ...' if len(paths) > 64 else '')
            raise UserError(
                f'the loss is no longer finite ({error}) at iteration {self._iter + 1} (epoch '
                f'{self._epoch + 1}). {self._newest_checkpoint()} Lower the learning rate, add clip_grad, or '
                f'look at the samples of this batch:\n  {shown}'
            ) from error

        # mmengine's hooks step the schedule here, ours average the weights.
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=batch, outputs=losses)
        self._iter += 1

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Update the weights by one batch; return its losses, 'loss' their sum.

        Raises:
            NonFiniteLossError: the sum is NaN or infinite; the weights are as they were.
        """
        model, optimiser = self.runner.bare_model, self.runner.optim_wrapper
        # Autocast; while gradients accumulate, processes do not exchange them.
        with optimiser.optim_context(self.runner.model):
            losses = self.runner.model(**model.data_preprocessor(batch, True), mode='loss')
        total, losses = model.parse_losses(losses)
        # Backward, clip, step and zero, the last three once enough gradients are accumulated.
        optimiser.update_params(total)
        return losses

    def _newest_checkpoint(self) -> str:
        last = Path(self.runner.work_dir) / LAST
        if not last.exists():
            return 'Nothing has been saved.'
        try:
            return f'{last} holds everything up to iteration {read_checkpoint(last)["iter"]}.'
        except UserError as error:  # its weights are not finite either, say
            return str(error)

    def stop_if_asked(self) -> None:
        """Save and raise Interrupted if a stop was asked for and the state is complete."""
        # While gradients accumulate the state is not complete: go on to the next update.
        finished = self._epoch == self._max_epochs and self.validated_iter == self._iter
        if finished or not self.at_update or not self.stop_request.came():
            return
        if self._iter == (self._epoch + 1) * len(self.dataloader):
            return  # the last iteration of an epoch: let the epoch be closed first
        self.runner.saver.write(self.runner, LAST)
        raise Interrupted(
            f'stopped at iteration {self._iter} of {self._max_iters}; everything is saved in '
            f'{self.runner.work_dir}/{LAST}.\nContinue with the same command and --resume.',
            signal_number=self.stop_request.signal_number or 0,
        )


class EvalLoop(ValLoop):
    """mmengine's validation loop, which leaves out unreadable files and heeds stop requests.

    Without autocast: a score should not depend on whether the machine has bfloat16.

    Args:
        runner, dataloader, evaluator: as in mmengine.
        network: computes the outputs instead of the runner's model; see `tasks.predictor`.
    """

    def __init__(
        self, runner: Any, dataloader: Any, evaluator: Any, *, network: Network | None = None
    ) -> None:
        super().__init__(runner, dataloader, evaluator)
        self.network = network
        self.skips = SkipLog(self.runner, 'evaluation')

    def run(self) -> dict[str, float]:
        """Evaluate the whole data set and return the scores."""
        synchronise_statistics(self.runner)
        self.runner.model_to_use.eval()
        metrics = super().run()
        self.skips.close()
        return metrics

    def run_iter(self, idx: int, data_batch: Batch) -> None:  # type: ignore[override]
        """Evaluate one batch."""
        self.skips.add(data_batch)
        self._stop_if_asked()
        self.runner.call_hook('before_val_iter', batch_idx=idx, data_batch=data_batch)
        predictor = self.runner.model_to_use.predictor
        results = []
        for images, infos in self._parts(data_batch):
            results += predictor.answer(images, infos, network=self.network)
        self.evaluator.process(data_samples=results, data_batch=data_batch)
        self.runner.call_hook('after_val_iter', batch_idx=idx, data_batch=data_batch, outputs=results)

    def _parts(self, batch: Batch) -> Iterator[tuple[Tensor, list[SampleInfo]]]:
        """Yield a batch in parts: on a CPU, where many pictures at a time are no faster, a few.

        In float32 maps are twice as large as in training, and would not fit between what training left free.
        """
        images, infos = batch['images'], batch['infos']
        count, model = max(1, len(images)), self.runner.bare_model
        # Exported programs have a way of their own to take many.
        if self.network is None and isinstance(model, VisionModel) and model.device.type == 'cpu':
            count = max(1, PIXELS // max(1, images.shape[2] * images.shape[3]))
        for start in range(0, len(images), count):
            yield images[start : start + count], infos[start : start + count]

    def _stop_if_asked(self) -> None:
        # Processes have different numbers of batches here and cannot agree in between: they finish.
        loop = self.runner.training_loop
        if loop is not None and not self.runner.distributed:
            loop.stop_if_asked()


def synchronise_statistics(runner: Any) -> None:
    """Give every process the main one's norm statistics: what is saved is what is scored."""
    if runner.distributed:
        for buffer in [*runner.bare_model.buffers(), *runner.model_to_use.buffers()]:
            broadcast(buffer)


class SkipLog:
    """Names every unreadable file once, and counts them and those that were turned.

    Attributes:
        files: reason by path, of all files passed over so far.
        turned: the files that were turned as their EXIF orientation says.
    """

    def __init__(self, runner: Any, stage: str) -> None:
        self.files: dict[str, str] = {}
        self.turned: set[str] = set()
        self._runner = runner
        self._stage = stage

    def add(self, batch: Batch) -> None:
        """Log the unreadable files that are new."""
        self.turned |= {info.path for info in batch['infos'] if info.turned}
        for each in batch['skipped']:
            if each.path not in self.files:
                self.files[each.path] = each.reason
                self._runner.logger.warning(f'skipped {each.path}: {each.reason}')

    def close(self) -> None:
        """Gather what all processes passed over, and log the count if there is one."""
        if get_world_size() > 1:
            gathered = all_gather_object((self.files, self.turned))
            self.files = {path: reason for files, _ in gathered for path, reason in files.items()}
            self.turned = {path for _, turned in gathered for path in turned}
        if self.turned:
            self._runner.logger.info(
                f'{self._stage}: {len(self.turned)} pictures were turned as their EXIF orientation says'
            )
        if self.files:
            self._runner.logger.warning(
                f'{self._stage}: {len(self.files)} files could not be read and were passed over'
            )
