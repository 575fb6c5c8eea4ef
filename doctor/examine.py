"""The data of a config, examined before it is trained on: both parts read once, faults listed."""

import copy
import inspect
from ast import literal_eval
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from falconet.core.errors import UserError
from falconet.core.owned_files import check_writable
from falconet.datasets.annotations import Problems
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.layouts import writers
from falconet.doctor import labels, pictures
from falconet.doctor.finding import Finding, finding, merged
from falconet.doctor.page import doctor_page
from falconet.doctor.repair import Repair
from falconet.report.page.document import write_page
from falconet.tasks.build import build_dataset, build_model, data_root
from falconet.tasks.task import load_tasks

# Changes to a detector's default boxes that are tried where many objects are like none of them.
FINER = 'model.backbone.taps=[stage4_expand,stage6_expand,last]'
TRIED = (
    ('model.head.min_scale=0.1',),
    ('model.head.min_scale=0.05',),
    (FINER, 'model.head.min_scale=0.1'),
    (FINER, 'model.head.min_scale=0.05'),
    ('model.head.small_first_map=True', FINER, 'model.head.min_scale=0.05'),
)
STAGES = {'train': 'train_dataloader', 'val': 'val_dataloader'}


@dataclass
class Examination:
    """What was found out about the data of a config.

    Attributes:
        datasets: 'train' and 'val', and 'test' where the data have all three.
        root: of the data.
        findings: faults, the serious ones first.
        unit: what classes are counted in, 'pictures' or 'objects'.
        counts: of each part, how often each class occurs.
        areas: share of the labelled pixels of training by class; empty where there are no masks.
    """

    datasets: dict[str, Any]
    root: Path = Path()
    findings: list[Finding] = field(default_factory=list)
    unit: str = 'pictures'
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, str]:
        """What each part is, in a line."""
        return {part: str(dataset) for part, dataset in self.datasets.items()}

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        about = {'counted': self.unit, 'counts': self.counts, 'areas': self.areas}
        return {**self.parts, 'classes': about, 'findings': [each.as_plain() for each in self.findings]}


def examine(config: Config, *, root: str | None = None) -> Examination:
    """Read all data of a config, and say what is wrong with them.

    Args:
        config: from `load_config`.
        root: data root instead of the config's.

    Raises:
        UserError: the data cannot be read at all.
    """
    place, seed = data_root(config, root), config.get('seed', 0)
    config = copy.deepcopy(config)
    forgiving = [_forgive(config, stage) for stage in STAGES.values()]
    train = build_dataset(config, 'train_dataloader', root=place, classes=None, seed=seed)
    held_out = getattr(train, 'held_out', None)
    if held_out is not None and forgiving[1]:
        config.val_dataloader.dataset['held_out'] = list(held_out)
    # Of a forgiving data set other classes than those of training are a finding.
    classes = None if forgiving[1] else train.classes
    val = build_dataset(config, 'val_dataloader', root=place, classes=classes, seed=seed)
    datasets = {'train': train, 'val': val}
    refused: list[Finding] = []
    if all(part in getattr(train, 'splits', ()) for part in ('val', 'test')):
        config.val_dataloader.dataset['split'] = 'test'
        try:
            datasets['test'] = build_dataset(config, 'val_dataloader', root=place, classes=None, seed=seed)
        except UserError as error:
            refused = finding('split_not_readable', [str(error)], part='test')
    result = examined(config, datasets, {part: pictures.look_at(each) for part, each in datasets.items()})
    result.findings = merged([*result.findings, *refused])
    result.root = place
    return result


def _forgive(config: Config, stage: str) -> bool:
    """Have a config's data set note faults that would stop a training, where it can; return whether."""
    load_tasks()
    entry = config[stage].dataset
    kind = DATASETS.module_dict.get(str(entry.get('type')))
    if kind is None or 'forgiving' not in inspect.signature(kind).parameters:
        return False
    entry['forgiving'] = True
    return True


def examined(
    config: Config,
    datasets: Mapping[str, Any],
    seen: Mapping[str, pictures.Pictures],
    *,
    quick: bool = False,
) -> Examination:
    """Return what is wrong with data sets whose pictures were looked at.

    Args:
        config: that they are from.
        datasets: 'train' and 'val', and 'test' or not.
        seen: their pictures.
        quick: leave out what takes long: what other default boxes would do.
    """
    result = Examination(dict(datasets))
    size = input_size(config)
    found: list[Finding] = []
    class_of: dict[str, dict[str, str]] = {}
    known: tuple[np.ndarray | None, float] | None = None
    for part, dataset in datasets.items():
        found += pictures.storage(dataset, seen[part], part=part)
        found += pictures.sizes(dataset, seen[part], part=part, input_size=size)
        found += labels.problems(getattr(dataset, 'problems', Problems()), part=part)
        # A part that reads another to compare has noted the same: each place once.
        found += finding('pictures_unlabelled', getattr(dataset, 'unnamed', ()), part=part)
        counts = np.zeros(0, dtype=np.int64)
        if hasattr(dataset, 'annotations'):
            result.unit = 'objects'
            counts = np.bincount(dataset.annotations.labels, minlength=len(dataset.classes))
            known = known or default_boxes_of(config, dataset, size)
            found += _boxes(config, dataset, part, size, known, try_others=part == 'train' and not quick)
        elif hasattr(dataset, 'labels'):
            names = [dataset.classes[label] for label in dataset.labels.tolist()]
            class_of[part] = dict(zip(dataset.paths, names, strict=True))
            counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
        elif hasattr(dataset, 'counts'):
            counts = dataset.counts.masks
            found += finding('masks_empty', dataset.counts.empty, part=part)
            if part == 'train':
                found += labels.areas(dataset.classes, dataset.counts.pixels)
                shares = dataset.counts.pixels / max(1, int(dataset.counts.pixels.sum()))
                result.areas = dict(zip(dataset.classes, shares.tolist(), strict=True))
        if counts.size:
            result.counts[part] = dict(zip(dataset.classes, counts.tolist(), strict=True))
    found += _forgiven(datasets)
    found += pictures.copies(seen, class_of)
    found += _classes(result.counts, unit=result.unit) if len(result.counts) == len(datasets) else []
    result.findings = merged(found)
    return result


