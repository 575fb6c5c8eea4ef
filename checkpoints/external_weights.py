"""Other projects' weights into a model, and what they are only right with."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from falconet.backbones.base import BACKBONES
from falconet.backbones.weights.files import BACKBONE_PREFIX, exists, facts_of, read_plain, read_weight_file
from falconet.backbones.weights.folded import BRANCHES, POOLED_BRANCH, exchange_branches
from falconet.backbones.weights.layouts import TENSORFLOW_BORN, WeightFacts
from falconet.backbones.weights.load import LoadReport, copy_matching, name_width
from falconet.backbones.weights.split import SplitWeights, split_weights
from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.core.registry import find
from falconet.datasets.classes import match_classes
from falconet.tasks.model import VisionModel

# How much more the pooled branch must spread on cells before the order counts as found.
SPREAD_APART = 1.5


def load_weights(
    model: VisionModel,
    path: str | Path,
    *,
    pooled_branch: str | None = None,
    content: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load a weight file into a model built from a config.

    Args:
        model: the model to fill.
        path: a Falconet checkpoint, or a file in a layout `backbones.weights.split` knows.
        content: of a Falconet checkpoint, if it was read before.
        pooled_branch: which of a folded deeplab's two 1x1 branches reads the picture's mean, 'first' or
            'second' in the order they run; by default found by trying both. Of no meaning for other files.

    Returns:
        What was loaded. Every tensor of the model must be in the file.

    Raises:
        UserError: the file is missing, unreadable, of another shape, of other classes, or right only with
            another padding, batch-norm epsilon or normalisation than the model's; or the order of its
            branches is not given and cannot be found.
    """
    path = Path(path).expanduser()
    if not exists(path):
        raise UserError(f'there is no checkpoint {path}')
    if content is not None or is_falconet(path):
        content = content or read_checkpoint(path)
        match_classes(content['classes'], model.classes, source=path, other='the data')
        check_same_network(model, content, source=str(path))
        state = content['state_dict']
        report = copy_matching(model, state, source=str(path))
    else:
        weights = open_weights(path)
        check_facts(model, weights.facts, source=str(path))
        rows = len(weights.classifier.get('bias', ()))
        if rows == len(model.classes) + 1 and weights.facts == TENSORFLOW_BORN:
            raise UserError(
                f"{path} knows {rows:,} classes, the model {rows - 1:,}: the first is TensorFlow's "
                f'background. Take it away: tools/convert_weights.py {path} OUT.pth --drop-background'
            )
        if weights.unsure_branches:
            weights = settle_branches(model, weights, pooled_branch, source=str(path))
        state = named_for(model, weights)
        report = copy_matching(model, state, source=str(path))
    # The normalisation is set by the config; other projects' files do not carry it.
    lost = [
        key
        for key in report.new
        # TensorFlow does not count batches either, and nothing depends on it.
        if not key.startswith('normalise.') and not key.endswith('num_batches_tracked')
    ]
    if lost or report.skipped:
        backbone = {key.removeprefix(BACKBONE_PREFIX): state[key] for key in state}
        width = any(key.startswith(BACKBONE_PREFIX) for key, _, _ in report.skipped) and name_width(backbone)
        raise UserError(
            f'{path} does not fit the model (a {len(model.classes)}-class one). {width or ""}\n{report}'
        )
    return report


def settle_branches(
    model: VisionModel, weights: SplitWeights, pooled_branch: str | None, *, source: str
) -> SplitWeights:
    """Put the two 1x1 branches of a folded deeplab, which have the same shapes, where they belong.

    Where the order is not given, both are tried on a picture, behind the file's own backbone. The folded
    norms scaled each branch for what it reads, and a picture's mean varies less than its cells do: on cells
    the pooled branch's answers therefore spread more (about three times in the authors' files).

    Raises:
        UserError: no such order, or the branches spread too much alike to tell.
    """
    if pooled_branch is None:
        cells = _features(model, weights)
        kernels = [weights.rest[f'{scope}/conv.weight'] for scope in BRANCHES]
        if cells is None or any(kernel.shape[1] != cells.shape[1] for kernel in kernels):
            return weights  # does not fit this model, which the caller says
        first, second = (float(F.conv2d(cells, kernel).std(dim=(2, 3)).mean()) for kernel in kernels)
        if not max(first, second) > SPREAD_APART * min(first, second):
            raise UserError(
                f"{source}: which of its two 1x1 branches reads the picture's mean cannot be told (on a test "
                f'picture they spread by {first:.3g} and {second:.3g}). Say it: tools/convert_weights.py '
                f'{source} OUT.pth --config CONFIG --pooled-branch first (or second), and compare the scores'
            )
        pooled_branch = 'first' if first > second else 'second'
        print_log(
            f'{source}: its {pooled_branch} 1x1 branch is taken for the pooled one: on a test picture the '
            f'branches spread by {first:.3g} and {second:.3g} (tools/convert_weights.py --pooled-branch sets '
            'it)',
            logger='current',
        )
    elif pooled_branch not in POOLED_BRANCH:
        raise UserError(f'the pooled branch is {" or ".join(POOLED_BRANCH)}, got {pooled_branch!r}')
    return replace(weights, rest=exchange_branches(weights.rest)) if pooled_branch == 'second' else weights


