"""Building a part from its config entry, `dict(type='Name', option=...)`, with errors a user can act on."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry

from falconet.core.errors import UserError, closest


def build(registry: Registry, config: Mapping[str, Any], *, where: str, **given: Any) -> Any:
    """Build what `config` describes from `registry`.

    Args:
        registry: where `config['type']` is looked up. Only names are accepted: mmengine would import any
            dotted path, and a config can come out of a stranger's checkpoint.
        config: `type` and the options of its constructor.
        where: the config key, for messages, for example 'model.backbone'.
        **given: further arguments that the config does not name.

    Raises:
        UserError: no `type`, an unknown name (the closest ones are shown), an unknown or missing option,
            or a value the constructor refuses.
    """
    factory = find(registry, config, where=where)
    options = {key: value for key, value in config.items() if key != 'type'}
    check_options(factory, {**options, **given}, where=where, name=config['type'])
    try:
        return factory(**options, **given)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor trips over is in the values it was given
        raise UserError(f'{where} ({config["type"]}): {error or type(error).__name__}') from error


def find(registry: Registry, config: Mapping[str, Any], *, where: str) -> Any:
    """Return the class or function that `config['type']` names in `registry`."""
    name = config.get('type') if isinstance(config, Mapping) else None
    if not isinstance(name, str):
        raise UserError(f"{where} must be dict(type='Name', ...), got {config!r}")
    # Importing the registry's locations is what fills it.
    registry.import_from_location()
    if name not in registry.module_dict:
        known = sorted(registry.module_dict)
        raise UserError(f'{where}: no {registry.name} is called {name!r}. {closest(name, known)}')
    return registry.module_dict[name]


def check_options(factory: Any, options: Mapping[str, Any], *, where: str, name: str) -> None:
    """Raise UserError for options that `factory` does not take, or needs and was not given."""
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    if unknown := [key for key in options if key not in parameters]:
        hints = ' '.join(closest(key, list(parameters)) for key in unknown)
        raise UserError(f'{where} ({name}): unknown option {", ".join(unknown)}. {hints}')
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and key not in options
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if missing:
        raise UserError(f'{where} ({name}): missing option {", ".join(missing)}')
