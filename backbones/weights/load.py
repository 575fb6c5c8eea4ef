"""Where a backbone's weights come from: a name, or a local file; and a report of what was loaded.

Names (`backbones.weights.published.NAMED`) stand for published weights that are downloaded once into torch's
cache and checked by hash where there is one. Files are read in any layout of `backbones.weights.layouts`.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from falconet.backbones.weights.files import MissingExtraError, check_sha256, exists, read_weight_file
from falconet.backbones.weights.layouts import WeightFacts
from falconet.backbones.weights.published import NAMED, PublishedWeights
from falconet.backbones.weights.recognise import describe_shape
from falconet.backbones.weights.split import SplitWeights, split_weights


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
        lines += [f'  skipped {key}: file {theirs}, model {ours}' for key, theirs, ours in self.skipped[:8]]
        lines += [f'  and {len(self.skipped) - 8} more skipped'] if len(self.skipped) > 8 else []
        lines += [f'  new {_shorten(self.new)}'] if self.new else []
        lines += [f'  not used {_shorten(self.unused)}'] if self.unused else []
        return '\n'.join(lines)


def read_weights(source: str) -> SplitWeights:
    """Read published weights by name, or a local file, and take them apart.

    Args:
        source: a name in `NAMED`, or a path to a file in a layout of `backbones.weights.layouts` or
            to a Falconet checkpoint.

    Raises:
        FileNotFoundError: neither a known name nor an existing file.
        ConnectionError: the name's file is not in torch's cache and cannot be downloaded.
        ValueError: the file is no weight file, of no known layout, or has another hash than published.
    """
    path = locate(source)
    try:
        state, facts = read_weight_file(path)
    except MissingExtraError:
        raise
    except ValueError as error:
        if source not in NAMED:
            raise
        raise ValueError(
            f'{error}. The download was cut off, or is another file: delete {path} and try again'
        ) from error
    return split_weights(state, source=source, facts=facts)


def settle(
    given: Mapping[str, Any], facts: WeightFacts | None, *, source: str | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Decide options that weights imply: what was given, else what the weights want, else the default.

    Args:
        given: option by name, None where nothing was given.
        facts: of the weights, or None without weights.
        source: where the weights come from, for the message.
        defaults: for what neither decides.

    Raises:
        ValueError: something else was given than the weights are right with.
    """
    settled = {}
    for name, value in given.items():
        wanted = None if facts is None else facts.options.get(name)
        if value is not None and wanted is not None and value != wanted:
            raise ValueError(
                f'{name}={value!r} contradicts pretrained={source!r}, whose weights are only right with '
                f'{name}={wanted!r}: leave {name} out'
            )
        settled[name] = next(each for each in (value, wanted, defaults[name]) if each is not None)
    return settled


def load_pretrained(backbone: nn.Module, source: str, weights: SplitWeights | None = None) -> LoadReport:
    """Load published weights, or a local file, into a backbone.

    Args:
        backbone: a backbone with torchvision's `features.N...` keys.
        source: as in `read_weights`.
        weights: what `read_weights(source)` returned, where that was called before.

    Returns:
        The report: what was loaded, what was skipped and why, what is new.

    Raises:
        ValueError: the weights do not fit this backbone; also as `read_weights`.
    """
    weights = weights or read_weights(source)
    report = copy_matching(backbone, weights.backbone, source=source)
    beside = (*(f'classifier {key}' for key in weights.classifier), *weights.rest)
    report = replace(report, unused=report.unused + beside)
    missing = [*report.new, *(key for key, _, _ in report.skipped)]
    # Counters of seen batches are absent from weights saved before torch 0.4.1 and from TensorFlow's;
    # nothing depends on them.
    if lost := [key for key in missing if not key.endswith('num_batches_tracked')]:
        raise ValueError(
            f'{source} does not fit this backbone: {len(lost)} of {len(backbone.state_dict())} '
            f'tensors are missing or of another shape. {_reason(weights, report)}\n{report}'
        )
    return report


def _reason(weights: SplitWeights, report: LoadReport) -> str:
    if report.skipped:
        return name_width(weights.backbone)
    if weights.missing:
        return f'Under its {weights.layout} names the file lacks {_shorten(weights.missing)}.'
    return 'The file lacks them.'


def name_width(backbone: Mapping[str, Tensor]) -> str:
    """Say which MobileNetV2 the tensors of another width belong to; '' where they are of no MobileNetV2.

    Args:
        backbone: in torchvision's keys.
    """
    try:
        options = describe_shape(backbone)
    except ValueError:
        return ''
    if not options:
        return 'It is for another width, none of the usual ones.'
    written = ', '.join(f'{key}={value:g}' for key, value in options.items())
    return f'It is for another width or depth: MobileNetV2({written}).'


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


def locate(source: str) -> Path:
    """Return the file that a name or a path stands for, downloading a name's when it is not in the cache."""
    if source in NAMED:
        return _download(source)
    path = Path(source).expanduser()
    if exists(path):
        return path
    near = difflib.get_close_matches(source, NAMED, 3, 0.6)
    families = 'torchvision, torchvision_v1, timm/..., d-li14/..., tonylins/..., keras/..., slim/..., '
    raise FileNotFoundError(
        f'weights {source!r}: neither a file nor a known name; '
        + (f'did you mean {" or ".join(near)}?' if near else f'names are {families}transformers/...')
    )


def _download(name: str, fetch: Callable[..., None] | None = None) -> Path:
    """Return the cached file of a name, downloading it first where it is missing."""
    weights: PublishedWeights = NAMED[name]
    path = Path(torch.hub.get_dir()) / 'checkpoints' / weights.file_name
    by_hand = f'Fetch {weights.url} by hand and put it at {path}, or give its path instead of the name'
    if weights.needs:
        raise ConnectionError(f'weights {name!r}: an archive: fetch {weights.url}, {weights.needs}')
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written under a temporary name and renamed when whole.
            (fetch or torch.hub.download_url_to_file)(weights.url, str(path), hash_prefix=weights.sha256)
        except (URLError, OSError, HTTPException) as error:
            raise ConnectionError(
                f'weights {name!r}: could not be downloaded ({error}). {by_hand}'
            ) from error
        except RuntimeError as error:  # the hash, which torch compares while downloading
            raise ValueError(
                f'weights {name!r}: the download is not the published file, or was cut off ({error}). '
                f'{by_hand}'
            ) from error
    if weights.sha256:
        check_sha256(path, weights.sha256)
    return path


def _shorten(names: tuple[str, ...], limit: int = 4) -> str:
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
