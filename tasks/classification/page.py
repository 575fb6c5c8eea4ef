"""What a report says of a classifier: classes, confusions, and where it looked when it was most wrong."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from falconet.datasets.dataset import VisionDataset, picture_again
from falconet.report.evidence.calibration import calibrate
from falconet.report.evidence.intervals import ends_of, intervals
from falconet.report.page.calibration import calibration_section
from falconet.report.page.confusions import commonest, confusion_section, listed
from falconet.report.page.findings import Findings, Score, Section, class_section, weakest_first
from falconet.report.page.markup import Html, element, joined, name
from falconet.report.page.pictures import case, gallery, small
from falconet.tasks.classification.attention import laid_over, where_it_looked

WORST = 18  # pictures shown
EXAMPLES = 3  # of the weakest class


class Answers(NamedTuple):
    """One row a picture, in the data set's order: arrays (N,)."""

    picture: np.ndarray
    target: np.ndarray
    label: np.ndarray
    score: np.ndarray
    truth_score: np.ndarray  # what the true class got
    in_five: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each is right."""
        return self.target == self.label


def as_answers(rows: Sequence[np.ndarray]) -> Answers:
    """Return the rows that batches left, float64 (B, 6) each, sorted by picture."""
    whole = np.concatenate([np.zeros((0, 6)), *rows])
    whole = whole[np.argsort(whole[:, 0], kind='stable')]
    picture, target, label = whole[:, :3].T.astype(np.int64)
    return Answers(picture, target, label, whole[:, 3], whole[:, 4], whole[:, 5])


def findings(
    report: Mapping[str, Any], answers: Answers, dataset: VisionDataset | None, model: Any
) -> Findings:
    """Return what there is to say.

    Args:
        report: of the metric.
        answers: of every picture.
        dataset: to read pictures again; None leaves them out.
        model: to see where it looked; None leaves that out.
    """
    names = report['class_names']
    confusion = np.array(report['confusion_matrix'], dtype=np.int64).reshape(len(names), len(names))
    scores, classes = _scores(report, answers, confusion)
    found = Findings(scores, weakest_first(classes))
    if not len(answers.picture):
        found.notes.append('no picture could be looked at: there are no scores')
    elif not answers.right.any():
        found.notes.append('not one picture is right')
    if len(names) == 1:
        found.notes.append('there is one class only, so every answer is right')
    shown = Cases(answers, names, dataset, model)
    weakest = next((each for each in found.classes if each.value is not None and each.value < 1), None)
    if weakest is not None:
        found.sections.append(_weakest_section(weakest, confusion, names, shown))
    found.sections.append(
        class_section(found.classes, score='accuracy', count='pictures', note='most often taken for')
    )
    if len(names) > 1:
        found.sections.append(confusion_section(confusion, names, unit='pictures', by_share=False))
    found.sections.append(_worst_section(shown))
    found.sections.append(calibration_section(calibrate(answers.score, answers.right), answers='answers'))
    return found


def _scores(
    report: Mapping[str, Any], answers: Answers, confusion: np.ndarray
) -> tuple[list[Score], list[Score]]:
    names = report['class_names']
    count = len(names)

    def score(weights: np.ndarray) -> np.ndarray:
        total = np.bincount(answers.target, weights=weights, minlength=count)
        good = np.bincount(answers.target, weights=weights * answers.right, minlength=count)
        with np.errstate(invalid='ignore', divide='ignore'):
            each = good / total
            whole = [good.sum() / total.sum(), (weights * answers.in_five).sum() / total.sum()]
        present = total > 0
        return np.array([*whole, each[present].mean() if present.any() else np.nan, *each])

    ends = intervals(score, len(answers.picture))
    images = len(answers.picture)
    scores = [
        Score(key, report[key] if images else None, *ends_of(ends, place), images)
        for place, key in enumerate(('top1', 'top5', 'mean_class'))
        if key in report
    ]
    classes = []
    for place, (title, entry) in enumerate(report['per_class'].items()):
        others = listed([names[each] for each in commonest(confusion[place], place)])
        classes.append(Score(title, entry['accuracy'], *ends_of(ends, 3 + place), entry['images'], others))
    return scores, classes


def _weakest_section(weakest: Score, confusion: np.ndarray, names: Sequence[str], shown: 'Cases') -> Section:
    place = names.index(weakest.title)
    others = commonest(confusion[place], place)
    times, total = int(confusion[place, others[0]]), int(confusion[place].sum())
    words = element(
        'p', element('strong', name(weakest.title)), f' has the lowest accuracy, {weakest.value:.3f}'
        f'{f" ({weakest.interval()})" if weakest.interval() else ""}. It is most often taken for ',
        element('strong', name(listed([names[each] for each in others]), limit=120)),
        f': {times:,} of {total:,} pictures{" each" if len(others) > 1 else ""}.',
    )  # fmt: skip
    answers = shown.answers
    rows = np.flatnonzero((answers.target == place) & np.isin(answers.label, others))
    rows = rows[np.argsort(-answers.score[rows], kind='stable')][:EXAMPLES]
    return Section('Weakest class', joined([words, shown.gallery(rows)]))


def _worst_section(shown: 'Cases') -> Section:
    answers = shown.answers
    wrong, rows = ~answers.right, worst_rows(answers)
    if not len(rows):
        return Section('Most wrong', element('p', 'No picture is wrong.'))
    words = element(
        'p',
        f'{wrong.sum():,} of {len(answers.picture):,} pictures are wrong. Those it was surest of come first.',
    )
    return Section('Most wrong', joined([words, shown.gallery(rows)]))


def worst_rows(answers: Answers, limit: int = WORST) -> np.ndarray:
    """Return the rows that are wrong, those it was surest of first."""
    wrong = np.flatnonzero(~answers.right)
    return wrong[np.argsort(answers.truth_score[wrong] - answers.score[wrong], kind='stable')][:limit]


class Cases:
    """Pictures with their answers, and where the network looked."""

    def __init__(
        self, answers: Answers, names: Sequence[str], dataset: VisionDataset | None, model: Any
    ) -> None:
        self.answers, self.names, self.dataset, self.model = answers, names, dataset, model

    def gallery(self, rows: np.ndarray) -> Html:
        """Return the pictures of some rows."""
        if self.dataset is None:
            return element('p', 'The pictures are not at hand.', class_='quiet')
        return gallery([case(*self.seen(row)) for row in rows.tolist()])

    def seen(self, row: int) -> tuple[Html, str, list[tuple[str, Image.Image]]]:
        """Return a picture's caption, path and views."""
        answers, dataset = self.answers, self.dataset
        assert dataset is not None
        index, label, target = (int(each[row]) for each in (answers.picture, answers.label, answers.target))
        caption = joined([
            element('strong', name(self.names[target])), f' {answers.truth_score[row]:.2f}, taken for ',
            element('strong', name(self.names[label]), class_='bad'), f' {answers.score[row]:.2f}',
        ])  # fmt: skip
        image = picture_again(dataset, index)
        if image is None:
            return joined([caption, ' (the file can no longer be read)']), dataset.paths[index], []
        views = [('the picture', small(image))]
        if self.model is not None:
            seen = dataset.augment(epoch=0, index=index, image=image)['image']
            images = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))[None]
            heat = where_it_looked(self.model, images, torch.tensor([label]))[0]
            views.append(('where it looked', Image.fromarray(laid_over(seen, heat))))
        return caption, dataset.paths[index], views

    def plain(self, row: int) -> tuple[str, list[tuple[str, Image.Image]]]:
        """Return a picture's caption as plain text, and its views."""
        answers = self.answers
        true, taken = self.names[int(answers.target[row])], self.names[int(answers.label[row])]
        caption = f'{true} {answers.truth_score[row]:.2f}, taken for {taken} {answers.score[row]:.2f}'
        return caption, self.seen(row)[2]
