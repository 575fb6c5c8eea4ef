"""Exported programs as models: the same `predict`, `classes` and `task`, computed by the format's own engine.

Opening a file runs nothing of it but operators that its engine knows: names of heads and transforms are
looked up in registries, as for checkpoints. docs/deploy.md says what each engine promises of a stranger's
file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deploy.description import Description, read_description
from deploy.formats import Run, format_of
from deploy.program import unnamed
from heads.base import HEADS, Head
from tasks.answer import Predictor, Predicts
from tasks.errors import UserError
from tasks.registry import build
from tasks.task import find_task


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
        if not self.path.exists():
            raise UserError(f'there is no exported program {self.path}')
        self.format = format_of(self.path)
        self._module = self.format.module()
        self.description: Description = read_description(self._try(self._module.read, self.path), self.path)
        self.task, self.classes = find_task(self.description.task), self.description.classes
        self.names = tuple(each.name for each in self.description.outputs)
        self.preprocess = () if self.description.inside else self.description.preprocess
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
        self.predictor = Predictor(
            self._outputs,
            head=_placing(head, self.description),  # type: ignore[arg-type]  # all that is asked of it is there
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
            return run(np.ascontiguousarray(pictures))
        # What depends on no picture, as default boxes do, is there once.
        own = {each.name for each in self.description.outputs if each.shape and each.shape[0] == batch}
        found = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            full = np.zeros((batch, *part.shape[1:]), np.uint8)
            full[: len(part)] = part
            found.append(
                {name: each[: len(part)] if name in own else each for name, each in run(full).items()}
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
            reason = str(error).strip().split('\n')[0]
            raise UserError(
                f'{self.path} cannot be opened as {self.format.name} ({type(error).__name__}: {reason}): it '
                'is damaged, incomplete or of another kind; export the checkpoint again'
            ) from error


class _Placing:
    """What stands for the head where the program has decoded already."""

    def __init__(self, head: Any, description: Description) -> None:
        self._head, self._description = head, description

    def predict(
        self, outputs: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], **where: Any
    ) -> Any:
        """Return one answer per image; see `Head.predict`."""
        raw, (answer, where) = self._description.raw, self._found(outputs, image_sizes, where)
        call = self._head.predict if raw else self._head.place
        return call(answer, image_sizes, **where)

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
        """Return one map per image; see `heads.score_map`."""
        answer, where = self._found(outputs, image_sizes, where)
        scores = answer if self._description.raw else answer['scores']
        return self._head.score_maps(scores, image_sizes, **where)


def _placing(head: Head, description: Description) -> _Placing:
    return (_PlacingScores if hasattr(head, 'score_maps') else _Placing)(head, description)
