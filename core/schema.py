"""What a config and a checkpoint may hold: every key, with the type and the range of its value.

Both are checked before anything is built. A config is its user's own: beyond types and ranges it may name
what it likes. A checkpoint may be a stranger's; see `checkpoints.untrusted` for what is taken from it.
"""

# pyright: reportInvalidTypeForm=false
# Types are made by functions: pydantic reads them, nothing else does.

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from mmengine.config import Config
from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError
from torch import Tensor

from falconet.core.errors import UserError, closest
from falconet.core.options import (
    MAPPING,
    SHARE,
    SWITCH,
    TEXT,
    number,
    one_of,
    sentence,
    sequence,
    stated,
    whole,
)
from falconet.core.plain_values import beyond_64_bits, to_plain

MOST_WORKERS = 128
ENTRIES = sequence(MAPPING, "a list of dict(type='Name', ...)")
ENTRY = stated(Mapping[str, Any], "dict(type='Name', ...)") | None
FACTOR = number(least=0)
BEGIN = stated(
    whole(least=0) | number(least=0, below=1), 'a whole number of at least 0, or a share of the run below 1'
)
END = stated(
    whole(least=1) | number(above=0, below=1), 'a whole number of at least 1, or a share of the run below 1'
)


class Closed(BaseModel):
    """Keys that are named here and no others, values as they are."""

    model_config = ConfigDict(extra='forbid', strict=True)


class Open(BaseModel):
    """Other keys are somebody else's to check."""

    model_config = ConfigDict(extra='allow', strict=True)


class ModelEntry(Closed):
    """`model` of a config and of a checkpoint."""

    backbone: MAPPING
    head: MAPPING
    normalise: Any = None
    norm_eval: SWITCH = False


class Dataset(Open):
    """`dataset` of a dataloader; the data set checks the rest."""

    augment: ENTRIES = ()


class Cache(Closed):
    """`cache` of a dataloader; see `datasets.images.cache`."""

    limit: stated(whole(least=1) | TEXT, "bytes or a text like '500MB', '320KiB' or '1.5GB'")
    folder: TEXT | None = None


class Loader(Closed):
    """A dataloader."""

    dataset: Dataset
    batch_size: whole(least=1) = 32
    num_workers: whole(least=0, most=MOST_WORKERS) = 2
    batch_augment: ENTRIES = ()
    decode: one_of('auto', 'full', 'reduced') = 'auto'
    cache: Cache | None = None
    repeated: whole(least=1, most=64) = 1


class Cycle(Closed):
    """`train_cfg`."""

    max_epochs: whole(least=1)
    val_begin: whole(least=1) = 1
    val_interval: whole(least=1) = 1


class Optimizer(Open):
    """`optim_wrapper.optimizer`; the optimiser checks the rest."""

    lr: number() = 0.0
    weight_decay: number() = 0.0


class ClipGrad(Closed):
    """`optim_wrapper.clip_grad`: arguments of `torch.nn.utils.clip_grad_norm_` or `clip_grad_value_`."""

    type: one_of('norm', 'value') = 'norm'
    max_norm: number(above=0) | None = None
    norm_type: number(above=0) = 2.0
    error_if_nonfinite: SWITCH = False
    clip_value: number(above=0) | None = None


class Multipliers(Closed):
    """One of `optim_wrapper.paramwise_cfg.custom_keys`."""

    lr_mult: FACTOR = 1.0
    decay_mult: FACTOR = 1.0


class Paramwise(Closed):
    """`optim_wrapper.paramwise_cfg`; see `engine.optim.GroupingConstructor`."""

    norm_decay_mult: FACTOR = 1.0
    bias_decay_mult: FACTOR = 1.0
    dwconv_decay_mult: FACTOR = 1.0
    bias_lr_mult: FACTOR = 1.0
    custom_keys: dict[str, Multipliers] = {}


class OptimWrapper(Open):
    """`optim_wrapper`."""

    optimizer: Optimizer | None = None
    accumulative_counts: whole(least=1) = 1
    clip_grad: ClipGrad | None = None
    paramwise_cfg: Paramwise | None = None


class ShortSchedule(Closed):
    """`schedule`: warm-up, then down to the end of the run; see `engine.schedule`."""

    warmup: BEGIN = 0
    warmup_from: number(above=0, most=1) = 0.1
    decay: one_of('cosine', 'poly', 'constant') = 'cosine'
    lowest: number(least=0) = 0.0
    power: number(least=0) = 0.9


class Schedule(Open):
    """One of `param_scheduler`; `begin` and `end` are epochs or, below 1, shares of the run."""

    begin: BEGIN = 0
    end: END = 1
    T_max: whole(least=1) | None = None
    step_size: whole(least=1) = 1
    milestones: sequence(whole(least=0), 'a list of whole numbers') = ()
    power: number(least=0) = 1.0
    gamma: number(above=0) = 1.0
    factor: number(above=0, most=1) = 1.0
    start_factor: number(above=0, most=1) = 1.0
    end_factor: number(least=0, most=1) = 1.0
    eta_min: number() | None = None
    by_epoch: SWITCH = True
    convert_to_iter_based: SWITCH = False


class Resolution(Closed):
    """`resolution`; see `engine.resolution`."""

    start: whole(least=32)
    until: END = 0.5
    step: whole(least=1) = 32


class Distill(Closed):
    """`distill`; see `engine.distill`."""

    teacher: stated(TEXT | MAPPING, "a checkpoint's name, or dict(model='a model of timm')")
    weight: SHARE = 0.5
    temperature: number(above=0, most=100) = 1.0
    size: whole(least=1, most=8192) | None = None


class Averaging(Closed):
    """`ema`."""

    decay: number(above=0, below=1) = 0.9999


