"""How a data set's pictures are read on their way to a sample: whole or reduced, from files or a cache."""

from collections.abc import Mapping
from typing import Any, Protocol

from falconet.datasets.images.cache import PictureCache, open_cache
from falconet.datasets.images.images import Photograph, Reduce


class Pictures(Protocol):
    """What is asked of a data set; see `datasets.dataset.VisionDataset`."""

    augment: Any

    @property
    def reducible(self) -> bool: ...

    def read(self, index: int, /, *, reduce: Reduce | None = None) -> Photograph: ...

    def identity(self, index: int, /) -> tuple[Any, ...]: ...


class Reading:
    """Reads picture number `index` of a data set.

    Args:
        reduced: decode large JPEGs no larger than the data set's transforms need; see
            `datasets.transforms.jpeg_draft`.
        cache: keeps what was decoded. It changes no result.
    """

    def __init__(self, *, reduced: bool = False, cache: PictureCache | None = None) -> None:
        self.reduced = reduced
        self.cache = cache

    def __call__(self, dataset: Pictures, index: int) -> Photograph:
        """Return the picture; ImageError when it is of no use."""
        reduce = dataset.augment.reduction if self.reduced and dataset.reducible else None
        if self.cache is None:
            return dataset.read(index, reduce=reduce)
        key = dataset.identity(index)
        photograph = self.cache.get(key, reduce)
        if photograph is None:
            photograph = dataset.read(index, reduce=reduce)
            self.cache.put(key, photograph, reduce)
        return photograph


def reading_of(loader: Mapping[str, Any], *, training: bool) -> Reading:
    """Return what a dataloader's `decode` and `cache` ask for.

    'auto' reduces in training only: scores stay what they are.

    Raises:
        UserError: the cache cannot be opened.
    """
    decode, cache = loader.get('decode', 'auto'), loader.get('cache')
    return Reading(
        reduced=decode == 'reduced' or (decode == 'auto' and training),
        cache=open_cache(**cache) if cache else None,
    )
