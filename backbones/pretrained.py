"""Where a backbone's weights come from: a name, or a local file; and a report of what was loaded.

Names stand for published weights that are downloaded once into torch's cache. Everything is opened
with `weights_only=True`: a weight file never runs code.
"""

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, nn

from backbones.convert import split_weights


@dataclass(frozen=True)
class PublishedWeights:
    """Published weights that have a name here.

    Attributes:
        enum_name: member of torchvision's `MobileNet_V2_Weights`.
        top1: published ImageNet top-1, in percent.
    """

    enum_name: str
    top1: float


NAMED = {
    'torchvision': PublishedWeights('IMAGENET1K_V2', top1=72.154),
    'torchvision_v1': PublishedWeights('IMAGENET1K_V1', top1=71.878),
}


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor when weights were loaded.

    Attributes:
        source: file or name the weights came from.
        loaded: keys taken over.
        skipped: (key, shape in the source, shape in the model) of tensors that do not fit.
        new: keys of the model the source does not have; they keep their initialisation.
        unused: keys of the source the model has no place for.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f'{self.source}: {len(self.loaded)} tensors loaded, {len(self.skipped)} skipped, '
            f'{len(self.new)} newly initialised, {len(self.unused)} in the file only'
        ]
        lines += [f'  skipped {key}: file {theirs}, model {ours}' for key, theirs, ours in self.skipped]
        lines += [f'  new {_shorten(self.new)}'] if self.new else []
        lines += [f'  not used {_shorten(self.unused)}'] if self.unused else []
        return '\n'.join(lines)


def load_pretrained(backbone: nn.Module, source: str) -> LoadReport:
    """Load published weights, or a local file, into a backbone.

    Args:
        backbone: a backbone with torchvision's `features.N...` keys.
        source: a name in `NAMED`, or a path to a file in torchvision's key layout or to a Kestrel
            checkpoint.

    Returns:
        The report: what was loaded, what was skipped and why, what is new.

    Raises:
        FileNotFoundError: neither a known name nor an existing file.
        ConnectionError: the name's file is not in torch's cache and cannot be downloaded.
        ValueError: the file is no weight file, or does not fit this backbone.
    """
    state = _download(source) if source in NAMED else read_state_dict(_existing(source))
    weights = split_weights(state, source=source)
    report = copy_matching(backbone, weights.backbone, source=source)
    missing = [*report.new, *(key for key, _, _ in report.skipped)]
    # Counters of seen batches are absent from weights saved before torch 0.4.1; nothing depends on them.
    if lost := [key for key in missing if not key.endswith('num_batches_tracked')]:
        raise ValueError(
            f'{source} does not fit this backbone: {len(lost)} of {len(backbone.state_dict())} '
            f'tensors are missing or of another shape. Is it for another width?\n{report}'
        )
    return report


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a plain state dict from a `.pth` file, unwrapping the usual containers, or arrays from a `.npz`.

    Raises:
        ValueError: the file is no weight file, is truncated, or wants to run code.
    """
    if path.suffix == '.npz':
        return read_arrays(path)
    content = read_plain(path)
    for wrapper in ('state_dict', 'model_state_dict', 'model', 'net'):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f'{path}: expected a state dict, got {type(content).__name__}')
    # A file saved from DistributedDataParallel carries this prefix.
    state = {key.removeprefix('module.'): value for key, value in content.items()}
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{path}: expected a state dict of tensors, found {_shorten(tuple(state))}')
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read the named arrays of a NumPy `.npz` file, as `np.savez` writes TensorFlow's variables.

    Raises:
        ValueError: the file is truncated, no `.npz`, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        size = path.stat().st_size
        raise ValueError(f'{path}: not a readable .npz of arrays, or truncated ({size:,} bytes)') from error


def read_plain(path: Path) -> object:
    """`torch.load` of tensors and plain values only, with errors a user can act on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated, no torch file, or holds more than plain data.
    """
    size = path.stat().st_size
    try:
        with warnings.catch_warnings():
            # Said of any pickle torch did not write; what is wrong with it comes as an error below.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        # torch names what it will not build; a text file trips over an opcode instead.
        if 'GLOBAL' in str(error) or 'Unsupported class' in str(error):
            raise ValueError(
                f'{path}: refused, because it holds Python objects, not only tensors and plain values; '
                'opening it could run code. Save it again as a plain state dict '
                '(torch.save(model.state_dict(), ...)).'
            ) from error
        raise ValueError(f'{path}: not a weight file ({size:,} bytes)') from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f'{path}: not a readable weight file, or truncated ({size:,} bytes); copy or train it again'
        ) from error


def copy_matching(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Copy every tensor whose key and shape match, and report the rest."""
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        source=source,
        loaded=tuple(fitting),
        skipped=tuple(
            (key, tuple(value.shape), tuple(own[key].shape))
            for key, value in state.items()
            if key in own and key not in fitting
        ),
        new=tuple(key for key in own if key not in state),
        unused=tuple(key for key in state if key not in own),
    )


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'pretrained={source!r} is neither a file nor a known name; names are {", ".join(NAMED)}'
        )
    return path


def _download(name: str, fetch: Callable[..., Mapping[str, Tensor]] | None = None) -> Mapping[str, Tensor]:
    from torchvision.models import MobileNet_V2_Weights

    weights = MobileNet_V2_Weights[NAMED[name].enum_name]
    try:
        # torchvision's file names end in the first digits of their sha256; check_hash compares them.
        return (fetch or weights.get_state_dict)(progress=True, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        cached = Path(torch.hub.get_dir()) / 'checkpoints' / Path(weights.url).name
        raise ConnectionError(
            f'pretrained={name!r} could not be downloaded ({error}). Fetch {weights.url} by hand and put '
            f'it at {cached}, or pass its path: pretrained=<file>'
        ) from error


def _shorten(names: tuple[str, ...], limit: int = 4) -> str:
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
