"""What a report says of a detector: classes, kinds of error, curves, and where it was most wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from falconet.datasets.annotations import Annotations
from falconet.datasets.dataset import VisionDataset, picture_again
from falconet.report.boxes import draw_boxes
from falconet.report.evidence.calibration import calibrate
from falconet.report.evidence.intervals import ends_of, intervals
from falconet.report.page.calibration import calibration_section
from falconet.report.page.confusions import listed
from falconet.report.page.drawings import Curve, plot
from falconet.report.page.findings import Findings, Score, Section, class_section, weakest_first
from falconet.report.page.markup import Html, bar, element, joined, name, table
from falconet.report.page.pictures import WIDE_SIDE, case, gallery, small
from falconet.report.text import shown
from falconet.tasks.detection.errors import (
    BACKGROUND,
    BOTH,
    CLASS,
    DOUBLE,
    IGNORED,
    KINDS,
    PLACE,
    RIGHT,
    Errors,
    Verdicts,
    find_errors,
    judge,
)
from falconet.tasks.detection.matches import ClassMatches, draws_for, precisions

SHOWN_FROM = 0.3  # score of the detections that pictures show
CALIBRATED_FROM = 0.05
WORST, EXAMPLES = 12, 3
MOST_BOXES = 15  # in a picture: more would hide it
TITLE = 17  # pixels of the titles' letters in a picture, which a page shows at two thirds of its size or more
TITLE_LIMIT = 16  # letters of a class name there
GREEN, RED, ORANGE = 1, 0, 4  # among the colours of `report.boxes`
MEANINGS = {
    'class': 'the right place, the wrong class',
    'place': 'the right class, but the box fits badly (IoU 0.1 to 0.5)',
    'both': 'wrong class and badly placed',
    'double': 'a second box on an object already found',
    'background': 'nothing is there',
    'missed': 'an object that no box came near',
}
CAPTIONS = {
    CLASS: 'of the wrong class',
    PLACE: 'at the wrong place',
    BOTH: 'of the wrong class at the wrong place',
    DOUBLE: 'double',
    BACKGROUND: 'where nothing is',
}

Found = Mapping[int, Sequence[np.ndarray]]


def findings(
    report: Mapping[str, Any],
    annotations: Annotations,
    found: Found,
    matches: Sequence[ClassMatches],
    precision: np.ndarray,
    dataset: VisionDataset | None,
) -> Findings:
    """Return what there is to say.

    Args:
        report: of the metric.
        annotations: of the data set.
        found: picture -> boxes xyxy (K, 4), scores (K,), labels (K,).
        matches: of every class.
        precision: over thresholds, recalls and classes, (10, 101, C), or empty.
        dataset: to read pictures again; None leaves them out.
    """
    names = annotations.class_names
    errors = find_errors(annotations, found, shown_from=SHOWN_FROM)
    scores, classes = _scores(report, matches, errors, names)
    result = Findings(scores, weakest_first(classes))
    if not report['images']:
        result.notes.append('no picture could be looked at: there are no scores')
    elif not report['objects']:
        result.notes.append('the data has no objects to find: there is no score')
    elif not report['AP50']:
        result.notes.append('not one object was found')
    cases = Cases(annotations, found, dataset)
    weakest = next((each for each in result.classes if each.value is not None and each.value < 1), None)
    if weakest is not None:
        result.sections.append(_weakest_section(weakest, names.index(weakest.title), errors, cases))
    result.sections.append(
        class_section(result.classes, score='AP50', count='objects', note='what went wrong')
    )
    result.sections.append(_error_section(errors, cases))
    if precision.size:
        result.sections.append(_curve_section(precision, result.classes, names))
    worst = worst_pictures(errors)
    words = element(
        'p',
        f'By the scores of wrong boxes and the objects not found, of what scores {SHOWN_FROM} or more. '
        'Green: found, and right. Red: not found, and wrong. Orange: the right class at the wrong place.',
    )
    body = joined([words, cases.gallery(worst)]) if worst else element('p', 'No picture is wrong.')
    result.sections.append(Section('Most wrong', body))
    kept = errors.scores >= CALIBRATED_FROM
    answers = f'boxes that score {CALIBRATED_FROM} or more (right: IoU 0.5 with an object of the class)'
    result.sections.append(
        calibration_section(calibrate(errors.scores[kept], errors.right[kept]), answers=answers)
    )
    return result


def worst_pictures(errors: Errors, limit: int = WORST) -> list[int]:
    """Return the pictures with the most wrong boxes and objects not found."""
    worst = sorted(errors.weight, key=lambda index: (-errors.weight[index], index))
    return [index for index in worst if errors.weight[index] > 0][:limit]


def _scores(
    report: Mapping[str, Any], matches: Sequence[ClassMatches], errors: Errors, names: Sequence[str]
) -> tuple[list[Score], list[Score]]:
    pictures = report['images']
    count = len(names)
    ends = np.full((2, 2 + 2 * count), np.nan)
    if matches and report['objects']:
        ends = intervals(lambda weights: precisions(matches, weights), pictures, draws=draws_for(matches))
    scores = [
        Score('AP', report['AP'], *ends_of(ends, 0), report['objects']),
        Score('AP50', report['AP50'], *ends_of(ends, 1), report['objects']),
    ]
    scores += [Score(key, report[key]) for key in ('AP75', 'AP_small', 'AP_medium', 'AP_large', 'AR_100')]
    lost = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *errors.lost.values()]).astype(int), minlength=count
    )
    taken: dict[int, dict[int, int]] = {}
    for (true, other), times in sorted(errors.confused.items()):
        taken.setdefault(true, {})[other] = times
    classes = []
    for place, (title, entry) in enumerate(report['per_class'].items()):
        notes = [f'{lost[place]:,} not found'] if lost[place] else []
        if others := taken.get(place):
            most = max(others.values())
            tied = [names[other] for other, times in others.items() if times == most]
            notes.append(f'{most:,} {"each " if len(tied) > 1 else ""}taken for {listed(tied)}')
        note = ', '.join(notes)
        classes.append(Score(title, entry['AP50'], *ends_of(ends, 2 + count + place), entry['objects'], note))
    return scores, classes


def _weakest_section(weakest: Score, place: int, errors: Errors, cases: 'Cases') -> Section:
    interval = f' ({weakest.interval()})' if weakest.interval() else ''
    words = element(
        'p',
        element('strong', name(weakest.title)),
        f' has the lowest AP50, {weakest.value:.3f}{interval}. Its commonest trouble at scores of '
        f'{SHOWN_FROM} or more: ',
        element('strong', name(weakest.note or 'wrong boxes', limit=120)),
        f', of {weakest.count:,} objects.',
        '' if any(true == place for true, _ in errors.confused) else ' It is taken for no other class.',
    )
    times = {index: int((labels == place).sum()) for index, labels in errors.lost.items()}
    worst = sorted((index for index in times if times[index]), key=lambda index: (-times[index], index))
    return Section('Weakest class', joined([words, cases.gallery(worst[:EXAMPLES])]))


def _error_section(errors: Errors, cases: 'Cases') -> Section:
    most = max([*errors.costs.values(), 1e-9])
    rows = [
        (title, MEANINGS[title], *(f'{each:,}' for each in errors.counts[kind]), f'{errors.costs[kind]:.3f}',
         bar(errors.costs[kind] / most))
        for kind, title in KINDS.items()
    ]  # fmt: skip
    columns = ('kind', 'what it is', 'all', f'scoring {SHOWN_FROM} or more', 'AP50 it costs', ' ')
    words = element(
        'p',
        'What it costs is how much AP50 would rise if that kind alone were mended (TIDE, arXiv 2008.08115). '
        f'All counts every box however low its score; the other column those scoring {SHOWN_FROM} or more.',
    )
    parts = [words, table(columns, rows, words=('what it is', ' '))]
    if errors.confused:
        pairs = sorted(errors.confused.items(), key=lambda each: (-each[1], each[0]))[:20]
        names = cases.annotations.class_names
        lines = [(name(names[true]), name(names[other]), f'{times:,}') for (true, other), times in pairs]
        columns = ('true class', 'taken for', 'boxes')
        parts.append(table(columns, lines, words=['taken for'], caption='the commonest confusions'))
    return Section('Kinds of error', joined(parts))


def _curve_section(precision: np.ndarray, classes: Sequence[Score], names: Sequence[str]) -> Section:
    recall = np.linspace(0, 1, precision.shape[1]).tolist()
    present = precision[0, 0] >= 0
    whole = precision[:, :, present].mean(axis=2) if present.any() else np.zeros(precision.shape[:2])
    means = [Curve(f'IoU {0.5 + 0.05 * place:.2f}', recall, whole[place].tolist()) for place in (0, 5, 9)]
    weak = [names.index(each.title) for each in classes if each.value is not None][:8]
    single = [Curve(names[place], recall, precision[0, :, place].tolist()) for place in weak]
    unit = (0.0, 1.0)
    few = 'each class' if len(single) == int(present.sum()) else 'the weakest classes'
    return Section(
        'Precision and recall',
        element(
            'div',
            plot('precision over recall, all classes', means, x_label='recall', x_range=unit, y_range=unit),
            plot(
                f'precision over recall at IoU 0.5, {few}',
                single,
                x_label='recall',
                x_range=unit,
                y_range=unit,
            ),
            class_='plots',
        ),
    )


class Cases:
    """Pictures with their objects and the boxes found."""

    def __init__(self, annotations: Annotations, found: Found, dataset: VisionDataset | None) -> None:
        self.annotations, self.found, self.dataset = annotations, found, dataset
        self.titles = [shown(each, limit=TITLE_LIMIT) for each in annotations.class_names]

    def gallery(self, pictures: Sequence[int]) -> Html:
        """Return some pictures."""
        if self.dataset is None:
            return element('p', 'The pictures are not at hand.', class_='quiet')
        return gallery([case(*self.seen(index), wide=True) for index in pictures], wide=True)

    def seen(self, index: int) -> tuple[str, str, list[tuple[str, Image.Image]]]:
        """Return a picture's caption, path and views."""
        dataset = self.dataset
        assert dataset is not None
        objects = self.annotations.objects(index)
        truth, truth_labels = self.annotations.boxes[objects], self.annotations.labels[objects]
        crowd = self.annotations.crowd[objects]
        boxes, scores, labels = self.found[index]
        keep = np.flatnonzero(scores >= SHOWN_FROM)
        keep = keep[np.argsort(-scores[keep], kind='stable')]
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        verdicts = judge(boxes, labels, truth, truth_labels, crowd)
        caption = _caption(verdicts, crowd)
        image = picture_again(dataset, index)
        if image is None:
            return f'{caption} (the file can no longer be read)', dataset.paths[index], []
        picture = small(image, side=WIDE_SIDE)
        scale = picture.width / image.shape[1]
        names = self.titles
        titles = [
            names[label] + (' (crowd)' if many else '')
            for label, many in zip(truth_labels, crowd, strict=True)
        ]
        colours = np.where(verdicts.found | crowd, GREEN, RED)
        left = draw_boxes(picture, truth * scale, titles, colours, font_size=TITLE)
        titles = [
            f'{names[label]} {score:.2f}' + (f' {KINDS[int(kind)]}' if int(kind) in KINDS else '')
            for label, score, kind in zip(labels, scores, verdicts.kinds, strict=True)
        ]
        good = np.isin(verdicts.kinds, (RIGHT, IGNORED))
        colours = np.where(good, GREEN, np.where(verdicts.kinds == PLACE, ORANGE, RED))
        few = slice(MOST_BOXES)
        right = draw_boxes(picture, boxes[few] * scale, titles[few], colours[few], font_size=TITLE)
        title = (
            'answer' if len(boxes) <= MOST_BOXES else f'answer, the {MOST_BOXES} best of {len(boxes)} boxes'
        )
        return caption, dataset.paths[index], [('truth', left), (title, right)]


def _caption(verdicts: Verdicts, crowd: np.ndarray) -> str:
    parts = [f'{int(verdicts.found.sum())} of {int((~crowd).sum())} objects found']
    for kind, words in CAPTIONS.items():
        if times := int((verdicts.kinds == kind).sum()):
            parts.append(f'{times} {"box" if times == 1 else "boxes"} {words}')
    return ', '.join(parts)
