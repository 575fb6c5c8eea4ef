"""TimmBackbone: any `features_only` model of timm under the backbone contract.

timm (https://github.com/huggingface/pytorch-image-models) reports channels and reductions of a model's
maps itself, so nothing is typed here. A model is checked on two small images when it is built: one whose
maps are not ceil(side / stride) long, or that takes one image size only, is refused with the reason.
This is the one place where options are handed on to another library: as a dict, never as **kwargs.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from falconet.backbones.base import BACKBONES, Backbone
from falconet.backbones.weights.files import read_state_dict
from falconet.backbones.weights.load import LoadReport
from falconet.core.options import (
    MAPPING,
    SHARE,
    SWITCH,
    TEXT,
    check_options,
    mapping_of,
    number,
    one_of,
    sequence,
    stated,
    whole,
)

# An image whose sides are multiples of every usual stride, and one whose sides are of none.
PROBE_SIZES = ((64, 64), (65, 97))
NETWORK_ERRORS = {'ConnectError', 'ConnectTimeout', 'LocalEntryNotFoundError', 'URLError', 'ConnectionError'}

WORD = stated(Annotated[str, Field(pattern='^[a-z0-9_]{1,40}$')], 'a word of small letters, digits and _')
PLACES = sequence(whole(least=-64, most=63), 'a sequence such as (-2, -1) in -64..63', least=1, most=64)
# Of `timm.create_model`'s arguments those that only shape the network. Others name files or addresses.
FROM_FILES: Any = {
    'output_stride': one_of(8, 16, 32),
    'drop_rate': SHARE,
    'drop_path_rate': SHARE,
    'bn_eps': number(above=0, most=1),
    'bn_momentum': SHARE,
    'bn_tf': SWITCH,
    'fix_stem': SWITCH,
    'pad_type': one_of('', 'same'),
    'act_layer': WORD,
    'norm_layer': WORD,
}


@BACKBONES.register_module()
class TimmBackbone(Backbone):
    """A timm model that returns feature maps.

    Args:
        model: name of the model, as `timm.list_models()` gives it; 'name.tag' chooses among its weights.
        out_indices: which of the model's maps to return, finest first, as timm counts them: 0 is the finest,
            -1 the coarsest.
        pretrained: True downloads timm's weights of that name, a path reads a file in timm's layout, False
            or None starts untrained.
        options: further arguments of `timm.create_model`, for example dict(output_stride=16).

    Attributes:
        network: timm's model.
        normalise: mean and std (units of 0..1) that the weights want; None without weights.
        load_report: what became of the file's tensors; only when weights were loaded.

    Raises:
        ValueError: no such model; one without feature maps, of one image size, or with other map sizes than
            the contract's; a map that it does not have; weights that do not fit.
        FileNotFoundError: `pretrained` is a path to nothing.
        ConnectionError: the weights are neither in the cache nor to be had.
    """

    option_values = MappingProxyType(
        {
            'model': stated(Annotated[str, Field(pattern=r'^[\w.-]{1,128}$')], "a model's name of timm"),
            'out_indices': PLACES,
            'options': mapping_of(FROM_FILES) | None,
        }
    )

    def __init__(
        self,
        *,
        model: str = 'mobilenetv3_small_050',
        out_indices: Sequence[int] = (-1,),
        pretrained: bool | str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # A config may name any model and option of timm's; of a checkpoint's they are narrower.
        kinds = {'model': TEXT, 'options': MAPPING | None, 'out_indices': PLACES}
        check_options(kinds, locals())
        check_name(model)
        state = None if not isinstance(pretrained, str) else read_model_weights(model, pretrained)
        whole = create(model, None, False, None, options)
        places = check_indices(model, out_indices, whole.feature_info.channels())
        self.network = create(model, places, pretrained is True, state, options)
        info = self.network.feature_info
        self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        drop_blocks_above(self.network, info.module_name()[-1])
        probe(model, self.network, self.channels, self.strides)

        has_weights = pretrained is True or state is not None
        facts = self.network.pretrained_cfg
        self.normalise = {key: tuple(facts[key]) for key in ('mean', 'std')} if has_weights else None
        if has_weights:
            source = published_at(model) if state is None else str(pretrained)
            self.load_report = LoadReport(
                source=source, loaded=tuple(self.network.state_dict()), skipped=(), new=(), unused=()
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.network(images))


def check_name(model: str) -> None:
    """Raise ValueError unless timm has a model of that name; the message shows the closest ones."""
    import timm

    name = model.split('.')[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        raise ValueError(
            f'timm has no model {model!r}. Did you mean {" or ".join(near) or "nothing it has"}?'
        )
    if '.' in model and model not in (tags := timm.list_pretrained(f'{name}.*')):
        raise ValueError(f'timm has no weights {model!r}; of {name} it has {tags or "none"}')


def create(
    model: str,
    places: Sequence[int] | None,
    download: bool,
    state: Mapping[str, Tensor] | None,
    options: Mapping[str, Any] | None,
) -> Any:
    """Build timm's model with its `features_only` wrapper; `places` None returns every map it has."""
    import timm

    given = dict(options or {})
    if taken := {'features_only', 'out_indices', 'pretrained', 'num_classes', 'in_chans'} & set(given):
        raise ValueError(f'options may not hold {sorted(taken)}: TimmBackbone sets them itself')
    if places is not None:
        given['out_indices'] = tuple(places)
    if state is not None:
        given['pretrained_cfg_overlay'] = {'state_dict': dict(state)}
    try:
        return timm.create_model(model, features_only=True, pretrained=download or state is not None, **given)
    except Exception as error:
        if download and is_network_error(error):
            raise ConnectionError(
                f'the weights of {model} could not be downloaded ({type(error).__name__}: {error}). Fetch '
                f'them from {published_at(model)} by hand and pass pretrained=<file>'
            ) from error
        if isinstance(error, (AssertionError, AttributeError, RuntimeError, TypeError, ValueError)):
            raise ValueError(f'timm cannot build {model} as a feature model: {error}') from error
        raise


