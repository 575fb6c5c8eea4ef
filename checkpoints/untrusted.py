"""What is taken from a checkpoint, which may be a stranger's: stated options, by value and range.

Each backbone and head states its own (`option_values`); of transforms those count that open no file. Nothing
that is taken names a file or an address.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from mmengine.registry import TRANSFORMS
from pydantic import Field

from falconet.backbones.base import BACKBONES
from falconet.core.errors import UserError
from falconet.core.options import SWITCH, check_options, number, sequence, stated
from falconet.core.registry import closest, find
from falconet.heads.base import HEADS
from falconet.tasks.task import load_tasks

# albumentations' transforms that open no file and whose result has the size they are told.
SAFE_TRANSFORMS = (
    'Resize', 'SmallestMaxSize', 'LongestMaxSize', 'CenterCrop', 'Crop', 'PadIfNeeded', 'Pad',
    'HorizontalFlip', 'VerticalFlip', 'ToGray', 'CLAHE', 'NoOp',
)  # fmt: skip
MEASURE = number(least=-8192, most=8192)
WORD = Annotated[str, Field(pattern='^[A-Za-z_]{1,40}$')]
SINGLE = SWITCH | MEASURE | WORD | None
SETTING = stated(
    SINGLE | sequence(SINGLE, '', most=16),
    'a number within 8192, True, False, None, a word, or a list of these',
)
# Of a class that does not say what it takes.
UNDECLARED = stated(
    SWITCH | number(least=-8192, most=8192) | None, 'a number within 8192, True, False or None'
)


def check_stranger(model: Mapping[str, Any], transforms: Sequence[Mapping[str, Any]], *, source: str) -> None:
    """Raise UserError unless a checkpoint's model and transforms are made of what a checkpoint may set.

    Args:
        model: `model` of the checkpoint.
        transforms: what turns a picture into the network's input.
        source: the checkpoint's name.
    """
    check_part('backbone', model['backbone'], source=source)
    check_part('head', model['head'], source=source)
    check_transforms(transforms, source=source)


def check_part(part: Literal['backbone', 'head'], entry: Any, *, source: str) -> None:
    """Raise UserError for a backbone or head that is unknown, or sets what a checkpoint may not set."""
    where = f'{source}: model.{part}'
    values = find(BACKBONES if part == 'backbone' else HEADS, entry, where=where).option_values
    _check_entry(entry, values, where=where, source=source)


def check_transforms(transforms: Any, *, source: str) -> None:
    """Raise UserError for a transform, or a value of one, that is not taken from a checkpoint."""
    load_tasks()
    known = (*TRANSFORMS.module_dict, *SAFE_TRANSFORMS)
    for index, entry in enumerate(transforms):
        where = f'{source}: transform {index + 1}'
        name = entry.get('type') if isinstance(entry, Mapping) else entry
        if not isinstance(name, str) or name not in known:
            raise UserError(f'{where}: {name!r} is not taken from a checkpoint. {closest(str(name), known)}')
        _check_entry(entry, dict.fromkeys(entry, SETTING), where=f'{where} ({name})', source=source)


def _check_entry(
    entry: Mapping[str, Any], values: Mapping[str, Any] | None, *, where: str, source: str
) -> None:
    given = {key: value for key, value in entry.items() if key != 'type'}
    values = dict.fromkeys(given, UNDECLARED) if values is None else values
    for name, value in given.items():
        if name not in values and value is not None:
            raise UserError(
                f'{where}.{name}={value!r} is not taken from a checkpoint, which may set '
                f'{", ".join(values)}. If you trust it, load its weights into a config: '
                f'tools/test.py CONFIG --checkpoint {source}'
            )
    try:
        check_options(values, given)
    except ValueError as error:
        raise UserError(f'{where}: {error}') from error
