"""The data of a config, examined before it is trained on: both parts read once, faults listed."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from tasks.build import build_dataset, build_model, data_root
from tasks.data.dataset import VisionDataset
from tasks.data.doctor import labels, pictures
from tasks.data.doctor.finding import Finding

# Changes to a detector's default boxes that are tried where many objects are like none of them.
FINER = 'model.backbone.taps=[stage4_expand,stage6_expand,last]'
TRIED = (
    ('model.head.min_scale=0.1',),
    ('model.head.min_scale=0.05',),
    (FINER, 'model.head.min_scale=0.1'),
    (FINER, 'model.head.min_scale=0.05'),
)


def examine(config: Config, *, root: str | None = None) -> tuple[dict[str, str], list[Finding]]:
    """Read all data of a config, and say what is wrong with them.

    Args:
        config: from `load_config`.
        root: data root instead of the config's.

    Returns:
        What 'train' and 'val' are, and the findings.

    Raises:
        UserError: the data cannot be read at all.
    """
    place, seed = data_root(config, root), config.get('seed', 0)
    train = build_dataset(config, 'train_dataloader', root=place, classes=None, seed=seed)
    val = build_dataset(config, 'val_dataloader', root=place, classes=train.classes, seed=seed)
    parts: dict[str, Any] = {'train': train, 'val': val}
    seen = {part: pictures.look_at(dataset) for part, dataset in parts.items()}
    found: list[Finding] = []
    class_of: dict[str, dict[str, str]] = {}
    counts: list[np.ndarray] = []
    unit = 'pictures'
    for part, dataset in parts.items():
        found += pictures.unreadable(dataset, seen[part], part=part)
        if hasattr(dataset, 'problems'):
            found += labels.problems(dataset.problems, part=part)
        if hasattr(dataset, 'annotations'):
            unit = 'objects'
            counts.append(np.bincount(dataset.annotations.labels, minlength=len(dataset.classes)))
            found += _boxes(config, dataset, part)
        elif hasattr(dataset, 'labels'):
            names = [dataset.classes[label] for label in dataset.labels.tolist()]
            class_of[part] = dict(zip(dataset.paths, names, strict=True))
            counts.append(np.bincount(dataset.labels, minlength=len(dataset.classes)))
        elif hasattr(dataset, 'counts'):
            counts.append(dataset.counts.masks)
            found += labels.masks(dataset.counts.empty, part=part)
    found += pictures.copies(seen, class_of)
    if len(counts) == 2:
        found += labels.classes(train.classes, counts[0], counts[1], unit=unit)
    return {part: str(dataset) for part, dataset in parts.items()}, found


def _boxes(config: Config, dataset: Any, part: str) -> list[Finding]:
    size = _input_size(config)
    defaults, threshold = default_boxes_of(config, dataset, size)

    def others() -> Iterator[tuple[str, Tensor]]:
        for options in TRIED if part == 'train' else ():
            changed = copy.deepcopy(config)
            changed.merge_from_dict(
                {
                    key: tuple(value.strip('[]').split(',')) if value.startswith('[') else float(value)
                    for key, value in (option.split('=') for option in options)
                }
            )
            found, _ = default_boxes_of(changed, dataset, size)
            if found is not None:
                yield ' '.join(options), found

    return labels.boxes(
        dataset.annotations,
        part=part,
        input_size=size,
        defaults=defaults,
        threshold=threshold,
        others=others,
    )


def _input_size(config: Config) -> tuple[int, int]:
    """Return (height, width) of the network's input as the validation's transforms make it."""
    entries = config.val_dataloader.dataset.get('augment', [])
    sizes = [(each['height'], each['width']) for each in entries if 'height' in each and 'width' in each]
    return sizes[-1] if sizes else (320, 320)


def default_boxes_of(
    config: Config, dataset: VisionDataset, size: tuple[int, int]
) -> tuple[Tensor | None, float]:
    """Return the default boxes of a config's head, float32 (N, 4) unit cxcywh, and its least IoU of a match.

    None where the head has no default boxes.
    """
    bare = copy.deepcopy(config)
    bare.model.backbone.pop('pretrained', None)  # weights are not needed to know the maps
    model = build_model(bare, classes=dataset.classes).eval()
    with torch.no_grad():
        outputs = model.head(model.backbone(torch.zeros(1, 3, *size)))
    found = outputs.get('defaults') if isinstance(outputs, dict) else None
    return found, float(getattr(model.head, 'match_threshold', 0.5))
