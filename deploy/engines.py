"""Exported programs as models: the same `predict`, `classes` and `task`, computed by the format's own engine.

Opening a file runs nothing of it but operators that its engine knows: names of heads and transforms are
looked up in registries, as for checkpoints. docs/deploy.md says what each engine promises of a stranger's
file.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from falconet.checkpoints.untrusted import check_part, check_transforms
from falconet.core.errors import UserError
from falconet.core.registry import build
from falconet.deploy.description import Description, read_description
from falconet.deploy.formats import Run, format_of
from falconet.deploy.program import unnamed
from falconet.heads.base import HEADS, Head
from falconet.tasks.predictor import Predictor, Predicts
from falconet.tasks.task import find_task

LONGEST_REASON = 300  # letters of an engine's own words in a message
NUMBERS = ('label', 'labels', 'mask')  # of classes, in a head's answer
DIFFERS = 'does not answer as it says of itself, export the checkpoint again'


class ExportedModel(Predicts, nn.Module):
    """A program of `tools/export.py`, opened.

    Args:
        path: its file.
        threads: that the engine may use; by default as many as torch.

    Attributes:
        description: what the file says of itself.
        task, classes, preprocess, predictor: as those of a `tasks.model.VisionModel`.

    Raises:
        UserError: missing, damaged, of a newer version, or its engine is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        super().__init__()
        self.path = Path(path).expanduser()
        self._threads = threads or torch.get_num_threads()
        self._runs: dict[tuple[str, ...], Run] = {}
        if not (self.path.is_file() or self.path.is_dir()):  # a pipe would be waited for
            raise UserError(f'there is no exported program {self.path}')
        self.format = format_of(self.path)
        self._module = self.format.module()
        self.description: Description = read_description(self._try(self._module.read, self.path), self.path)
        self.classes = self.description.classes
        self.names = tuple(each.name for each in self.description.outputs)
        self.preprocess = () if self.description.inside else self.description.preprocess
        check_part('head', self.description.model.get('head', {}), source=str(self.path))
        check_transforms(self.description.preprocess, source=str(self.path))
        # A head without weights: it places answers, and computes nothing.
        with torch.device('meta'):
            head = build(
                HEADS,
                self.description.model.get('head', {}),
                where=f'{self.path}: head',
                channels=self.description.channels,
                strides=self.description.strides,
                num_classes=len(self.classes),
            )
        if self.description.task != head.task:
            raise UserError(
                f'{self.path} says it is for {self.description.task}, but its head is for {head.task}: '
                'export the checkpoint again'
            )
        self.task = find_task(head.task)
        self.predictor = Predictor(
            self._outputs,
            head=_placing(head, self.description, self.path),  # type: ignore[arg-type]  # all that is asked of it is there
            task=self.task,
            classes=self.classes,
            preprocess=self.preprocess,
        )
        self._start(self._needed)

    @property
    def content(self) -> dict[str, Any]:
        """What of a checkpoint's content is needed to score it: `classes` and `config`."""
        return {'classes': list(self.classes), 'config': self.description.config}

    @property
    def mean_pixel(self) -> tuple[int, ...] | None:
        """RGB in 0..255 that the program's normalisation makes zero; None where it does not say."""
        try:
            return tuple(round(255 * value) for value in self.description.model['normalise']['mean'])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def run(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Return all outputs of the program itself, by name.

        Args:
            pictures: RGB uint8 (B, H, W, 3) of exactly the size in `description.input`.

        Raises:
            UserError: another size or dtype.
        """
        return self._compute(pictures, self.names)

    @property
    def _needed(self) -> tuple[str, ...]:
        return self.names if self.description.raw else (self.description.form.placed or self.names)

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        pictures = images.permute(0, 2, 3, 1).cpu().numpy()
        return {name: torch.from_numpy(each) for name, each in self._compute(pictures, self._needed).items()}

    def _compute(self, pictures: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        shape = self.description.input.shape
        fits = pictures.ndim == 4 and all(
            isinstance(side, str) or side == got
            for side, got in zip(shape[1:], pictures.shape[1:], strict=True)
        )
        if pictures.dtype != np.uint8 or not fits or 0 in pictures.shape[1:]:
            raise UserError(
                f'{self.path} takes RGB uint8 pictures (batch, {shape[1]}, {shape[2]}, 3), got '
                f'{pictures.dtype} {pictures.shape}: bring them (or their tiles) there, or export another '
                'with --size any'
            )
        run, batch = self._start(names), self.description.batch
        if batch is None:
            return self._try(run, np.ascontiguousarray(pictures))
        # What depends on no picture, as default boxes do, is there once.
        own = {each.name for each in self.description.outputs if each.shape and each.shape[0] == batch}
        found = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            full = np.zeros((batch, *part.shape[1:]), np.uint8)
            full[: len(part)] = part
            found.append(
                {
                    name: each[: len(part)] if name in own else each
                    for name, each in self._try(run, full).items()
                }
            )
        return {
            name: np.concatenate([each[name] for each in found]) if name in own else found[0][name]
            for name in names
        }

    def _start(self, names: tuple[str, ...]) -> Run:
        if names not in self._runs:
            self._runs[names] = self._try(self._module.start, self.path, names, threads=self._threads)
        return self._runs[names]

    def _try(self, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except UserError:
            raise
        except Exception as error:  # every engine has its own
            reason = str(error).strip().split('\n')[0][:LONGEST_REASON]
            verb = 'run' if call in self._runs.values() else 'opened'
            raise UserError(
                f'{self.path} cannot be {verb} as {self.format.name} ({type(error).__name__}: {reason}): it '
                'is damaged, incomplete or of another kind; export the checkpoint again'
            ) from error


class _Placing:
    """What stands for the head where the program has decoded already."""

    def __init__(self, head: Any, description: Description, path: Path) -> None:
        self._head, self._description, self._path = head, description, path

    def predict(
        self, outputs: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], **where: Any
    ) -> Any:
        """Return one answer per image; see `Head.predict`.

        Raises:
            UserError: the outputs are not those of such a head and so many classes.
        """
        with self._fitting():
            answer, where = self._found(outputs, image_sizes, where)
            call = self._head.predict if self._description.raw else self._head.place
            answers = call(answer, image_sizes, **where)
            numbers = [answer[key] for answer in answers for key in NUMBERS if key in answer]
            count = len(self._description.classes)
            fits = all(np.max(each, initial=0) < count for each in numbers)
            fits &= all(len(answer['scores']) == count for answer in answers if 'label' in answer)
        self._refuse_unless(fits)
        return answers

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Explain what comes of outputs of other shapes and types than the description's."""
        try:
            yield
        except UserError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f'{self._path} {DIFFERS} ({type(error).__name__}: {error})') from error

    def _refuse_unless(self, fits: bool) -> None:
        if not fits:
            count = len(self._description.classes)
            raise UserError(f'{self._path} {DIFFERS}: it knows other classes than its {count}')

    def _found(
        self, outputs: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], where: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return what the head gave, decoded unless the program is raw, and the sizes that go with it."""
        description = self._description
        # All pictures of a batch have one size.
        geometry = description.geometry_of(image_sizes[0])
        if description.inside:
            contents = [geometry.content] * len(image_sizes)
            where = {'input_size': description.network, 'content_sizes': contents}
        if description.raw:
            return unnamed(outputs, description.raw), where
        return description.form.restore(outputs, geometry), where


class _PlacingScores(_Placing):
    """The same for a head that says the scores of every pixel."""

    def score_maps(
        self, outputs: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], **where: Any
    ) -> Any:
        """Return one map per image; see `heads.score_map`.

        Raises:
            UserError: as `predict`.
        """
        with self._fitting():
            answer, where = self._found(outputs, image_sizes, where)
            scores = answer if self._description.raw else answer['scores']
            maps = self._head.score_maps(scores, image_sizes, **where)
        self._refuse_unless(all(len(each.cells) == len(self._description.classes) for each in maps))
        return maps


def _placing(head: Head, description: Description, path: Path) -> _Placing:
    return (_PlacingScores if hasattr(head, 'score_maps') else _Placing)(head, description, path)
