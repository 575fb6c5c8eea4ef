"""Distillation: a trained network, the teacher, says what it sees in the very pictures that another gets.

Same crop, same mixing: the consistent teacher of Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", arXiv 2106.05237. The teacher is no part of the model: it is in no checkpoint, no
average and no optimiser, and it draws no random numbers, so a run goes on exactly.
"""

import hashlib
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor, nn

from falconet.checkpoints.load import load_model
from falconet.core.errors import UserError
from falconet.core.nested import in_float32
from falconet.core.options import SWITCH, TEXT
from falconet.core.options import check_options as check_values
from falconet.core.plain_values import plain
from falconet.core.registry import check_options
from falconet.datasets.classes import match_classes
from falconet.engine.distill_losses import COMPARISONS
from falconet.engine.hooks.saving import BEST, LAST
from falconet.tasks.model import VisionModel

TIMM_VALUES = {'model': TEXT, 'pretrained': SWITCH, 'checkpoint': TEXT | None}
LONGEST = 400  # letters of what timm says, which may name every tensor of a network


class Teacher:
    """Adds what a frozen network says of a batch to the losses of its labels.

    Args:
        network: RGB in 0..255, float (B, 3, H, W) -> raw outputs as the student's head gives them. It is set
            to evaluation mode and gets no gradient.
        compare: (student's outputs, teacher's, targets, temperature) -> losses; see
            `engine.distill_losses`.
        weight: share of the teacher; the losses of the labels count 1 - `weight`. With 1 only the teacher's
            word counts, as in arXiv 2106.05237.
        temperature: softens both sides' probabilities.
        size: side in pixels that the student's pictures are resized to for the teacher; None leaves them.
        autocast: compute in bfloat16 where training does.
        name: what it is, for the log.
        digest: of its weights, so that a run does not go on with another teacher.
    """

    def __init__(
        self,
        network: nn.Module,
        compare: Callable[[Any, Any, Any, float], dict[str, Tensor]],
        *,
        weight: float = 0.5,
        temperature: float = 1.0,
        size: int | None = None,
        autocast: bool = False,
        name: str = '',
        digest: str = '',
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.compare = compare
        self.weight, self.temperature, self.size = weight, temperature, size
        self.autocast, self.name, self.digest = autocast, name, digest
        self._sizes: set[tuple[int, ...]] = set()  # that it has been shown

    def __call__(
        self, images: Tensor, outputs: Any, targets: Any, losses: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return all losses of a batch.

        Args:
            images: RGB in 0..255, float (B, 3, H, W), augmented and mixed as the student's.
            outputs: the student's, float32.
            targets: of the batch.
            losses: of the labels.
        """
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            if self.size is not None and images.shape[2:] != (self.size, self.size):
                images = F.interpolate(images, (self.size, self.size), mode='bilinear', antialias=True)
            theirs = in_float32(self._answer(images))
        share = 1 - self.weight
        of_labels = {key: share * each if key.startswith('loss_') else each for key, each in losses.items()}
        said = self.compare(outputs, theirs, targets, self.temperature)
        return {**of_labels, **{key: self.weight * each for key, each in said.items()}}

    def _answer(self, images: Tensor) -> Any:
        try:
            return self.network(images)
        except (AssertionError, RuntimeError) as error:  # a transformer of timm's, for one
            size = tuple(images.shape[2:])
            if size in self._sizes or 'memory' in str(error):
                raise
            raise UserError(
                f'distill: the teacher {self.name} cannot see pictures of {size[0]} x {size[1]} px '
                f'({error}). Give the size it takes: distill.size'
            ) from error
        finally:
            self._sizes.add(tuple(images.shape[2:]))

    def to(self, device: torch.device) -> 'Teacher':
        """Move the network."""
        self.network.to(device)
        return self

    def __str__(self) -> str:
        return f'{self.name}, weight {self.weight:g}, temperature {self.temperature:g}'


class TeacherHook(Hook):
    """Note in `last.pth` which teacher a run had; refuse to go on with another.

    Args:
        teacher: the run's.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def before_train(self, runner: Any) -> None:
        self.teacher.to(runner.bare_model.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what the teacher is known by."""
        return {'digest': self.teacher.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise UserError where the run had another teacher."""
        if state['digest'] != self.teacher.digest:
            raise UserError(
                f'distill.teacher: the run that goes on was taught by other weights than those of '
                f'{self.teacher.name}. Give the same teacher, or begin a new run in another --work-dir'
            )


def build_teacher(
    config: Config, student: VisionModel, *, autocast: bool, work_dir: Path | None = None
) -> Teacher | None:
    """Build what a config's `distill` asks for; None where it asks for nothing.

    Args:
        config: of the run.
        student: what is trained.
        autocast: as for `Teacher`.
        work_dir: of the run, whose own checkpoints change while it goes on.

    Raises:
        UserError: no such file or model, another task, other classes, or another kind of head.
    """
    entry = plain(config.get('distill'))
    if not entry:
        return None
    teacher = entry['teacher']
    task = student.task.name
    if task not in COMPARISONS:
        raise UserError(f'distill: {task} cannot be distilled; {", ".join(COMPARISONS)} can')
    if isinstance(teacher, str):
        _refuse_own(teacher, work_dir)
        network, name = _of_checkpoint(teacher, student)
    else:
        network, name = _of_timm(teacher, student)
    compare: Any = COMPARISONS[task]
    if task == 'detection':
        kinds = [getattr(each, 'scores', None) for each in (student.head, getattr(network, 'head', None))]
        if None in kinds:
            heads = [type(each).__name__ for each in (student.head, getattr(network, 'head', None))]
            raise UserError(
                f'distill: the head of the student is {heads[0]}, of the teacher {heads[1]}; what detectors '
                'say is compared by their default boxes, for which both need an SSDLiteHead'
            )
        if kinds[0] != kinds[1]:
            raise UserError(
                f'distill: the scores of teacher and student differ ({kinds[1]} and {kinds[0]}): both need '
                'an SSDLiteHead with the same model.head.scores'
            )
        compare = partial(compare, scores=kinds[0])
    options = {key: entry[key] for key in ('weight', 'temperature', 'size') if key in entry}
    digest = _digest(network)
    return Teacher(network, compare, **options, autocast=autocast, name=name, digest=digest)


def _refuse_own(source: str, work_dir: Path | None) -> None:
    file = Path(source).expanduser()
    if work_dir is not None and file.name in (BEST, LAST) and file.absolute().parent == work_dir.absolute():
        raise UserError(
            f'distill.teacher: {source} is what this run writes, and would soon be another: copy it to where '
            'it stays, or give another --work-dir'
        )


def _of_checkpoint(source: str, student: VisionModel) -> tuple[nn.Module, str]:
    if str(source).endswith('.py') or not Path(source).expanduser().is_file():
        raise UserError(
            f'distill.teacher: {source} is no file of a trained model: name a Falconet checkpoint, or '
            "dict(model='a model of timm', pretrained=True)"
        )
    model = load_model(str(Path(source).expanduser()))
    if not isinstance(model, VisionModel):
        raise UserError(f'distill.teacher: {source} is an exported program; name the checkpoint it came from')
    if model.task.name != student.task.name:
        raise UserError(
            f'distill.teacher: {source} is for {model.task.name}, what is trained for {student.task.name}'
        )
    match_classes(model.classes, student.classes, source=source, other='the data')
    return model, f'{source} ({type(model.backbone).__name__}, {_millions(model)})'


def _of_timm(entry: Mapping[str, Any], student: VisionModel) -> tuple[nn.Module, str]:
    """Build a classifier of timm's in front of its own normalisation."""
    if student.task.name != 'classification':
        raise UserError(
            f'distill.teacher: models of timm classify; for {student.task.name} name a Falconet checkpoint'
        )
    check_options(_timm_options, dict(entry), where='distill.teacher', name='timm')
    try:
        check_values(TIMM_VALUES, entry)
    except ValueError as error:
        raise UserError(f'distill.teacher.{error}') from error
    network, name = _timm_model(**_timm_options(**entry), num_classes=len(student.classes))
    settings: Any = network.pretrained_cfg
    normalise = type(student.normalise)(mean=settings['mean'], std=settings['std'])
    return nn.Sequential(normalise, network), name


def _timm_options(model: str, pretrained: bool = False, checkpoint: str | None = None) -> dict[str, Any]:
    """Return what an entry may say of a model of timm's."""
    return {'model': model, 'pretrained': pretrained, 'checkpoint': checkpoint}


def _timm_model(
    *, model: str, pretrained: bool, checkpoint: str | None, num_classes: int
) -> tuple[nn.Module, str]:
    import timm

    if not pretrained and checkpoint is None:
        raise UserError(
            f'distill.teacher: {model} would be untrained: add pretrained=True or checkpoint=FILE'
        )
    if checkpoint is not None and not Path(checkpoint).expanduser().is_file():
        raise UserError(f'distill.teacher: there is no file {checkpoint}')
    # A file may be of any number of classes: with this one, or it does not load.
    options: dict[str, Any] = {'pretrained': True}
    if checkpoint is not None:
        options = {'num_classes': num_classes, 'checkpoint_path': str(Path(checkpoint).expanduser())}
    try:
        network = timm.create_model(model, **options)
    except Exception as error:  # an unknown name, no network, other weights
        said = textwrap.shorten(str(error), LONGEST)
        raise UserError(f'distill.teacher: timm cannot build {model!r}: {said}') from error
    if network.num_classes != num_classes:
        raise UserError(
            f'distill.teacher: {model} has {network.num_classes} classes, the data has {num_classes}. '
            'Pretrained models know ImageNet only: fine-tune the teacher on your data first'
        )
    return network, f'{model} of timm ({_millions(network)})'


def _millions(network: nn.Module) -> str:
    return f'{sum(each.numel() for each in network.parameters()) / 1e6:.1f} M parameters'


def _digest(network: nn.Module) -> str:
    """Return a hash of all weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
