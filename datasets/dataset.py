"""What the data sets of all tasks share, unreadable files above all.

A file that cannot be read is named and passed over, or fatal with `strict`: a training sample is replaced
by the next readable one (the same one in every run), an evaluation sample is left out and counted.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from falconet.core.errors import UserError
from falconet.datasets.images.images import (
    EXIF_MODES,
    ImageError,
    Photograph,
    Reduce,
    decode_photograph,
    read_bytes,
)
from falconet.datasets.images.reading import Reading
from falconet.datasets.packed_strings import PackedStrings
from falconet.datasets.samples import Sample, SampleInfo, SampleKey, Skipped
from falconet.datasets.transforms.augment import Augment, fill_left_open


@dataclass(frozen=True)
class Others:
    """The other samples of a data set, for transforms that make one of several.

    Attributes:
        count: of all samples.
        load: number -> `image` and what belongs to it, as `VisionDataset.target` names it. Only called by
            transforms that do something, so that no file is read for nothing.
    """

    count: int
    load: Callable[[int], dict[str, Any]]


class VisionDataset(ABC):
    """A data set of images with targets, indexed by `SampleKey` or a plain number.

    Args:
        paths: the image files, in a stable order.
        classes: class names, in the order of their indices.
        augment: config entries of the transforms; see `datasets.transforms.augment.Augment`.
        training: replace an unreadable sample (True) or leave it out (False).
        strict: read everything now, and fail listing every unreadable file.
        seed: seed of the run.
        exif: 'auto', 'apply' or 'ignore'; see `datasets.images.images.read_photograph`.
        compose: further arguments of `albumentations.Compose`.

    Attributes:
        reading: how samples are read; the loader sets it.
        reducible: whether what belongs to a picture stays right when that is read at a smaller size. Not so
            for pixels of the picture's own size.
        combinable: whether transforms may make one sample of several: boxes add up, one class a picture
            does not.
    """

    reducible: bool = False
    combinable: bool = False

    def __init__(
        self,
        paths: Iterable[str],
        classes: Sequence[str],
        *,
        augment: Sequence[Mapping[str, Any]] = (),
        training: bool = False,
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
        compose: Mapping[str, Any] | None = None,
    ) -> None:
        self.paths = PackedStrings(paths)
        self.classes = tuple(classes)
        self.training = training
        if exif not in EXIF_MODES:
            raise UserError(f'exif must be one of {EXIF_MODES}, got {exif!r}')
        self.exif = exif
        self.reading = Reading()
        self._augment = (augment, {'seed': seed, **(compose or {})})
        self.fill_with(None)
        if strict:
            self._read_everything()

    def fill_with(self, pixel: tuple[int, ...] | None) -> None:
        """Have transforms fill with the model's mean pixel what they add, where the config leaves it open."""
        entries, options = self._augment
        self.augment = Augment(entries if pixel is None else fill_left_open(entries, pixel), **options)
        if self.augment.combines and not (self.combinable and self.training):
            raise UserError(
                'transforms that make one sample of several, as Mosaic does, are for training on boxes'
            )

    @property
    def metainfo(self) -> dict[str, Any]:
        """What mmengine hands to metrics."""
        return {'classes': list(self.classes)}

    @abstractmethod
    def target(self, index: int) -> dict[str, Any]:
        """Return what belongs to image `index`, by albumentations' names (`mask`, `bboxes`), plus extras."""

    @abstractmethod
    def to_target(self, augmented: Mapping[str, Any]) -> Any:
        """Turn augmented targets into a `Sample`'s target."""

    def size(self, index: int) -> tuple[int, int] | None:
        """Return the (height, width) that image `index` has by its annotations, where they say one."""
        return None

    def read(self, index: int, *, reduce: Reduce | None = None) -> Photograph:
        """Read image `index`; raise ImageError when it is of no use."""
        return decode_photograph(
            self.content(index),
            path=self.paths[index],
            exif=self.exif,
            size=self.size(index),
            reduce=reduce,
        )

    def content(self, index: int) -> np.ndarray:
        """Return the bytes of image `index` as it is stored, uint8 (N,)."""
        return read_bytes(self.paths[index])

    def identity(self, index: int) -> tuple[Any, ...]:
        """Return what image `index` as read is known by: ends with its file, and that one's size and time."""
        path = self.paths[index]
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise ImageError(path, f'cannot be read ({reason})') from error
        return (self.exif, self.size(index), os.path.abspath(path), status.st_size, status.st_mtime_ns)

    def close(self) -> None:
        """Give back the memory of a cache that ends with a run; nothing is read after that."""
        if self.reading.cache is not None:
            self.reading.cache.close()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: SampleKey | int) -> Sample | Skipped:
        key = SampleKey(*key) if isinstance(key, tuple) else SampleKey(key, 0)
        skipped: list[Skipped] = []
        # Bounded, so that a folder gone missing does not walk a million files.
        for step in range(min(len(self), 100)):
            place = (key.sample + step) % len(self)
            try:
                return self._load(key._replace(sample=place), tuple(skipped))
            except ImageError as error:
                skipped.append(Skipped(str(error.path), error.reason))
                if not self.training:
                    return skipped[0]
        raise UserError(
            f'{len(skipped)} files in a row cannot be read, from {skipped[0].path} ({skipped[0].reason}) to '
            f'{skipped[-1].path}. Is the data folder still there?'
        )

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[Sample | Skipped | UserError]:
        """Return the samples of a batch, or a user's error among them (torch's loader calls this).

        Raised in a loading process, it would come back with that process's traceback in its message.
        """
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return [error]

    def _load(self, key: SampleKey, skipped: tuple[Skipped, ...]) -> Sample:
        index, epoch, copy, side = key
        photograph = self.reading(self, index)
        passed_over = list(skipped)
        targets = {'image': photograph.image, **self.target(index)}
        if self.augment.combines:
            targets['others'] = Others(len(self), lambda number: self._load_other(number, passed_over))
        augmented = self.augment(epoch=epoch, index=index, copy=copy, side=side, **targets)
        content = None if self.training else self.augment.content_size(*photograph.image.shape[:2])
        info = SampleInfo(
            index=index,
            path=self.paths[index],
            size=photograph.size,
            content=content,
            turned=photograph.turned,
        )
        return Sample(augmented['image'], self.to_target(augmented), info, tuple(passed_over))

    def _load_other(self, index: int, skipped: list[Skipped]) -> dict[str, Any]:
        """Return sample `index`, or the next that can be read, as it is before the transforms."""
        for step in range(min(len(self), 100)):
            place = (index + step) % len(self)
            try:
                return {'image': self.reading(self, place).image, **self.target(place)}
            except ImageError as error:
                skipped.append(Skipped(str(error.path), error.reason))
        raise UserError(f'{len(skipped)} files in a row cannot be read, from {skipped[0].path}')

    def _read_everything(self) -> None:
        def problem(index: int) -> str | None:
            try:
                self.read(index)
            except ImageError as error:
                return str(error)
            return None

        from rich.progress import track

        with ThreadPoolExecutor() as pool:
            found = track(
                pool.map(problem, range(len(self))), 'reading every image (strict)', len(self), transient=True
            )
            problems = [each for each in found if each]
        if problems:
            raise UserError(
                f'strict: {len(problems)} of {len(self)} images cannot be read:\n  ' + '\n  '.join(problems)
            )


def picture_again(dataset: VisionDataset, index: int) -> np.ndarray | None:
    """Return picture number `index`, RGB uint8 (H, W, 3); None where it can no longer be read."""
    try:
        return dataset.read(index).image
    except ImageError:
        return None