@torch.no_grad()
def _features(model: VisionModel, weights: SplitWeights) -> Tensor | None:
    """Return what a file's backbone makes of a picture of soft colours, or None where it does not fit."""
    backbone = deepcopy(model.backbone).eval()
    if copy_matching(backbone, weights.backbone, source='').skipped:
        return None
    colours = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    picture = F.interpolate(colours, size=(257, 257), mode='bilinear', align_corners=True)
    return backbone(picture.to(next(backbone.parameters()).device))[-1]


def is_falconet(path: Path) -> bool:
    """Whether a weight file is a Falconet checkpoint."""
    if (
        path.suffix in ('.npz', '.h5', '.hdf5', '.keras', '.safetensors', '.tflite', '.index')
        or not path.is_file()
    ):
        return False
    try:
        content = read_plain(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    return isinstance(content, dict) and 'state_dict' in content and isinstance(content.get('model'), dict)


def open_weights(path: Path) -> SplitWeights:
    """Read another project's weight file and take it apart, or raise UserError."""
    try:
        state, facts = read_weight_file(path)
        return split_weights(state, source=str(path), facts=facts)
    except ValueError as error:
        raise UserError(str(error)) from error


def named_for(model: VisionModel, weights: SplitWeights) -> dict[str, Tensor]:
    """Return a file's tensors under the model's own keys; a classifier it has no use for under its own."""
    classifier = {f'classifier.{key}': value for key, value in weights.classifier.items()}
    head = model.head.translate(weights.layout, {**weights.rest, **classifier})
    return {
        **{f'{BACKBONE_PREFIX}{key}': value for key, value in weights.backbone.items()},
        **{f'head.{key}': value for key, value in head.items()},
        **({} if model.head.linear() else classifier),
    }


def facts_of_checkpoint(content: Mapping[str, Any], *, source: str) -> WeightFacts | None:
    """Return what a checkpoint's weights are right with, or raise UserError for an unknown backbone."""
    find(BACKBONES, content['model']['backbone'], where=f'{source}: model.backbone')
    return facts_of(content, source=source)


def facts_of_model(model: VisionModel) -> WeightFacts:
    """Return what a model's weights are right with: what they decide in its backbone, and normalisation."""
    entry = model.spec['backbone']
    return WeightFacts(
        {name: entry.get(name, default) for name, default in model.backbone.from_weights.items()},
        {'mean': tuple(model.normalise.mean), 'std': tuple(model.normalise.std)},
    )


def check_facts(model: VisionModel, facts: WeightFacts | None, *, source: str) -> None:
    """Raise UserError unless the weights are right with the model's options and normalisation."""
    if facts is None:
        return
    ours = facts_of_model(model).as_plain()
    for name, theirs in facts.as_plain().items():
        if name in ours and ours[name] != theirs:
            where = 'model.normalise' if name == 'normalise' else f'model.backbone.{name}'
            raise UserError(
                f'{source} is only right with {name} {theirs}, the model has {ours[name]}: set {where} so'
            )


def check_same_network(model: VisionModel, content: Mapping[str, Any], *, source: str) -> None:
    """Raise UserError unless a Falconet checkpoint's backbone computes what the model's does."""
    check_facts(model, facts_of_checkpoint(content, source=source), source=source)
    ours, theirs = model.spec['backbone'], content['model']['backbone']
    for name, default in model.backbone.wiring.items():
        if ours.get(name, default) != theirs.get(name, default):
            raise UserError(
                f'{source} was trained with {name}={theirs.get(name, default)!r}, the model has '
                f'{ours.get(name, default)!r}: the tensors would fit, the answers would be wrong'
            )


def adopt_file(config: Config, path: str | Path, *, content: Mapping[str, Any] | None = None) -> Config:
    """Return a config in which a file that brings all weights decides what the given one leaves open.

    What weights decide in a backbone, and normalisation, become those that the file's weights are right with
    where they are not given. The file that the backbone would otherwise start from is not needed.

    Args:
        config: of which a copy is returned.
        path: of the file.
        content: of a Falconet checkpoint, if it was read before.

    Raises:
        UserError: the file is missing or unreadable.
    """
    path = Path(path).expanduser()
    if not exists(path):
        raise UserError(f'there is no checkpoint {path}')
    config = deepcopy(config)
    backbone = config.model.backbone
    backbone.pop('pretrained', None)
    if content is not None or is_falconet(path):
        facts = facts_of_checkpoint(content or read_checkpoint(path), source=str(path))
    else:
        facts = open_weights(path).facts
    if facts is None:
        return config
    for name in find(BACKBONES, backbone, where='model.backbone').from_weights:
        if backbone.get(name) is None and name in facts.options:
            backbone[name] = facts.options[name]
    if config.model.get('normalise') is None:
        config.model.normalise = facts.as_plain()['normalise']
    return config