class Stopping(Closed):
    """`early_stopping`."""

    patience: whole(least=1) = 5
    min_delta: number(least=0) = 0.0
    monitor: TEXT | None = None


class ConfigSchema(Closed):
    """A config. Without the parts that only training needs it can still be evaluated."""

    model: ModelEntry
    load_from: TEXT | None = None
    data_root: TEXT = 'data'
    train_dataloader: Loader | None = None
    val_dataloader: Loader | None = None
    test_dataloader: Loader | None = None
    optim_wrapper: OptimWrapper | None = None
    param_scheduler: list[Schedule] | tuple[Schedule, ...] | Schedule | None = None
    schedule: ShortSchedule | None = None
    train_cfg: Cycle | None = None
    resolution: Resolution | Literal[False] | None = None
    min_steps: whole(least=0) = 0
    evaluator: ENTRY = None
    ema: Averaging | Literal[False] | None = None
    distill: Distill | Literal[False] | None = None
    early_stopping: Stopping | Literal[False] | None = None
    save_every_iters: whole(least=0) = 0
    log_interval: whole(least=1) = 10
    custom_hooks: ENTRIES = ()
    custom_imports: MAPPING | None = None
    amp: one_of('auto', 'off') = 'auto'
    compile: SWITCH = False
    seed: whole(least=0, most=2**32 - 1) = 0
    sync_bn: SWITCH = False
    tensorboard: SWITCH = False
    vis_backends: ENTRIES = ()
    work_dir: TEXT | None = None


NEEDED_TO_TRAIN = ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'train_cfg')


class OptimizerState(Open):
    """An optimiser's `state_dict`."""

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


TENSORS = stated(dict[str, InstanceOf[Tensor]], 'a dict of tensors')


class TrainingState(Open):
    """`training` of a checkpoint, of any format: what `--resume` needs."""

    epoch: whole(least=0)
    iter: whole(least=0)
    validated_iter: whole(least=-1) = -1
    iters_per_epoch: whole(least=1)
    stop_training: SWITCH = False
    seed: whole(least=0)
    weights: TENSORS | None = None
    optimizer: OptimizerState
    schedulers: list[dict[str, Any]] = []
    hooks: dict[str, dict[str, Any]] = {}
    early_stopping: list[dict[str, Any]] = []  # format 1


class Preprocess(Open):
    """`preprocess` of a checkpoint."""

    transforms: ENTRIES


class Split(Open):
    """`split` of a checkpoint: the pictures that its run set aside, by name below the data root."""

    held_out: sequence(TEXT, 'a list of names')


class CheckpointSchema(Open):
    """A checkpoint of any format."""

    format: whole(least=0) = 0
    state_dict: TENSORS
    model: ModelEntry
    classes: sequence(TEXT, 'a list of 1 to 100,000 names', least=1, most=100_000)
    preprocess: Preprocess
    task: TEXT | None = None
    metrics: MAPPING | None = None
    epoch: whole(least=0) = 0
    iter: whole(least=0) = 0
    config: MAPPING | None = None
    training: TrainingState | None = None
    split: Split | None = None


def check_config(config: Config, *, source: str = 'the config', training: bool = False) -> None:
    """Raise UserError for the first thing in a config that is not as `ConfigSchema` says.

    Args:
        config: the config.
        source: its name, for the message.
        training: it must have what training needs.
    """
    try:
        content = to_plain(config._cfg_dict, where='config')
    except (TypeError, RecursionError) as error:
        raise UserError(f'{source}: only plain values can be used: {error}') from error
    if (place := beyond_64_bits(content)) is not None:
        raise UserError(f'{source}: {place} is a whole number beyond 64 bits; give a smaller one')
    check_schema(ConfigSchema, content, source=source)
    for key in NEEDED_TO_TRAIN if training else ():
        if content.get(key) is None:
            raise UserError(f'{source}: training needs {key}=dict(...), got {content.get(key)!r}')


def check_schema(schema: type[BaseModel], content: Any, *, source: str) -> None:
    """Raise UserError for the first thing in `content` that is not as the schema says."""
    try:
        schema.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place, value = _walk(content, problem['loc'])
        if problem['type'] == 'extra_forbidden':
            known = _fields_at(schema, place[:-1])
            raise UserError(
                f'{source}: unknown key {".".join(place)!r}. {closest(place[-1], known)}'
            ) from None
        if problem['type'] == 'missing':
            raise UserError(f'{source}: {".".join(place)} is missing') from None
        if problem['type'] in ('model_type', 'dict_type'):
            problem['msg'] = 'must be dict(...)'
        raise UserError(f'{source}: {sentence(problem, name=".".join(place) or "it", got=value)}') from None


def _walk(content: Any, location: Sequence[Any]) -> tuple[list[str], Any]:
    """Return the keys of `location` in `content`, and the value there; pydantic names types between them."""
    place: list[str] = []
    for step, part in enumerate(location):
        is_index = isinstance(content, (list, tuple)) and isinstance(part, int) and part < len(content)
        if is_index or (isinstance(content, Mapping) and part in content):
            content = content[part]
        elif step < len(location) - 1 or not isinstance(content, Mapping) or '[' in str(part):
            continue
        place.append(str(part))
    return place, content


def _fields_at(schema: Any, place: Sequence[str]) -> list[str]:
    """Return the keys that a schema, or a part of it, knows at a place."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        if not place:
            return list(schema.model_fields)
        field = schema.model_fields.get(place[0])
        return [] if field is None else _fields_at(field.annotation, place[1:])
    inner = place[1:] if place and getattr(schema, '__origin__', None) in (list, tuple, dict) else place
    return [key for each in get_args(schema) for key in _fields_at(each, inner)]
