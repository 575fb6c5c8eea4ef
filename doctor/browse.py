"""What a network really sees of its data: samples as the transforms leave them, several draws of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from falconet.core.errors import UserError, closest
from falconet.core.owned_files import check_writable
from falconet.datasets.formats.masks import IGNORE, voc_palette
from falconet.datasets.samples import Sample, SampleKey
from falconet.report.boxes import draw_boxes
from falconet.report.page.document import document, write_page
from falconet.report.page.findings import Section
from falconet.report.page.markup import Html, element, joined, name
from falconet.report.page.pictures import case, gallery
from falconet.tasks.build import build_dataset, build_model, data_root

SPLITS = {'train': 'train_dataloader', 'val': 'val_dataloader', 'test': 'test_dataloader'}
OPACITY = 0.55  # of a mask over its picture
UNCOUNTED = (255, 255, 255)  # colour of pixels that do not count
MOST_CLASSES = 40  # in the legend of masks


def browse(
    config: Config,
    *,
    root: str | None = None,
    split: str = 'train',
    class_name: str | None = None,
    draws: int = 4,
    count: int = 24,
) -> str:
    """Return a page of samples with their targets drawn in.

    Training samples are those of the first epochs of a run, bit for bit; `batch_augment` is left out.

    Args:
        config: from `load_config`.
        root: data root instead of the config's.
        split: 'train', 'val' or 'test', whose transforms are used.
        class_name: show pictures with this class only.
        draws: of every picture: epochs 0, 1, ...; one where nothing is drawn by chance.
        count: pictures, spread evenly over the data.

    Raises:
        UserError: no such split or class, or the data cannot be read.
    """
    if draws < 1 or count < 1:
        raise UserError(f'--draws {draws} and --count {count} should be at least 1')
    dataset = _dataset(config, root, split)
    draws = draws if dataset.training else 1
    chosen = _chosen(dataset, class_name, count)
    cases: list[Html] = []
    lost: list[str] = []
    for index in chosen:
        samples = [dataset[SampleKey(index, draw)] for draw in range(draws)]
        good = [each for each in samples if isinstance(each, Sample)]
        lost += [f'{each.path}: {each.reason}' for each in samples if not isinstance(each, Sample)]
        lost += [f'{skipped.path}: {skipped.reason}' for each in good for skipped in each.skipped]
        if good:
            views = [(f'draw {draw + 1}', drawn(dataset, each)) for draw, each in enumerate(good)]
            cases.append(case(_caption(dataset, good[0]), good[0].info.path, views))
    size = ' and '.join(sorted({f'{width}x{height}' for height, width in _sizes(dataset, chosen)}))
    about = element('p', element('strong', f'{split} '), name(str(dataset), limit=600))
    how = 'the first epochs of a run, as they would be learnt' if dataset.training else 'as they are scored'
    sections = [
        Section('Data', joined([about, *_legend(dataset)])),
        Section('Samples', gallery(cases) if draws == 1 else joined(cases)),
    ]
    return document(
        f'What the network sees of {split}',
        summary=f'{len(cases)} of {len(dataset):,} pictures at {size} pixels, {draws} of each: {how}.',
        notes=[f'could not be read: {each}' for each in dict.fromkeys(lost)],
        sections=sections,
        data={'split': split, 'class': class_name, 'draws': draws, 'pictures': list(map(int, chosen))},
    )


def _dataset(config: Config, root: str | None, split: str) -> Any:
    stage = SPLITS.get(split)
    if stage is None or config.get(stage) is None:
        known = [each for each, key in SPLITS.items() if config.get(key) is not None]
        raise UserError(f'--split {split}: the config has {" and ".join(known)}')
    place, seed = data_root(config, root), config.get('seed', 0)
    classes = None
    held_out = None
    if split != 'train' and config.get('train_dataloader') is not None:
        training = build_dataset(config, 'train_dataloader', root=place, classes=None, seed=seed)
        classes, held_out = training.classes, getattr(training, 'held_out', None)
    config = Config(config.to_dict())
    if held_out is not None:
        config[stage].dataset['held_out'] = held_out
    dataset = build_dataset(config, stage, root=place, classes=classes, seed=seed)
    config.model.backbone.pop('pretrained', None)  # only what it makes of a mean pixel is wanted
    dataset.fill_with(build_model(config, classes=dataset.classes).normalise.mean_pixel)
    return dataset


def _chosen(dataset: Any, class_name: str | None, count: int) -> Sequence[int]:
    """Return numbers of pictures, spread evenly over those that have the class."""
    if class_name is None:
        numbers = np.arange(len(dataset))
    else:
        if class_name not in dataset.classes:
            raise UserError(f'--class {class_name}: {closest(class_name, dataset.classes)}')
        label = dataset.classes.index(class_name)
        numbers = np.flatnonzero([label in _labels(dataset, index) for index in range(len(dataset))])
        if not len(numbers):
            raise UserError(f'--class {class_name}: none of the {len(dataset)} pictures has it')
    return numbers[np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)].tolist()


def _labels(dataset: Any, index: int) -> set[int]:
    if hasattr(dataset, 'annotations'):
        return set(dataset.annotations.labels[dataset.annotations.objects(index)].tolist())
    if hasattr(dataset, 'read_mask'):
        return set(np.unique(dataset.read_mask(index)).tolist())
    return {int(dataset.labels[index])}


def _sizes(dataset: Any, chosen: Sequence[int]) -> set[tuple[int, int]]:
    found = [dataset[SampleKey(index, 0)] for index in chosen[:1]]
    return {each.image.shape[:2] for each in found if isinstance(each, Sample)}


def drawn(dataset: Any, sample: Sample) -> Image.Image:
    """Return a sample's picture with its boxes or its mask drawn in."""
    picture = Image.fromarray(sample.image)
    if hasattr(dataset, 'annotations'):
        boxes, labels, crowd = _boxes(dataset, sample)
        titles = [
            dataset.classes[label] + (' (crowd)' if many else '')
            for label, many in zip(labels.tolist(), crowd.tolist(), strict=True)
        ]
        return draw_boxes(picture, boxes, titles, labels)
    if hasattr(dataset, 'read_mask'):
        return _painted(sample, content=None if dataset.training else sample.info.content)
    return picture