def published_at(model: str) -> str:
    """Return where timm gets the weights of a model from."""
    import timm

    facts = timm.get_pretrained_cfg(model)
    return str((facts and (facts.hf_hub_id or facts.url)) or 'timm')


def is_network_error(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a failed connection. Its class depends on timm's downloader."""
    while error is not None:
        names = {each.__name__ for each in type(error).__mro__}
        if names & NETWORK_ERRORS:
            return True
        error = error.__cause__ or error.__context__
    return False


def check_indices(model: str, indices: Sequence[int], channels: Sequence[int]) -> list[int]:
    """Return the places of the wanted maps, counted from 0, or raise ValueError naming those there are."""
    if isinstance(indices, int) or not indices:
        raise ValueError(f'out_indices must be a sequence such as (-2, -1), got {indices!r}')
    count = len(channels)
    if wrong := [index for index in indices if not -count <= index < count]:
        raise ValueError(
            f'{model} has {count} maps, of {list(channels)} channels: there is no map {wrong[0]}'
        )
    places = [index % count for index in indices]
    if places != sorted(set(places)):
        raise ValueError(f'out_indices must name each map once, finest first, got {tuple(indices)}')
    return places


def drop_blocks_above(network: Any, module: str) -> None:
    """Take away blocks that no returned map needs, where timm keeps them (its EfficientNet family)."""
    family, _, place = module.partition('.')
    blocks = getattr(network, 'blocks', None)
    if family in ('blocks', 'bn1') and isinstance(blocks, torch.nn.Sequential):
        network.blocks = blocks[: int(place.split('.')[0]) + 1 if place else 0]


def probe(model: str, network: Any, channels: Sequence[int], strides: Sequence[int]) -> None:
    """Run two small images and raise ValueError when a map is not what the contract promises."""
    if list(strides) != sorted(strides):
        raise ValueError(f'{model}: its maps are not finest first, strides {list(strides)}')
    device = next(network.parameters()).device
    network.eval()
    for height, width in PROBE_SIZES:
        try:
            with torch.no_grad():
                maps = list(network(torch.zeros(1, 3, height, width, device=device)))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise ValueError(
                f'{model} does not fit: it cannot compute a {height}x{width} image ({error}). A backbone '
                'must take images of any size'
            ) from error
        for tensor, count, stride in zip(maps, channels, strides, strict=True):
            expected = (1, count, -(-height // stride), -(-width // stride))
            if tuple(tensor.shape) != expected:
                raise ValueError(
                    f'{model} does not fit: at stride {stride} its map of a {height}x{width} image is '
                    f'{tuple(tensor.shape)}, a backbone must return {expected} (sides rounded up)'
                )
    network.train()


def read_model_weights(model: str, path: str) -> dict[str, Tensor]:
    """Read a weight file in timm's layout of `model`; only the classifier may be missing or different.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no weight file, or of another model.
    """
    import timm

    state = read_state_dict(Path(path).expanduser())
    with torch.device('meta'):
        whole = timm.create_model(model, pretrained=False)
    own = whole.state_dict()
    classifier = getattr(whole, 'pretrained_cfg', {}).get('classifier') or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    lost = [
        key
        for key, value in own.items()
        if not key.startswith(tuple(f'{head}.' for head in heads))
        and not key.endswith('num_batches_tracked')
        and (key not in state or state[key].shape != value.shape)
    ]
    if lost:
        raise ValueError(
            f'{path} does not fit timm model {model}: {len(lost)} of its {len(own)} tensors are missing or '
            f'of another shape, for example {lost[0]}; the file begins with {", ".join(list(state)[:3])}'
        )
    return {key: value for key, value in state.items() if not key.startswith(tuple(f'{h}.' for h in heads))}
