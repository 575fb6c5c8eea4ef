"""Values made of dicts, lists, strings, numbers and tensors only: what a checkpoint may hold."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import Tensor


def to_plain(value: Any, *, where: str = 'checkpoint') -> Any:
    """Return `value` made of dicts, lists, tuples, strings, numbers, None and tensors only.

    Raises:
        TypeError: it holds something else; the message says where.
    """
    if isinstance(value, np.generic):  # before float: np.float64 is one, and torch refuses to load it
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: to_plain(each, where=f'{where}.{key}') for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        plain = [to_plain(each, where=f'{where}[{i}]') for i, each in enumerate(value)]
        return tuple(plain) if isinstance(value, tuple) else plain
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f'{where} is a {type(value).__name__}, which a checkpoint does not hold')


def plain(config: Any) -> Any:
    """Return a config's dicts and lists as ordinary ones."""
    if isinstance(config, Config):
        config = config._cfg_dict
    return config.to_dict() if hasattr(config, 'to_dict') else to_plain(config)


def text_of(config: Config) -> str:
    """Return a config as Python code, formatted.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile. mmengine makes a SyntaxError of whatever happens there.
    """
    try:
        return config.pretty_text
    except SyntaxError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise


def beyond_64_bits(content: Any, place: str = '') -> str | None:
    """Return the dotted name of the first whole number in nested plain values that no tensor can hold."""
    if isinstance(content, int):
        return place if not -(2**63) <= content < 2**63 else None
    pairs: Any = ()
    if isinstance(content, Mapping):
        pairs = content.items()
    elif isinstance(content, (list, tuple)):
        pairs = enumerate(content)
    found = (beyond_64_bits(each, f'{place}.{key}' if place else str(key)) for key, each in pairs)
    return next((each for each in found if each is not None), None)
