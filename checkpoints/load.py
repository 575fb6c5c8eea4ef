"""Models from checkpoints and configs, and other projects' weights into a model."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor
from torch.overrides import TorchFunctionMode

from falconet.checkpoints.file import read_checkpoint
from falconet.checkpoints.untrusted import check_stranger, check_transforms
from falconet.core.errors import UserError
from falconet.core.names import NAMES
from falconet.core.plain_values import plain
from falconet.core.schema import check_config
from falconet.tasks.build import build_model, evaluation_stage, load_config
from falconet.tasks.model import VisionModel

MOST_PICTURES = 4096  # of a batch, when a checkpoint says so

PROGRAMS = ('.pt2', '.onnx', '.xml', '.pte', '.mlpackage')  # what the files of tools/export.py end in


def load_model(
    source: str | Path, *, classes: Sequence[str] | None = None, device: str | torch.device = 'cpu'
) -> VisionModel:
    """Load a trained model, or build a fresh one.

    Args:
        source: a Falconet checkpoint (`.pth`), which needs nothing else; or a config (`.py`), for a model
            with untrained or `pretrained` weights. A config is Python code and is run; a checkpoint
            never is. Or a program of tools/export.py (`.pt2`, `.onnx`, `.xml`), which gives a
            `deploy.engines.ExportedModel`: the same `predict`, `classes` and `task`, on the CPU.
        classes: class names, for a config only; by default they are read from its data.
        device: where to put it; 'auto' takes a GPU where there is one.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: no such file, not a checkpoint, or one that does not fit its own description.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f'a model is loaded from the path of a checkpoint or a config, got {source!r}')
    if classes is not None and not str(source).endswith('.py'):
        raise UserError(f'{source} has classes of its own: leave classes out, which are for configs')
    if is_program(source):
        return load_program(source)
    if device == 'auto':
        found = torch.accelerator.current_accelerator(check_available=True)
        device = 'cpu' if found is None else found
    if str(source).endswith('.py'):
        model = build_model(load_config(source), classes=classes)
    else:
        model = model_from_checkpoint(read_checkpoint(source), source=str(source))
    try:
        if torch.device(device).type == 'meta':
            raise ValueError('it holds no numbers')
        model.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).split('\n')[0]
        raise UserError(f"device={device!r} cannot be used: {reason}. 'cpu' always can") from error
    return model


def model_from_checkpoint(content: Mapping[str, Any], *, source: str) -> VisionModel:
    """Build the model a checkpoint describes and give it the checkpoint's weights.

    Raises:
        UserError: it sets what a checkpoint may not set, or its weights are not those of its own model.
    """
    spec, transforms = content['model'], content['preprocess']['transforms']
    check_stranger(spec, transforms, source=source)

    def build() -> VisionModel:
        return VisionModel(**spec, classes=content['classes'], preprocess=transforms)

    # First without memory for its weights: a file asks for no more of it than it brings.
    try:
        with torch.device('meta'), _WithoutDraws():
            outline = build()
    except UserError:  # the true reason comes below; or a class of one's own reads numbers while it is built
        outline = None
    if outline is not None:
        check_weights(outline, content['state_dict'], source=source)
    model = build()
    if content.get('task') not in (None, model.task.name):
        raise UserError(f'{source} says it is for {content["task"]}, but its head is for {model.task.name}')
    check_weights(model, content['state_dict'], source=source)
    model.load_state_dict(content['state_dict'])
    return model


class _WithoutDraws(TorchFunctionMode):
    """Leaves out random numbers, which for tensors without memory torch draws by way of its compiler.

    To import that takes longer than everything else of loading a model.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if getattr(func, '__name__', '') in ('normal_', 'uniform_'):
            return args[0] if args else options['tensor']  # as torch.nn.init names it
        return func(*args, **options)


def check_weights(model: VisionModel, state: Mapping[str, Tensor], *, source: str) -> None:
    """Raise UserError unless `state` has the model's tensors and no others, of the same shapes and kinds.

    Nor may a few bytes stand for many: tensors can be views of each other, or repeat one number.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state] + [key for key in state if key not in own]
    wrong = [
        f'{key} is {each.dtype} {tuple(each.shape)}, the model has {value.dtype} {tuple(value.shape)}'
        for key, value in own.items()
        if key in state
        and (
            (each := state[key]).shape != value.shape or each.is_floating_point() != value.is_floating_point()
        )
    ]
    if missing or wrong:
        problem = f'{missing[0]} is only in one of the two' if missing else wrong[0]
        raise UserError(
            f'{source}: its weights do not fit its own model: {problem} ({len(missing) + len(wrong)} such '
            'tensors). It was changed after it was written: copy it again'
        )
    needed = sum(each.numel() * each.element_size() for each in own.values())
    storages = [each.untyped_storage() for each in state.values()]
    held = sum({each.data_ptr(): each.nbytes() for each in storages}.values())
    if needed > 2 * held:  # twice: they may be stored in 16 bits
        raise UserError(
            f'{source}: its weights are {held:,} bytes that stand for {needed:,}: torch does not write such '
            'a file by itself, so it is refused'
        )


def config_from_checkpoint(content: Mapping[str, Any], *, source: str) -> Config:
    """Return of a checkpoint's config what describes the data to score it on, checked.

    Raises:
        UserError: there is no config, or a value in it that is not taken from a checkpoint.
    """
    keys = ('data_root', 'val_dataloader', 'test_dataloader', 'evaluator')
    kept = {key: value for key, value in (content.get('config') or {}).items() if key in keys}
    config = Config(kept)
    hint = f'score it with a config: tools/test.py CONFIG --checkpoint {source}'
    if not {'val_dataloader', 'test_dataloader'} & set(kept):
        raise UserError(f'{source} does not say what data it is scored on; {hint}')
    # What is scored is the checkpoint's own model (a program's has none), not the config's.
    check_config(Config({'model': {'backbone': {}, 'head': {}}, **kept}), source=source)
    loader = config[evaluation_stage(config)]
    if loader.get('batch_size', 1) > MOST_PICTURES:
        raise UserError(
            f'{source}: batch_size {loader.batch_size} is more than is taken from a checkpoint, '
            f'{MOST_PICTURES}; {hint}'
        )
    check_transforms(plain(loader.dataset.get('augment', [])), source=source)
    loader.pop('cache', None)  # a folder that is written to
    return config


def is_program(source: str | os.PathLike) -> bool:
    """Whether a path is that of a program of tools/export.py, by its ending, or what a .tflite says."""
    path = Path(source)
    if path.suffix != '.tflite':
        return path.suffix in PROGRAMS
    # Others' .tflite files are weights; ours describe themselves.
    content = path.read_bytes() if path.is_file() else b''
    return any(name.encode() in content for name in NAMES) and b'"sha256":' in content


def load_program(source: str | os.PathLike) -> Any:
    """Open a program of tools/export.py as a `deploy.engines.ExportedModel`.

    `deploy` stands above: it is found by its name, as tasks are.
    """
    return importlib.import_module('falconet.deploy.engines').ExportedModel(source)
