"""Optimisers: parameter groups merged, and timm's optimisers under mmengine's registry."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from falconet.core.errors import UserError, closest, listing
from falconet.core.registry import check_options, find

# Schedules given in epochs that mmengine can convert to a step per iteration without changing their shape.
# ExponentialLR is not among them: converted, its gamma would apply to every iteration.
PER_ITERATION = ('LinearLR', 'CosineAnnealingLR', 'PolyLR', 'OneCycleLR')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupingConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with rules that add up and one parameter group per setting.

    mmengine makes a group of every single parameter (158 optimiser and schedule steps for MobileNetV2), and
    lets an entry of `custom_keys` switch off the rules for norms and biases: a smaller learning rate for the
    backbone would bring the weight decay of its norms back. Here `custom_keys` only changes what it names.

    `paramwise_cfg` keys: norm_decay_mult, bias_decay_mult (of all other biases), dwconv_decay_mult,
    bias_lr_mult, and custom_keys={part of a parameter's name: dict(lr_mult=..., decay_mult=...)}, of
    which the longest match counts.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: Any = None
    ) -> None:
        """Fill `params` with the groups of a whole model; called once by mmengine."""
        groups: dict[tuple[float, float], dict] = {}
        for parent_name, parent in module.named_modules():
            for name, parameter in parent.named_parameters(recurse=False):
                if parameter.requires_grad:
                    rate, decay = self._multipliers(parent, f'{parent_name}.{name}')
                    group = groups.setdefault((rate, decay), {'params': [], 'lr': self.base_lr * rate})
                    if self.base_wd is not None:
                        group['weight_decay'] = self.base_wd * decay
                    group['params'].append(parameter)
        params += groups.values()
        names = [name for name, _ in module.named_parameters()]
        for key in self.paramwise_cfg.get('custom_keys', {}):
            if not any(key in name for name in names):
                raise UserError(
                    f'paramwise_cfg.custom_keys: {key!r} is in no name of a parameter; they are as '
                    f'{listing(names[:: max(1, len(names) // 4)])}'
                )

    def _multipliers(self, parent: nn.Module, name: str) -> tuple[float, float]:
        """Learning-rate and weight-decay multiplier of one parameter."""
        rules = self.paramwise_cfg
        rate = decay = 1.0
        if isinstance(parent, nn.modules.batchnorm._NormBase):
            decay = rules.get('norm_decay_mult', 1.0)
        elif name.endswith('.bias'):
            decay, rate = rules.get('bias_decay_mult', 1.0), rules.get('bias_lr_mult', 1.0)
        elif isinstance(parent, nn.Conv2d) and parent.groups == parent.in_channels > 1:
            decay = rules.get('dwconv_decay_mult', 1.0)
        custom = rules.get('custom_keys', {})
        matches = sorted((key for key in custom if key in name), key=len)
        if matches:
            rate = custom[matches[-1]].get('lr_mult', rate)
            decay = custom[matches[-1]].get('decay_mult', decay)
        return rate, decay


def check_optim_wrapper(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check an `optim_wrapper` entry and make timm's optimisers (RMSpropTF, ...) known.

    Raises:
        UserError: no optimiser, an unknown one, or an option it does not take.
    """
    config = dict(config)
    optimizer = config.get('optimizer')
    if not isinstance(optimizer, Mapping):
        raise UserError("optim_wrapper needs optimizer=dict(type='SGD', lr=...)")
    name = str(optimizer.get('type'))
    if name not in OPTIMIZERS.module_dict:
        import timm.optim

        if hasattr(timm.optim, name):
            OPTIMIZERS.register_module(name=name, module=getattr(timm.optim, name), force=True)
    factory = find(OPTIMIZERS, optimizer, where='optim_wrapper.optimizer')
    options = {key: value for key, value in optimizer.items() if key != 'type'}
    if (why := _unfit(name, factory)) is not None:
        raise UserError(f'optim_wrapper.optimizer: {name} {why}; take another, SGD or AdamW for example')
    check_options(factory, {**options, 'params': ()}, where='optim_wrapper.optimizer', name=name)
    _check_clipping(config.get('clip_grad'))
    rules = config.get('paramwise_cfg') or {}
    if 'decay_mult' in str(rules) and 'weight_decay' not in options:
        raise UserError('optim_wrapper.paramwise_cfg scales a weight decay, but the optimizer names none')
    config.setdefault('constructor', 'GroupingConstructor')
    return config


def _unfit(name: str, factory: Any) -> str | None:
    """Say why an optimiser cannot train here, or None."""
    step = inspect.signature(getattr(factory, 'step', factory)).parameters.get('closure')
    if step is not None and step.default is step.empty:
        return 'computes the loss several times a step, which this loop does not'
    return {
        'SparseAdam': 'is for sparse gradients, and there are none',
        'Optimizer': 'is what optimisers are made of, and none itself',
        'ZeroRedundancyOptimizer': 'wraps other optimisers',
    }.get(name)


def _check_clipping(entry: Mapping[str, Any] | None) -> None:
    """Raise UserError where `clip_grad` lacks its threshold or has what belongs to its other type."""
    if entry is None:
        return
    kind = entry.get('type', 'norm')
    needed = {'norm': 'max_norm', 'value': 'clip_value'}[kind]
    taken = {'norm': (needed, 'norm_type', 'error_if_nonfinite'), 'value': (needed,)}[kind]
    if entry.get(needed) is None:
        raise UserError(f"optim_wrapper.clip_grad needs {needed} with type='{kind}', as dict({needed}=5.0)")
    if wrong := [key for key in entry if key not in (*taken, 'type') and entry[key] is not None]:
        raise UserError(f"optim_wrapper.clip_grad: {wrong[0]} is not for type='{kind}', which takes {needed}")


def check_schedulers(config: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> list[dict[str, Any]]:
    """Check `param_scheduler` entries; those given in epochs step every iteration where they can."""
    entries = [config] if isinstance(config, Mapping) else list(config)
    checked = []
    for index, entry in enumerate(entries):
        where = f'param_scheduler[{index}]'
        factory = find(PARAM_SCHEDULERS, entry, where=where)
        options = {key: value for key, value in entry.items() if key not in ('type', 'convert_to_iter_based')}
        # mmengine's schedules take *args and **kwargs and pass them up: ask every class above.
        known = {name for each in factory.__mro__ for name in inspect.signature(each.__init__).parameters}
        if unknown := [key for key in options if key not in known]:
            raise UserError(
                f'{where} ({entry["type"]}): unknown option {unknown[0]}. {closest(unknown[0], known)}'
            )
        entry = dict(entry)
        if entry['type'] in PER_ITERATION and 'by_epoch' not in entry:
            entry |= {'by_epoch': True, 'convert_to_iter_based': True}
        checked.append(entry)
    return checked
