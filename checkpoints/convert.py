"""Weights of any project as a Falconet checkpoint, and of any Falconet model in another project's layout."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from falconet.backbones.weights.files import write_h5, write_npz, write_state_dict
from falconet.backbones.weights.layouts import LAYOUTS, WeightFacts
from falconet.backbones.weights.load import NAMED, locate, read_weights
from falconet.backbones.weights.recognise import describe_shape
from falconet.backbones.weights.split import SplitWeights, drop_background, join_weights, with_counters
from falconet.checkpoints.external_weights import (
    adopt_file,
    facts_of_model,
    is_falconet,
    load_weights,
    named_for,
)
from falconet.checkpoints.file import describe, read_checkpoint, write_checkpoint
from falconet.checkpoints.load import model_from_checkpoint
from falconet.core.errors import UserError
from falconet.datasets.classification.dataset import imagenet_classes
from falconet.tasks.build import build_model
from falconet.tasks.model import VisionModel

# The models that other projects' files make without a config.
BACKBONE, CLASSIFIER, DETECTOR = 'MobileNetV2', 'LinearHead', 'SSDLiteHead'
WRITERS = {'torch': ('.pth', write_state_dict), 'keras': ('.h5', write_h5), 'slim': ('.npz', write_npz)}


def convert(
    source: str,
    out: Path,
    *,
    layout: str = 'falconet',
    classes: Sequence[str] | None = None,
    config: Config | None = None,
    resolution: int | None = None,
    without_background: bool = False,
    pooled_branch: str | None = None,
    overwrite: bool = False,
) -> str:
    """Convert weights from any layout into any other.

    Args:
        source: a name of `backbones.weights.published.NAMED`, a weight file, or a Falconet checkpoint.
        out: file to write.
        layout: 'falconet' for a whole model that needs nothing else, or a name of
            `backbones.weights.layouts`.
        classes: class names in order; by default the checkpoint's, or ImageNet's for 1000 and 1001.
        config: describes the model and its data, for layouts that do not say all of it.
        resolution: side of the pictures in pixels; by default what is published, or 224 (300 for a detector).
        without_background: take away the first of the classes, TensorFlow's background.
        pooled_branch: of a folded deeplab, as in `load_weights`.
        overwrite: replace `out`; never `source`.

    Returns:
        One sentence on what was written.

    Raises:
        UserError: something cannot be read, written or held by the layout.
    """
    if layout not in ('falconet', *LAYOUTS):
        raise UserError(f'--to {layout}: known are falconet, {", ".join(LAYOUTS)}')
    ending = '.pth' if layout == 'falconet' else WRITERS[LAYOUTS[layout].stored][0]
    if out.suffix != ending:
        raise UserError(f'{out} should end in {ending}: that is how layout {layout} is stored')
    own = source not in NAMED and os.path.realpath(out) == os.path.realpath(Path(source).expanduser())
    if out.exists() and own:
        raise UserError(f'{out} would overwrite its own source')
    if out.exists() and not (overwrite and out.is_file()):
        raise UserError(f'{out} is there already: choose another name, or add --overwrite')
    model = read_model(
        source,
        classes=classes,
        config=config,
        resolution=resolution,
        without_background=without_background,
        pooled_branch=pooled_branch,
    )
    if layout == 'falconet':
        write_checkpoint(content_of(model), out)
        return f'{out}: a Falconet checkpoint, {len(model.classes):,} classes'
    write_layout(model, layout, out)
    note, facts = '', facts_of_model(model)
    if facts != LAYOUTS[layout].facts:
        note = (
            f'. Only right with {words(facts)}, which Falconet reads from the file and programs of {layout} '
        )
        note += 'do not'
    return f'{out}: {len(model.classes):,} classes in the layout of {layout}{note}'


def read_model(
    source: str,
    *,
    classes: Sequence[str] | None = None,
    config: Config | None = None,
    resolution: int | None = None,
    without_background: bool = False,
    pooled_branch: str | None = None,
) -> VisionModel:
    """Return the whole model that weights of any kind make; see `convert`."""
    try:
        path = locate(source)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    if is_falconet(path):
        if (
            any(each is not None for each in (classes, config, resolution, pooled_branch))
            or without_background
        ):
            raise UserError(
                f'{source} is a Falconet checkpoint: it knows its model, classes and size already'
            )
        return model_from_checkpoint(read_checkpoint(path), source=source)
    try:
        weights = read_weights(source)
    except ValueError as error:
        raise UserError(str(error)) from error
    if pooled_branch is not None and not weights.unsure_branches:
        raise UserError(f'{source} is no folded deeplab: leave --pooled-branch out')
    if without_background:
        if len(weights.classifier.get('bias', ())) < 2:
            raise UserError(f'{source} has no classifier to take a background class away from')
        weights = replace(weights, classifier=drop_background(weights.classifier))
    if weights.classifier:
        if config is not None:
            raise UserError(f'{source} has a classifier, so it is a whole model already: leave --config out')
        return classification_model(weights, source=source, classes=classes, resolution=resolution)
    if weights.layout != 'object_detection' and config is None:
        raise UserError(
            f'{source} has no classifier, so it makes no whole model. Use it as the start of one: '
            'model.backbone.pretrained=FILE. Or say with --config which model it is'
        )
    return configured_model(
        weights, path, config=config, classes=classes, resolution=resolution, pooled_branch=pooled_branch
    )


def classification_model(
    weights: SplitWeights, *, source: str, classes: Sequence[str] | None, resolution: int | None
) -> VisionModel:
    """Return a classifier with the weights, its shape read from them."""
    count = len(weights.classifier['bias'])
    names = class_names(count) if classes is None else list(classes)
    if len(names) != count:
        raise UserError(f'{source} knows {count:,} classes, {len(names):,} names are given')
    published = NAMED.get(source)
    side = resolution or (published.resolution if published else 224)
    # The middle 87.5 % of the short side, unless the publisher evaluates otherwise.
    known = published.resize if published and resolution is None else None
    resize = known or round(side / 0.875)
    facts = weights.facts
    assert facts is not None  # every layout has them
    options = describe_shape(weights.backbone)
    if not options:
        raise UserError(f'{source} is a MobileNetV2 of none of the usual widths')
    model = VisionModel(
        {'type': BACKBONE, **options, **facts.options},
        {'type': CLASSIFIER},
        classes=names,
        normalise=facts.normalise,
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': resize, 'crop': side}],
    )
    state = named_for(model, replace(weights, backbone=with_counters(weights.backbone)))
    try:
        lost = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f'{source} is no MobileNetV2 under one linear classifier: {error}') from error
    if missing := [key for key in lost.missing_keys if not key.startswith('normalise.')]:
        first = ', '.join(weights.missing[:4]) or missing[0]
        raise UserError(f'{source}: {len(missing)} tensors are missing: under its own names {first}')
    return model.eval()


def configured_model(
    weights: SplitWeights,
    path: Path,
    *,
    config: Config | None,
    classes: Sequence[str] | None,
    resolution: int | None,
    pooled_branch: str | None,
) -> VisionModel:
    """Return the model a config describes, or the Object Detection API's SSDLite, with a file's weights."""
    if classes is None:
        raise UserError(f'{path} does not name its classes: give them with --classes')
    facts = weights.facts
    assert facts is not None
    if config is None:
        side = resolution or 300
        taps = ('stage6_expand', 'last')
        model = VisionModel(
            {'type': BACKBONE, **describe_shape(weights.backbone), 'taps': taps, **facts.options},
            {'type': DETECTOR},
            classes=classes,
            normalise=facts.normalise,
            preprocess=[{'type': 'ResizeTensorFlow', 'height': side, 'width': side}],
        )
    else:
        if resolution is not None:
            raise UserError('--resolution and --config exclude each other: the config prepares the pictures')
        model = build_model(adopt_file(config, path), classes=classes)
    load_weights(model, path, pooled_branch=pooled_branch)
    return model.eval()


def class_names(count: int) -> list[str]:
    """Return ImageNet's names for 1000 classes, and background before them for 1001."""
    names = list(imagenet_classes()[1])
    if count == len(names):
        return names
    if count == len(names) + 1:
        return ['background', *names]
    raise UserError(f'the file does not name its {count:,} classes: give them with --classes')


