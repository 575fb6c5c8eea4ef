"""What a report says of a segmentation network: classes, confusions, and where it was most wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from falconet.datasets.dataset import VisionDataset, picture_again
from falconet.datasets.formats.masks import voc_palette
from falconet.heads.base import IGNORE
from falconet.report.evidence.intervals import ends_of, intervals
from falconet.report.page.confusions import commonest, confusion_section, listed
from falconet.report.page.drawings import legend_entry
from falconet.report.page.findings import Findings, Score, Section, class_section, weakest_first
from falconet.report.page.markup import Html, element, joined, name
from falconet.report.page.pictures import case, gallery
from falconet.tasks.segmentation.evidence import OF_A_CLASS, WORST, Counts, KeptMask

OPACITY = 0.6


def findings(
    report: Mapping[str, Any], counts: Counts, worst: Sequence[KeptMask], dataset: VisionDataset | None
) -> Findings:
    """Return what there is to say.

    Args:
        report: of the metric.
        counts: of every picture.
        worst: answers that were kept, the worst picture first.
        dataset: to read pictures and masks again; None leaves them out.
    """
    names = report['class_names']
    confusion = np.array(report['confusion_matrix'], dtype=np.int64).reshape(len(names), len(names))
    scores, classes = _scores(report, counts, confusion)
    found = Findings(scores, weakest_first(classes))
    if not report['images']:
        found.notes.append('no picture could be looked at: there are no scores')
    elif not report['pixels']:
        found.notes.append('no pixel of the masks is labelled: there is no score')
    elif not confusion.diagonal().any():
        found.notes.append('not one pixel is right')
    if len(names) == 1:
        found.notes.append('there is one class only, so every pixel is right')
    cases = Cases(worst, names, dataset)
    weakest = next((each for each in found.classes if each.value is not None and each.value < 1), None)
    if weakest is not None:
        found.sections.append(_weakest_section(weakest, confusion, names, cases))
    found.sections.append(
        class_section(found.classes, score='IoU', count='pixels', note='most often taken for')
    )
    if len(names) > 1:
        found.sections.append(confusion_section(confusion, names, unit='pixels', by_share=True))
    shown = cases.worst(WORST)
    words = element(
        'p', 'The pictures with the lowest mean IoU over their own classes. White: not labelled, not counted.'
    )
    body = joined([words, cases.gallery(shown)]) if shown else element('p', 'No picture is wrong.')
    found.sections.append(Section('Most wrong', body))
    words = 'A mask holds classes and no scores: there is nothing to compare with how often they are right.'
    found.sections.append(Section('Calibration', element('p', words)))
    return found


def _scores(
    report: Mapping[str, Any], counts: Counts, confusion: np.ndarray
) -> tuple[list[Score], list[Score]]:
    picture, lines = counts.flat()
    classes = len(report['class_names'])
    labels = lines[:, 0]

    def score(weights: np.ndarray) -> np.ndarray:
        right, true, predicted = (
            np.bincount(labels, weights=weights[picture] * lines[:, column], minlength=classes)
            for column in (1, 2, 3)
        )
        with np.errstate(invalid='ignore', divide='ignore'):
            iou = np.where(true > 0, right / (true + predicted - right), np.nan)
            recall = np.where(true > 0, right / true, np.nan)
            accuracy = right.sum() / true.sum()
        present = true > 0
        means = [iou[present].mean(), accuracy, recall[present].mean()] if present.any() else [np.nan] * 3
        return np.array([*means, *iou])

    ends = intervals(score, len(counts))
    scores = [
        Score(key, report[key] if report['pixels'] else None, *ends_of(ends, place), report['pixels'])
        for place, key in enumerate(('miou', 'pixel_accuracy', 'mean_accuracy'))
    ]
    names, per_class = report['class_names'], []
    for place, (title, entry) in enumerate(report['per_class'].items()):
        others, things = _taken_for(confusion[place], place, names)
        others = ', then '.join(listed([names[each] for each in part]) for part in (others, things) if part)
        per_class.append(Score(title, entry['iou'], *ends_of(ends, 3 + place), entry['pixels'], others))
    return scores, per_class


def _taken_for(row: np.ndarray, own: int, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return what a class's pixels are most often taken for, and, where that is the background, what then.

    Nearly everything small is taken for background most of all, which tells little by itself.
    """
    others = commonest(row, own)
    if names[0] != 'background' or others != [0]:
        return others, []
    things = row.copy()
    things[0] = 0
    return others, commonest(things, own)


