"""The pictures that INT8 is calibrated on: which, and how a program takes them."""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from falconet.checkpoints.load import config_from_checkpoint
from falconet.core.errors import UserError, listing
from falconet.datasets.files import find_images
from falconet.datasets.images.images import ImageError, read_image
from falconet.deploy.program import Program
from falconet.engine.held_out import split_in, with_split
from falconet.tasks.build import build_dataset, data_root
from falconet.tasks.model import VisionModel

STAGE = 'train_dataloader'
PICTURES = 300
MAX_DROP = 1.0


@dataclass(frozen=True)
class Int8:
    """How to quantise.

    Attributes:
        pictures: how many to calibrate on, at most.
        inputs: pictures and folders to calibrate on, instead of the checkpoint's training data.
        max_drop: points of the task's score, each a hundredth, that may be lost.
        seed: which pictures are drawn.
        epochs: of fine-tuning in eight bits, see `deploy.int8.qat`; 0 for none.
    """

    pictures: int = PICTURES
    inputs: Sequence[str | Path] = ()
    max_drop: float = MAX_DROP
    seed: int = 0
    epochs: int = 0

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise UserError(
                f'calibration takes at least 1 picture, got {self.pictures}: some hundred are usual'
            )
        if not (math.isfinite(self.max_drop) and 0 <= self.max_drop <= 100):
            raise UserError(f'max_drop is a number of points, 0 to 100, got {self.max_drop}')
        if self.epochs < 0:
            raise UserError(f'epochs of fine-tuning are 0 or more, got {self.epochs}')


@dataclass
class Calibration:
    """Pictures to calibrate on.

    Attributes:
        paths: of those that can be read, in the order they were drawn.
        names: the same below their folder, for the model card.
        source: where they are from, in words.
        seed: they were drawn with.
        skipped: the reason for each file that could not be read, by path.
    """

    paths: list[str]
    names: list[str]
    source: str
    seed: int
    skipped: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the names, one a line."""
        return hashlib.sha256('\n'.join(self.names).encode('utf-8', 'surrogateescape')).hexdigest()

    def batches(self, program: Program, model: VisionModel, *, batch: int = 1) -> Iterator[np.ndarray]:
        """Yield pictures as the program takes them, RGB uint8 (batch, H, W, 3), the last ones again to fill.

        Prepared pictures of one size are kept in memory for the next time, others are read again.
        """
        waiting: list[np.ndarray] = []
        for path in self.paths:
            waiting.append(self._prepared(path, program, model))
            if len(waiting) == batch:
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack([waiting[index % len(waiting)] for index in range(batch)])

    def _prepared(self, path: str, program: Program, model: VisionModel) -> np.ndarray:
        if path in self._kept:
            return self._kept[path]
        image = read_image(path)
        if program.transforms is None:
            image = model.to_input(image)
        elif program.picture is None:
            return image  # of any size: many could be large
        else:
            image = np.asarray(cv2.resize(image, program.picture[::-1], interpolation=cv2.INTER_AREA))
        self._kept[path] = image
        return image


def choose(wanted: Int8, content: Mapping[str, Any], *, source: str, root: str | None) -> Calibration:
    """Draw pictures to calibrate on.

    Args:
        wanted: how many, and from where if not from the training data.
        content: of the checkpoint.
        source: its name, for messages.
        root: where its data lies, instead of the config's place.

    Raises:
        UserError: there are no pictures, or none that can be read.
    """
    if wanted.inputs:
        files = find_images([str(each) for each in wanted.inputs])
        # Without the folders of this machine: it is written into the model card.
        where = listing((Path(each).name or str(each) for each in wanted.inputs), 3)
        base = Path(os.path.commonpath([Path(file).absolute().parent for file in files]))
    else:
        files, base = _training_pictures(content, source=source, root=root)
        where = 'the training data'
    drawn, skipped = [], {}
    for place in np.random.default_rng(wanted.seed).permutation(len(files)):
        if len(drawn) == wanted.pictures:
            break
        try:
            read_image(files[place])
        except ImageError as error:
            skipped[str(error.path)] = error.reason
        else:
            drawn.append(files[place])
    if not drawn:
        unread = listing(map(': '.join, skipped.items()), 3)
        raise UserError(
            f'no picture to calibrate on: {where} has {len(files)}'
            + (f', none can be read ({unread})' if skipped else '')
            + '. Name others with --calibrate-on, or where the data lies with --data-root'
        )
    names = [_below(path, base) for path in drawn]
    return Calibration(drawn, names, where, wanted.seed, skipped)


def _training_pictures(
    content: Mapping[str, Any], *, source: str, root: str | None
) -> tuple[list[str], Path]:
    given = content.get('config') or {}
    dataset = (given.get(STAGE) or {}).get('dataset')
    if not dataset:
        raise UserError(
            f'{source} was not trained on data that its config names: say with --calibrate-on which pictures '
            'to calibrate on, some hundred like those it will see'
        )
    # Checked as what is scored is: a checkpoint may be a stranger's. Its transforms are not needed.
    names = {key: value for key, value in dataset.items() if key not in ('augment', 'cache', 'strict')}
    wanted = {'val_dataloader': {'dataset': names}, 'data_root': given.get('data_root', 'data')}
    checked = config_from_checkpoint({**content, 'config': wanted}, source=source)
    config = Config({'data_root': checked.data_root, STAGE: checked.val_dataloader})
    config = with_split(config, split_in(content))
    place = data_root(config, root)
    pictures = build_dataset(config, STAGE, root=place, classes=content['classes'], seed=0)
    return [str(each) for each in pictures.paths], place


def _below(path: str, base: Path) -> str:
    """Return the name of a picture below a folder, or its own where a list names others."""
    try:
        return Path(path).absolute().relative_to(base.absolute()).as_posix()
    except ValueError:
        return Path(path).name
