"""What the runner must know of a task, and where it finds it.

A task is a subpackage of `tasks` whose `__init__` defines `TASK` and registers what the task offers. A head
names its task; nothing else in the project lists tasks.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from falconet.core.errors import UserError
from falconet.heads.base import HEADS


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as in `Head.task`.
        result: frozen dataclass of one image's answer: the fields of `Head.predict`'s dict, plus
            `class_names`, `image` and `path`; has `draw()`, `title()` and `summary()`. It may have
            `preview()`, what a contact sheet shows instead of the bare picture, and `extra_files` with
            `save_extra(key, path)`, what is written beside the annotated picture.
        metric: config entry of the metric used when a config names none.
        batch_augment: builds a callable (images, targets) -> (images, targets) from the config entries
            and `num_classes=`; None where the task has none.
        multi_scale: (model, RGB uint8 images on its device) -> outputs for `Head.predict`, averaged over
            several scales of the images; None where the task has none.
        maps_back: answers are places in the picture, so what prepares it must be undone.
    """

    name: str
    result: type
    metric: dict[str, Any]
    batch_augment: Callable[..., Callable[..., Any]] | None = field(default=None)
    multi_scale: Callable[[Any, Any], Any] | None = field(default=None)
    maps_back: bool = False


def find_task(name: str) -> Task:
    """Return the task called `name`, importing its package.

    Raises:
        UserError: there is no such task.
    """
    try:
        return importlib.import_module(f'falconet.tasks.{name}').TASK
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f'no task is called {name!r}: {error}') from error


def load_tasks() -> None:
    """Import the tasks of all heads, so that what they register is known whatever was used before."""
    HEADS.import_from_location()
    for head in HEADS.module_dict.values():
        if (name := getattr(head, 'task', None)) is not None:
            find_task(name)
