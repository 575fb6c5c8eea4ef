"""What a run may change when it goes on with `--resume`: no model, no batches, and the rest not silently."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import get_world_size
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from falconet.backbones.base import BACKBONES
from falconet.core.errors import UserError
from falconet.core.plain_values import plain
from falconet.engine.schedule import same_schedule, types_of
from falconet.heads.base import HEADS
from falconet.tasks.model import VisionModel

# What the checkpoint's own state brings back, whatever the config says now.
RESTORED = ('optim_wrapper.optimizer.', 'param_scheduler', 'schedule')
SCHEDULE = ('schedule', 'param_scheduler')  # two ways to write it
# What does not change the result of a run.
HARMLESS = ('work_dir', 'load_from', 'log_interval', 'save_every_iters', 'tensorboard', 'vis_backends')
NEW_RUN = 'leave it as it was, or begin a new run in another --work-dir, with load_from={source!r}'


def check_same_model(model: VisionModel, content: Mapping[str, Any], *, source: str) -> None:
    """Raise UserError unless a checkpoint describes this very model, constructors' defaults filled in."""
    ours = _described(model.spec, model.preprocess)
    theirs = _described(content['model'], content['preprocess']['transforms'])
    for name in sorted(ours.keys() | theirs.keys(), key=lambda name: (not name.endswith('.type'), name)):
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f'{source} comes from a model with {name}={theirs.get(name)!r}, this one has '
                f'{ours.get(name)!r}: {NEW_RUN.format(source=source)}'
            )


def batches_of(loader: DataLoader) -> dict[str, int]:
    """Return what the order of a training's batches depends on, beside its seed."""
    return {
        'iters_per_epoch': len(loader),
        'pictures': len(loader.dataset),  # type: ignore[arg-type]  # it has a length
        'batch_size': loader.batch_size or 1,
        'processes': get_world_size(),
    }


def check_same_batches(loader: DataLoader, state: Mapping[str, Any], *, source: str) -> None:
    """Raise UserError where a run would go on in the middle of other batches than it began with."""
    words = {'iters_per_epoch': 'iterations per epoch', 'batch_size': 'pictures a batch'}
    for name, here in batches_of(loader).items():
        was = state.get(name, here)  # earlier checkpoints say the iterations only
        if was != here:
            raise UserError(
                f'{source} comes from a run of {was} {words.get(name, name)}, this one has {here}: resume '
                'with the same data, batch size and number of processes'
            )


def check_same_optimiser(
    optimiser: Optimizer, config: Mapping[str, Any], content: Mapping[str, Any], *, source: str
) -> None:
    """Raise UserError unless a checkpoint's optimiser and schedules can go on here.

    Args:
        optimiser: this run's.
        config: this run's, as plain values.
        content: the checkpoint.
        source: its name.
    """
    theirs = content['config']
    iterations = content['training']['iters_per_epoch']
    pairs = {
        'optim_wrapper.optimizer.type': lambda each: each['optim_wrapper']['optimizer']['type'],
        'optim_wrapper.paramwise_cfg': lambda each: each['optim_wrapper'].get('paramwise_cfg') or {},
        'the types of param_scheduler': lambda each: types_of(each, iters_per_epoch=iterations),
    }
    for name, read in pairs.items():
        was, now = read(theirs), read(config)
        if was != now:
            raise UserError(
                f'{source} comes from a run with {name} {was!r}, this one has {now!r}: '
                f'{NEW_RUN.format(source=source)}'
            )
    state = content['training']
    was, now = (
        [len(group['params']) for group in groups]
        for groups in (state['optimizer']['param_groups'], optimiser.param_groups)
    )
    if was != now:
        raise UserError(
            f'{source} comes from an optimiser with {was} parameters in its groups, this one has {now}: '
            f'{NEW_RUN.format(source=source)}'
        )
    parameters = [parameter for group in optimiser.param_groups for parameter in group['params']]
    for index, parameter in enumerate(parameters):
        for name, value in state['optimizer']['state'].get(index, {}).items():
            if getattr(value, 'ndim', 0) and value.shape != parameter.shape:
                raise UserError(
                    f'{source}: {name} of parameter {index} is {tuple(value.shape)}, the parameter '
                    f'{tuple(parameter.shape)}: the file is broken, take an earlier checkpoint'
                )


def changes(config: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for every value of the config that is another than in the checkpoint, and what counts."""
    ours, theirs = _without_model(config), _without_model(content['config'])
    iterations = content['training']['iters_per_epoch']
    if same_schedule(ours, theirs, iters_per_epoch=iterations):
        ours, theirs = ({k: v for k, v in each.items() if k not in SCHEDULE} for each in (ours, theirs))
    ours, theirs = _flat(ours), _flat(theirs)
    for name in sorted(ours.keys() | theirs.keys()):
        was, now = theirs.get(name), ours.get(name)
        if was != now and not name.startswith(HARMLESS):
            restored = name.startswith(RESTORED)
            counts = f'goes on as it was, {now!r} is not used' if restored else f'is new: {now!r}'
            yield f'{name} was {was!r} and {counts}'


def _described(spec: Mapping[str, Any], preprocess: Any) -> dict[str, Any]:
    filled = {'norm_eval': False, **plain(spec), 'preprocess': list(preprocess)}
    for part, registry in (('backbone', BACKBONES), ('head', HEADS)):
        given = filled[part]
        known = registry.module_dict.get(given.get('type'))
        parameters = inspect.signature(known).parameters if known is not None else {}
        defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
        decided = getattr(known, 'from_weights', {})
        options = {**defaults, **given}
        filled[part] = {
            key: decided.get(key) if value is None else value
            for key, value in options.items()
            if key != 'pretrained'
        }
    return _flat({'model': filled})


def _without_model(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain(config).items() if key != 'model'}


def _flat(value: Any, name: str = '') -> dict[str, Any]:
    """Return the leaves of nested dicts and lists of dicts by dotted name; tuples become lists."""
    if isinstance(value, Mapping) and value:
        pairs: Any = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
        pairs = enumerate(value)
    else:
        return {name: _as_list(value)}
    return {
        inner: leaf
        for key, each in pairs
        for inner, leaf in _flat(each, f'{name}.{key}' if name else str(key)).items()
    }


def _as_list(value: Any) -> Any:
    return [_as_list(each) for each in value] if isinstance(value, (list, tuple)) else value
