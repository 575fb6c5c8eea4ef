"""A picture of a data set once more, for a report: by then it may be gone."""

import numpy as np

from falconet.datasets.dataset import VisionDataset
from falconet.datasets.images.images import ImageError


def picture_again(dataset: VisionDataset, index: int) -> np.ndarray | None:
    """Return picture number `index`, RGB uint8 (H, W, 3); None where it can no longer be read."""
    try:
        return dataset.read(index).image
    except ImageError:
        return None