def _weakest_section(weakest: Score, confusion: np.ndarray, names: Sequence[str], cases: 'Cases') -> Section:
    place = names.index(weakest.title)
    total = max(1, int(confusion[place].sum()))
    taken: object = ' Its own pixels are right; others are taken for it.'
    parts = []
    for words, others in zip(
        (' Most often taken for ', ', then for '), _taken_for(confusion[place], place, names), strict=True
    ):
        if others:
            title = element('strong', name(listed([names[each] for each in others]), limit=120))
            share = f': {confusion[place, others[0]] / total:.1%} of its pixels'
            parts += [words, title, share, ' each' if len(others) > 1 else '']
    if parts:
        taken = joined([*parts, '.'])
    words = element(
        'p', element('strong', name(weakest.title)), f' has the lowest IoU, {weakest.value:.3f}'
        f'{f" ({weakest.interval()})" if weakest.interval() else ""}.', taken,
    )  # fmt: skip
    return Section('Weakest class', joined([words, cases.gallery(cases.of_class(place))]))


class Cases:
    """Pictures whose answers were kept."""

    def __init__(self, kept: Sequence[KeptMask], names: Sequence[str], dataset: VisionDataset | None) -> None:
        self.kept, self.names, self.dataset = kept, names, dataset

    def worst(self, limit: int) -> list[KeptMask]:
        """Return the worst that are not wholly right."""
        return [each for each in self.kept if each.row.iou < 1][:limit]

    def of_class(self, label: int) -> list[KeptMask]:
        """Return those that lost the most pixels of a class."""
        losses = [(-each.row.lost.get(label, 0), each.row.picture, each) for each in self.kept]
        return [each for lost, _, each in sorted(losses, key=lambda loss: loss[:2])[:OF_A_CLASS] if lost]

    def gallery(self, kept: Sequence[KeptMask]) -> Html:
        """Return pictures."""
        if self.dataset is None:
            return element('p', 'The pictures are not at hand.', class_='quiet')
        cases = []
        for each in kept:
            caption, views = self.seen(each)
            text = joined([caption, element('div', *self._legend(each), class_='quiet')])
            cases.append(case(text, self.dataset.paths[each.row.picture], views))
        return gallery(cases)

    def seen(self, kept: KeptMask) -> tuple[str, list[tuple[str, Image.Image]]]:
        """Return a picture's caption and views."""
        assert self.dataset is not None
        caption = f'mean IoU {kept.row.iou:.3f}'
        image = picture_again(self.dataset, kept.row.picture)
        if image is None:
            return f'{caption} (the file can no longer be read)', []
        target = self.dataset.target(kept.row.picture)
        truth = next(iter(target.values()))
        mask = kept.mask()
        size = (mask.shape[1], mask.shape[0])
        small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
        truth = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
        return caption, [('truth', self._overlay(small, truth)), ('answer', self._overlay(small, mask))]

    def _overlay(self, picture: Image.Image, mask: np.ndarray) -> Image.Image:
        opacity = np.full(256, round(255 * OPACITY), np.uint8)
        if self.names[0] == 'background':
            opacity[0] = 0
        palette = voc_palette().copy()
        palette[IGNORE] = 255
        return Image.composite(Image.fromarray(palette[mask]), picture, Image.fromarray(opacity[mask]))

    def _legend(self, kept: KeptMask) -> list[Html]:
        palette = voc_palette()
        parts = []
        for label in map(int, kept.row.numbers[:9, 0]):
            if self.names[label] == 'background':
                continue
            colour = '#' + ''.join(f'{int(each):02x}' for each in palette[label])
            parts.append(legend_entry(colour, self.names[label]))
        return parts