def content_of(model: VisionModel) -> Mapping[str, Any]:
    """Return what a checkpoint of the model holds. One of ImageNet's classes can be scored on ImageNet."""
    config: dict[str, Any] = {'model': model.spec}
    if len(model.classes) == 1000 and list(model.classes) == class_names(1000):
        dataset = {'type': 'ImageNet', 'split': 'val', 'augment': list(model.preprocess)}
        config['data_root'] = 'data/imagenet'
        config['val_dataloader'] = {'batch_size': 32, 'num_workers': 2, 'dataset': dataset}
    return {
        **describe(model, Config(config)),
        'state_dict': model.state_dict(),
        'metrics': {},
        'epoch': 0,
        'iter': 0,
    }


def write_layout(model: VisionModel, layout: str, out: Path) -> None:
    """Write a classifier in another project's layout.

    Raises:
        UserError: the model is none, or is right only with a padding or an epsilon that the layout's own
            programs do not use and its file cannot note.
    """
    backbone, classifier = model.spec['backbone'], model.head.linear()
    if backbone['type'] != BACKBONE or not classifier:
        raise UserError(
            f'layout {layout} holds classifiers over {BACKBONE}; this is '
            f'{backbone["type"]} with {model.spec["head"]["type"]}'
        )
    papers = dict(model.backbone.wiring)
    wiring = {name: backbone.get(name, default) for name, default in papers.items()}
    if wiring != papers or tuple(backbone.get('taps', ('last',))) != ('last',):
        raise UserError(
            f'layout {layout} holds the whole network of the paper under its classifier; this one has '
            f'taps {backbone.get("taps", ("last",))} and {wiring}'
        )
    facts = facts_of_model(model)
    kind = LAYOUTS[layout]
    if kind.stored != 'torch' and facts != kind.facts:
        raise UserError(
            f'layout {layout} always means {words(kind.facts)}; this model is only right with '
            f'{words(facts)}. Its tensors would fit, its answers would be wrong'
        )
    weights = SplitWeights('falconet', model.backbone.state_dict(), classifier)
    temporary = out.with_name(f'.{out.name}.tmp{out.suffix}')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tensors = join_weights(weights, layout)
        if kind.stored == 'torch':
            write_state_dict(tensors, temporary, facts)
        else:
            WRITERS[kind.stored][1](tensors, temporary)
        temporary.replace(out)
    except (OSError, RuntimeError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f'could not write {out}: {error}') from error


def words(facts: WeightFacts) -> str:
    """Return facts as a person reads them."""
    mean = ', '.join(f'{value:g}' for value in facts.normalise['mean'])
    padding, norm_eps = facts.options['padding'], facts.options['norm_eps']
    return f'padding {padding!r}, batch-norm epsilon {norm_eps:g}, pixel mean ({mean})'
