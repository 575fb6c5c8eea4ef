"""Opening weight files of every kind as plain named tensors. A weight file never runs code.

`.pth` and its like (`weights_only=True`), `.safetensors`, Keras' `.h5`, `.npz` of named variables, `.tflite`,
and TensorFlow checkpoints. The readers of Keras' and TensorFlow's are extras and imported only when needed.

A `.pth` may describe the network that its tensors belong to, whose backbone's are below 'backbone.':

    {'state_dict': {'backbone.features.0.0.weight': ..., ...},
     'model': {'backbone': {'type': a name in the registry BACKBONES, option: value, ...},
               'normalise': {'mean': (...), 'std': (...)}}}
"""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falconet.backbones.base import BACKBONES
from falconet.backbones.weights.layouts import WeightFacts
from falconet.backbones.weights.tflite import numbered_layers
from falconet.core.names import NAME, NAMES

# Where a state dict carries what it is only right with: in the metadata that torch saves along and ignores.
BACKBONE_PREFIX = 'backbone.'
# Trained weights are noise: compressed they lose next to nothing, rounded to few bits some of it.
MOST_GROWTH = 32  # times
SMALL = 64_000_000  # bytes that any file may stand for


class MissingExtraError(ValueError):
    """A kind of file whose reader is not installed."""

    def __init__(self, what: str, extra: str, hint: str) -> None:
        super().__init__(f"{what} needs the extra: pip install -e '.[{extra}]' ({hint})")


def read_weight_file(path: Path) -> tuple[dict[str, Tensor], WeightFacts | None]:
    """Read named tensors from a weight file of any kind, by its ending.

    Args:
        path: the file; for a TensorFlow checkpoint its prefix (`model.ckpt-1450000`) or `.index` file.

    Returns:
        The tensors by name, and what the file says it is only right with, where it does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, truncated, no weight file, or of a kind whose reader is not installed.
    """
    if not exists(path):
        raise FileNotFoundError(f'{path}: there is no such file')
    if path.suffix in ('.h5', '.hdf5', '.keras'):
        return read_h5(path), None
    if path.suffix == '.npz':
        return read_npz(path), None
    if path.suffix == '.safetensors':
        return read_safetensors(path), None
    if path.suffix == '.index' or Path(f'{path}.index').is_file():
        return read_tensorflow(path), None
    if path.suffix == '.tflite':
        return read_tflite(path), None
    content = read_plain(path)
    return unwrap_state_dict(content, path), facts_of(content, source=str(path))


def exists(path: Path) -> bool:
    """Whether `path` is a file, or the prefix of a TensorFlow checkpoint."""
    return path.is_file() or Path(f'{path}.index').is_file()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a weight file of any kind; see `read_weight_file`."""
    return read_weight_file(path)[0]


def unwrap_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Take the state dict out of the containers that training programs put around it."""
    for wrapper in ('state_dict', 'model_state_dict', 'model', 'net'):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f'{path}: expected a state dict, got {type(content).__name__}')
    # A file saved from DistributedDataParallel carries this prefix.
    state = {str(key).removeprefix('module.'): value for key, value in content.items()}
    if not any(isinstance(value, Tensor) for value in state.values()):
        found = ', '.join(list(state)[:4])
        raise ValueError(f'{path}: expected a state dict of tensors, found {found or "nothing"}')
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def facts_of(content: Any, *, source: str) -> WeightFacts | None:
    """Return what a file that describes its network, or that we converted, says its weights are right with.

    Raises:
        ValueError: it describes a backbone that is not in the registry.
    """
    noted = getattr(content, '_metadata', None)
    if isinstance(noted, Mapping):
        for name in NAMES:
            if isinstance(noted.get(name), Mapping):
                return WeightFacts.from_plain(noted[name])
    model = content.get('model') if isinstance(content, Mapping) and 'state_dict' in content else None
    if not isinstance(model, Mapping) or not isinstance(entry := model.get('backbone'), Mapping):
        return None
    BACKBONES.import_from_location()
    known = BACKBONES.module_dict
    if entry.get('type') not in known:
        raise ValueError(f'{source} is of a backbone {entry.get("type")!r}; known are {", ".join(known)}')
    defaults = known[entry['type']].from_weights
    given = {name: entry[name] for name in defaults if entry.get(name) is not None}
    return WeightFacts.from_plain({**defaults, **given, 'normalise': model['normalise']})


