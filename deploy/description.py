"""What a program says of itself, as JSON inside its file: enough to use it, and to score it on its data."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from falconet.core.errors import UserError
from falconet.datasets.images.images import MAX_PIXELS
from falconet.datasets.transforms.augment import Augment
from falconet.deploy.answers import FORMS, LONGEST, PLAIN, Form, Geometry

FORMAT = 1
DATA_KEYS = (
    'data_root',
    'val_dataloader',
    'test_dataloader',
    'evaluator',
)  # of a config: what it is scored on
Side = Annotated[int, pydantic.Field(ge=1, le=MAX_PIXELS)]
Size = tuple[Side, Side]


class Values(pydantic.BaseModel):
    """One tensor that goes in or comes out."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]  # a name, 'batch' or 'height', where any number goes
    meaning: str


class Description(pydantic.BaseModel):
    """A program's description.

    Attributes:
        format: of this description.
        task: as in `Head.task`.
        classes: names in the order of their indices.
        input, outputs: what goes in and what comes out, in this order.
        inside: the transforms of `preprocess` are part of the program; else the pictures come to it
            transformed. Normalisation always is.
        preprocess: config entries of the transforms.
        picture, network, content: see `deploy.answers.Geometry`; `picture` is None where one picture of any
            size goes in, whose content is then what the transforms make of it.
        raw: None for answers; for a head's own outputs how they nest: one tensor, a dict or a tuple.
        model: plain arguments of `tasks.model.VisionModel`.
        channels, strides: of the backbone's maps.
        source, sha256: name and hash of the checkpoint it was made from.
        metrics: the checkpoint's own last scores.
        config: where the data lies and how it is scored.
        memory: where an amount was asked for, how the backbone keeps to it: `deploy.memory.Plan.facts`, and
            as 'arena' the bytes of all tensors of a file that the plan is written into.
        versions: of the libraries it was made with.
    """

    format: int = FORMAT
    task: str
    classes: tuple[str, ...]
    input: Values
    outputs: tuple[Values, ...]
    inside: bool
    preprocess: tuple[dict[str, Any], ...]
    picture: Size | None
    network: Size
    content: Size | None
    raw: Literal['tensor', 'dict', 'tuple'] | None
    model: dict[str, Any]
    channels: tuple[Side, ...]
    strides: tuple[Side, ...]
    source: str
    sha256: str
    metrics: dict[str, Any]
    config: dict[str, Any]
    memory: dict[str, Any] | None = None
    versions: dict[str, str | None]

    @pydantic.field_validator('input')
    @classmethod
    def _takes_pictures(cls, values: Values) -> Values:
        shape = values.shape
        sides = [side for side in shape if isinstance(side, int)]
        if len(shape) != 4 or shape[3] != 3 or min(sides) < 1 or math.prod(sides) > 3 * MAX_PIXELS:
            raise ValueError(f'expected (batch, height, width, 3), got {shape}'[:200])
        return values

    def geometry_of(self, size: Size) -> Geometry:
        """Return the sizes that go with a picture of this (height, width), if any may come."""
        if self.picture is not None:
            return Geometry(self.picture, self.network, self.content)
        return Geometry(size, self.network, Augment(self.preprocess).content_size(*size), LONGEST)

    @property
    def form(self) -> Form:
        """How the task's answer leaves a program."""
        return FORMS.get(self.task, PLAIN)

    @property
    def batch(self) -> int | None:
        """How many pictures the program takes at a time; None for any number."""
        return self.input.shape[0] if isinstance(self.input.shape[0], int) else None


def read_description(text: str | None, path: Path) -> Description:
    """Parse what a file says of itself.

    Raises:
        UserError: nothing, or not a description that this version reads.
    """
    if text is None:
        raise UserError(
            f'{path} says nothing of classes and pictures, so it was not written by tools/export.py: export '
            'the checkpoint again'
        )
    try:
        description = Description.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = '.'.join(map(str, first['loc'])) or 'it'
        raise UserError(
            f'{path}: its description is damaged ({place}: {first["msg"]}): export the checkpoint again'
        ) from error
    if description.format > FORMAT:
        raise UserError(f'{path} was written by a newer Falconet (format {description.format})')
    return description