def _boxes(dataset: Any, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes in pixels of the sample, labels and crowds; of a scored one from its annotations."""
    height, width = sample.image.shape[:2]
    if dataset.training:
        target = sample.target
        return target['boxes_unit'] * [width, height, width, height], target['labels'], target['crowd']
    found = dataset.annotations
    objects = found.objects(sample.info.index)
    rows, columns = sample.info.content or (height, width)
    scale = np.array([columns, rows] * 2) / np.array(sample.info.size[::-1] * 2)
    return found.boxes[objects] * scale, found.labels[objects], found.crowd[objects]


def _painted(sample: Sample, *, content: tuple[int, int] | None) -> Image.Image:
    """Return a picture under its mask; of a scored one the mask is that of the original picture."""
    mask = np.asarray(sample.target)
    height, width = sample.image.shape[:2]
    if mask.shape != (height, width):
        rows, columns = content or (height, width)
        small = Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST)
        mask = np.full((height, width), IGNORE, np.uint8)
        mask[:rows, :columns] = np.asarray(small)
    colours = voc_palette().copy()
    colours[IGNORE] = UNCOUNTED
    mixed = sample.image * (1 - OPACITY) + colours[mask] * OPACITY
    keep = (mask == 0)[..., None]  # the background stays as it is
    return Image.fromarray(np.where(keep, sample.image, mixed).astype(np.uint8))


def _caption(dataset: Any, sample: Sample) -> Html:
    labels = sorted(_labels(dataset, sample.info.index) - {IGNORE})
    names = [name(dataset.classes[label]) for label in labels if label < len(dataset.classes)]
    return joined(names, ', ') if names else joined(['no objects'])


def _legend(dataset: Any) -> list[Html]:
    """Return the colours of masks, which have no titles in the pictures."""
    if not hasattr(dataset, 'read_mask'):
        return []
    colours = [*voc_palette().tolist()[: len(dataset.classes)][:MOST_CLASSES], list(UNCOUNTED)]
    names = [*dataset.classes[:MOST_CLASSES], 'does not count']
    keys = [
        element(
            'span',
            element('span', class_='key', style=f'background:rgb({r},{g},{b});border:1px solid'),
            name(each),
        )
        for each, (r, g, b) in zip(names, colours, strict=True)
    ]
    return [element('p', *keys)]


def write_browser(page: str, path: Path) -> None:
    """Write a page; UserError where it would replace what is not ours."""
    check_writable([path], overwrite=False, hint='Give another --out')
    try:
        write_page(page, path)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error