def read_plain(path: Path) -> object:
    """`torch.load` of tensors and plain values only, with errors a user can act on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated, no torch file, or holds more than plain data.
    """
    size = path.stat().st_size
    _check_growth(path, _unpacked(path))
    try:
        with warnings.catch_warnings():
            # Said of any pickle torch did not write; what is wrong with it comes as an error below.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        # A text trips over the first letter that is no pickle's; torch's own old format is a pickle.
        with path.open('rb') as file:
            is_pickle = file.read(1) == pickle.PROTO
        if is_pickle or zipfile.is_zipfile(path):
            raise ValueError(
                f'{path}: refused, because it holds Python objects, not only tensors and plain values, or is '
                'a pickle that torch did not write; opening it could run code. Save it again as a plain '
                'state dict (torch.save(model.state_dict(), ...)).'
            ) from error
        raise ValueError(f'{path}: not a weight file ({size:,} bytes)') from error
    except Exception as error:  # whatever torch trips over in half a file
        raise ValueError(
            f'{path}: not a readable weight file, or truncated ({size:,} bytes); copy or train it again'
        ) from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """Read an `.npz` of named variables, for example every variable of a TensorFlow checkpoint."""
    try:
        # np.load leaves a file open that it cannot read; given an open one, it does not.
        _check_growth(path, _unpacked(path))
        with path.open('rb') as file, np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise ValueError(
            f'{path}: not a readable .npz, or truncated ({path.stat().st_size:,} bytes): {error}'
        ) from error
    return {
        key: torch.from_numpy(value)
        for key, value in arrays.items()
        if value.dtype.kind in 'fiu' and value.ndim
    }


