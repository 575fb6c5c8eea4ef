"""The answer to one image: a score per class, and a picture of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tasks.report.drawing import captioned


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

    def draw(self, image: np.ndarray | None = None) -> Image.Image:
        """Return the picture with class and score written below it.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result.

        Raises:
            ValueError: the result kept no picture and none was given.
        """
        image = self.image if image is None else image
        if image is None:
            raise ValueError('this result kept no picture: pass one, result.draw(image)')
        return captioned(Image.fromarray(image), self.title())