def _classes(counts: Mapping[str, Mapping[str, int]], *, unit: str) -> list[Finding]:
    """Return what is wrong with classes; in test, which may lack some, those that are not learnt."""
    train = counts['train']
    found = labels.classes(train, counts['val'], unit=unit)
    test = {name: count for name, count in counts.get('test', {}).items() if count and not train.get(name)}
    if test:
        kinds = ('class_misspelt', 'class_absent_in_training')
        others = labels.classes(train, test, unit=unit, scored='test')
        found += [each for each in others if each.kind in kinds]
    return found


def _in_two(datasets: Mapping[str, Any]) -> Iterator[str]:
    """Yield the pictures of test that are learnt or chosen by; those of training and validation are noted."""
    for other in ('train', 'val') if 'test' in datasets else ():
        both = set(datasets['test'].paths) & set(datasets[other].paths)
        yield from (f'{path}: {other} and test' for path in sorted(both))


def _forgiven(datasets: Mapping[str, Any]) -> list[Finding]:
    """Return what forgiving data sets have noted; what concerns the whole folder every one has, once."""
    places: dict[str, dict[str, None]] = {}
    if both := list(_in_two(datasets)):
        places['pictures_in_two_splits'] = dict.fromkeys(both)
    for dataset in datasets.values():
        noted = getattr(dataset, 'forgiven', None)
        for kind, (_, found) in () if noted is None else noted.found.items():
            places.setdefault(kind, {}).update(dict.fromkeys(found))
    return [each for kind, found in places.items() for each in finding(kind, found, part='the folder')]


def _boxes(
    config: Config,
    dataset: Any,
    part: str,
    size: tuple[int, int],
    known: tuple[np.ndarray | None, float],
    *,
    try_others: bool,
) -> list[Finding]:
    defaults, threshold = known

    def others() -> Iterator[tuple[str, np.ndarray]]:
        for options in TRIED if try_others else ():
            changed = copy.deepcopy(config)
            changed.merge_from_dict(
                {
                    key: tuple(value.strip('[]').split(',')) if value.startswith('[') else literal_eval(value)
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


def input_size(config: Config) -> tuple[int, int]:
    """Return (height, width) of the network's input as the validation's transforms make it."""
    size = (320, 320)
    for entry in config.val_dataloader.dataset.get('augment', []):
        if 'height' in entry and 'width' in entry:
            size = (entry['height'], entry['width'])
        elif isinstance(found := entry.get('crop', entry.get('size')), (int, list, tuple)):
            size = (found, found) if isinstance(found, int) else (found[0], found[-1])
    return size


def default_boxes_of(
    config: Config, dataset: VisionDataset, size: tuple[int, int]
) -> tuple[np.ndarray | None, float]:
    """Return the default boxes of a config's head, float32 (N, 4) unit cxcywh, and its least IoU of a match.

    None where the head has no default boxes. Torch's random state is left as it is.
    """
    bare = copy.deepcopy(config)
    bare.model.backbone.pop('pretrained', None)  # weights are not needed to know the sizes of maps
    if bare.model.backbone.get('type') == 'MobileNetV2':
        bare.model.backbone.width = 0.1  # nor are channels
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build_model(bare, classes=dataset.classes).eval()
        outputs = model.head(model.backbone(torch.zeros(1, 3, *size)))
    found = outputs.get('defaults') if isinstance(outputs, dict) else None
    return None if found is None else found.numpy(), float(getattr(model.head, 'match_threshold', 0.5))


def write_html(result: Examination, path: Path) -> None:
    """Write the findings as one page; UserError where it would replace what is not ours."""
    check_writable([path], overwrite=False, hint='Give another file')
    page = doctor_page(
        'Labelled pictures, checked',
        parts=result.parts,
        findings=result.findings,
        counts=result.counts,
        unit=result.unit,
        areas=result.areas,
        data=result.as_plain(),
    )
    try:
        write_page(page, path)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error


def write_repaired(result: Examination, out: Path) -> tuple[str, list[str]]:
    """Write a repaired copy of what was examined into an empty folder; return its format, and the steps.

    Raises:
        UserError: something is in the folder, or the config's data sets are not those of own folders.
    """
    datasets = result.datasets
    if not all(hasattr(each, 'forgiven') for each in datasets.values()):
        raise UserError(
            '--fix: this config reads a standard data set as it is. Those for folders of your own write '
            'repaired copies: configs/linear_folder.py, ssdlite_folder.py, deeplabv3_folder.py'
        )
    with writers.new_folder(out) as folder:
        repair = Repair(datasets, {part: pictures.look_at(each) for part, each in datasets.items()})
        kind = repair.write(folder)
    lost = [each.part for each in result.findings if each.kind == 'split_not_readable']
    return kind, [*repair.steps, *(f'1 split left out, {part}: it cannot be read' for part in lost)]