def _unpacked(path: Path) -> int:
    """Return the bytes that an archive says it holds; 0 where it is none, which others say."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(each.file_size for each in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return 0


def _check_growth(path: Path, size: int) -> None:
    """Raise ValueError for a file that is small and means to be large: it could fill the memory."""
    own = path.stat().st_size
    if size > MOST_GROWTH * own + SMALL:
        raise ValueError(f'{path}: its {own:,} bytes stand for {size:,}, which no weights do: refused')


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f'{path}: not a readable .safetensors file, or truncated ({path.stat().st_size:,} bytes): {error}'
        ) from error


def read_h5(path: Path) -> dict[str, Tensor]:
    """Read Keras' weights as `layer/variable`: `save_weights` of Keras 1 and 2, or a whole saved model.

    Raises:
        ValueError: h5py is not installed, or the file is truncated or not Keras'.
    """
    if path.suffix == '.keras':
        raise ValueError(
            f"{path}: a .keras archive is not read; save the weights as .h5 (model.save('x.h5'))"
        )
    try:
        import h5py  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError(f'{path}: reading it', 'keras', 'h5py') from error
    arrays: dict[str, Tensor] = {}

    def take(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape or name.startswith('optimizer'):
            return
        if item.dtype.kind not in 'fiu' or '/' not in name:
            return
        parts = name.split('/')
        if parts[-2] == 'vars':  # Keras 3's own format, whose groups note the layer's name
            layer, variable = str(item.parent.attrs.get('name', parts[-3])), parts[-1]
            norm = ('gamma', 'beta', 'moving_mean', 'moving_variance')
            group: Any = item.parent
            variable = (norm if len(group) == 4 else ('kernel', 'bias'))[int(variable)]
        else:
            layer, variable = parts[-2], parts[-1].split(':')[0]
        # Names of earlier Keras.
        layer = {'Logits': 'predictions'}.get(layer, layer)
        variable = {'depthwise_kernel': 'kernel'}.get(variable, variable)
        arrays[f'{layer}/{variable}'] = torch.from_numpy(np.asarray(item))

    try:
        with h5py.File(path) as file:
            sizes: list[int] = []
            file.visititems(lambda _, item: sizes.append(getattr(item, 'nbytes', 0)))
            _check_growth(path, sum(sizes))
            file.visititems(take)
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f'{path}: not a readable Keras file, or truncated ({path.stat().st_size:,} bytes): {error}'
        ) from error
    return arrays


def read_tensorflow(path: Path) -> dict[str, Tensor]:
    """Read every variable of a TensorFlow checkpoint, by its name.

    Raises:
        ValueError: TensorFlow is not installed, or cannot read the checkpoint.
    """
    prefix = str(path).removesuffix('.index')
    try:
        # Hundreds of megabytes, and wanted for nothing else: an extra, imported here only.
        from tensorflow import train  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError(
            f'{path} is a TensorFlow checkpoint; reading it',
            'tensorflow',
            'or save its variables where TensorFlow is: r = tf.train.load_checkpoint(PREFIX); '
            "numpy.savez('out.npz', **{n: r.get_tensor(n) for n in r.get_variable_to_shape_map()})",
        ) from error
    try:
        reader = train.load_checkpoint(prefix)
        arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except Exception as error:  # TensorFlow's errors are classes of its own
        raise ValueError(f'{path}: TensorFlow cannot read this checkpoint: {error}') from error
    return {
        key: torch.from_numpy(np.asarray(value))
        for key, value in arrays.items()
        if np.ndim(value) and np.asarray(value).dtype.kind in 'fiu'
    }


def read_tflite(path: Path) -> dict[str, Tensor]:
    """Read the weights of a TFLite network as numbered layers; it is never run.

    Raises:
        ValueError: ai-edge-litert is not installed, or the file is truncated or refused by
            `numbered_layers`.
    """
    try:
        from ai_edge_litert import schema_py_generated  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError(f'{path}: reading it', 'litert', 'ai-edge-litert') from error
    content = path.read_bytes()
    try:
        return numbered_layers(content, schema_py_generated)
    except Exception as error:  # flatbuffers trips over half a file in many ways
        raise ValueError(
            f'{path}: not a readable .tflite network, or truncated ({len(content):,} bytes): {error}'
        ) from error


def write_state_dict(state: Mapping[str, Tensor], path: Path, facts: WeightFacts | None = None) -> None:
    """Write a plain state dict, noting in torch's metadata what it is only right with."""
    from collections import OrderedDict

    content: Any = OrderedDict(state)
    if facts is not None:
        content._metadata = OrderedDict({NAME: facts.as_plain()})
    torch.save(content, path)


def write_npz(state: Mapping[str, Tensor], path: Path) -> None:
    """Write named variables."""
    np.savez(path, **{key: value.numpy() for key, value in state.items()})  # type: ignore[arg-type]


def write_h5(state: Mapping[str, Tensor], path: Path) -> None:
    """Write `layer/variable` arrays as Keras' `load_weights(path, by_name=True)` reads them.

    Raises:
        ValueError: h5py is not installed.
    """
    try:
        import h5py  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError(f'{path}: writing it', 'keras', 'h5py') from error
    layers: dict[str, list[str]] = {}
    for key in state:
        layers.setdefault(key.split('/')[0], []).append(key)
    with h5py.File(path, 'w') as file:
        file.attrs['layer_names'] = [layer.encode() for layer in layers]
        file.attrs['backend'] = b'tensorflow'
        for layer, keys in layers.items():
            group = file.create_group(layer)
            group.attrs['weight_names'] = [key.encode() for key in keys]
            for key in keys:
                group.create_dataset(key, data=state[key].numpy())


def check_sha256(path: Path, digits: str) -> None:
    """Raise ValueError unless the file's sha256 begins with `digits`."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(digits):
        raise ValueError(
            f'{path}: wrong sha256: expected {digits}..., got {found[: len(digits)]}... The download was cut '
            'off or changed: delete the file and try again'
        )
