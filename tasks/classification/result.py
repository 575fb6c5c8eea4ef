"""The answer to one image: a score per class, and a picture of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from falconet.report.drawing import captioned
from falconet.tasks.results import class_indices, picture_to_draw


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """What a classifier says of one image.

    Attributes:
        scores: probability of each class, float32 (num_classes,), adding up to 1.
        label: index of the highest score.
        class_names: names by index.
        image: the picture, RGB uint8 (H, W, 3); None where it was not kept.
        path: the file it came from; None for an array.
    """

    scores: np.ndarray
    label: int
    class_names: tuple[str, ...] = field(repr=False)
    image: np.ndarray | None = field(default=None, repr=False)
    path: str | None = None

    @property
    def class_name(self) -> str:
        """Name of the predicted class."""
        return self.class_names[self.label]

    @property
    def score(self) -> float:
        """Probability of the predicted class."""
        return float(self.scores[self.label])

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` best (class name, probability), best first."""
        order = np.argsort(-self.scores, kind='stable')[:k]
        return [(self.class_names[i], float(self.scores[i])) for i in order]

    def __getitem__(self, name: str) -> float:
        """Return the probability of a class, by its name or index."""
        return float(self.scores[class_indices(name, self.class_names)[0]])

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per class, best first: `label`, `class_name`, `score`."""
        import pandas  # pyright: ignore[reportMissingImports]

        order = np.argsort(-self.scores, kind='stable')
        names = [self.class_names[index] for index in order]
        return pandas.DataFrame({'label': order, 'class_name': names, 'score': self.scores[order]})

    @classmethod
    def from_frame(cls, frame: Any, **kept: Any) -> 'ClassificationResult':
        """Return the result of a frame as `to_frame` makes it; `kept` are `image` and `path`."""
        rows = frame.sort_values('label')
        scores = rows['score'].to_numpy(np.float32)
        return cls(scores, int(scores.argmax()), tuple(rows['class_name']), **kept)

    def to_torchvision(self) -> dict[str, Any]:
        """Return a dict of tensors: `scores` float32 (num_classes,) and `label`, int64 of no dimension."""
        import torch

        return {'scores': torch.from_numpy(self.scores.copy()), 'label': torch.tensor(self.label)}

    @classmethod
    def from_torchvision(cls, answer: Any, class_names: Sequence[str], **kept: Any) -> 'ClassificationResult':
        """Return the result of such a dict."""
        scores = answer['scores'].detach().cpu().numpy().astype(np.float32)
        return cls(scores, int(scores.argmax()), tuple(class_names), **kept)

    def to_supervision(self) -> Any:
        """Return `supervision.Classifications`, best first."""
        import supervision  # pyright: ignore[reportMissingImports]

        order = np.argsort(-self.scores, kind='stable')
        return supervision.Classifications(class_id=order, confidence=self.scores[order])

    @classmethod
    def from_supervision(cls, answer: Any, class_names: Sequence[str], **kept: Any) -> 'ClassificationResult':
        """Return the result of `supervision.Classifications`; classes that are not in it have score 0."""
        scores = np.zeros(len(class_names), np.float32)
        scores[answer.class_id] = answer.confidence
        return cls(scores, int(scores.argmax()), tuple(class_names), **kept)

    def title(self) -> str:
        """Return one line for a caption: the class and its score."""
        return f'{self.class_name} {self.score:.2f}'

    def summary(self) -> dict[str, Any]:
        """Return what predictions.json holds of this image."""
        return {
            'path': self.path,
            'label': self.label,
            'class_name': self.class_name,
            'score': round(self.score, 6),
            'top5': [[name, round(score, 6)] for name, score in self.top(5)],
        }

    def draw(self, image: np.ndarray | None = None, *, font_size: int | None = None) -> Image.Image:
        """Return the picture with class and score written below it.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result, or that at its path.
            font_size: of the caption in pixels; by default 1/24 of the width.

        Raises:
            ValueError: the result kept no picture and none was given.
        """
        image = picture_to_draw(image, self.image, self.path)
        return captioned(Image.fromarray(image), self.title(), font_size=font_size)
