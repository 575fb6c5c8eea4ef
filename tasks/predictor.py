"""The one road from a picture to its answer, whatever computes the network in between.

picture -> transforms -> uint8 batch -> network -> outputs -> head.predict -> one typed result a picture

Prediction, validation and evaluation all take it. The network is any callable: a `VisionModel`, several
scales of one, an exported program in another engine.
"""

import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falconet.core.errors import UserError
from falconet.core.nested import device_of, in_float32
from falconet.core.prefetch import ahead
from falconet.datasets.files import find_images
from falconet.datasets.images.images import ImageError, Picture, to_image
from falconet.datasets.samples import SampleInfo
from falconet.datasets.transforms.augment import Augment
from falconet.heads.base import Head
from falconet.tasks.task import Task
from falconet.tasks.tiles import tile_places

# RGB uint8 (B, 3, H, W) -> what the head's `forward` returns.
Network = Callable[[Tensor], Any]
RETURNED_FROM = 0.05  # score of the detections that are returned when nothing else is asked for
TILES_AT_A_TIME = 8


class Predictions(list):
    """The results of a folder, in sorted order.

    Attributes:
        skipped: the reason for each file that is no readable picture, by path.
    """

    def __init__(self, results: Iterable[Any], skipped: Mapping[str, str]) -> None:
        super().__init__(results)
        self.skipped = dict(skipped)


class Predictor:
    """Answers for pictures.

    Args:
        network: takes RGB uint8 (B, 3, H, W), returns the head's raw outputs on any device.
        head: what decodes them and places the answers.
        task: whose result class the answers become.
        classes: class names in the order of their indices.
        preprocess: config entries of the transforms that turn a picture into the network's input.

    Raises:
        UserError: the answers are places in the picture, and `preprocess` cannot be undone.
    """

    def __init__(
        self,
        network: Network,
        *,
        head: Head,
        task: Task,
        classes: Sequence[str],
        preprocess: Sequence[Mapping[str, Any]],
    ) -> None:
        self.network = network
        self.head, self.task = head, task
        self.classes, self.preprocess = tuple(classes), tuple(preprocess)
        if task.maps_back and preprocess:
            self.transforms.check_maps_back()

    @cached_property
    def transforms(self) -> Augment:
        """What turns a picture into the network's input."""
        return Augment(self.preprocess, where='preprocess')

    @torch.inference_mode()
    def answer(
        self,
        images: Tensor,
        infos: Sequence[SampleInfo],
        *,
        pictures: Sequence[np.ndarray | None] | None = None,
        network: Network | None = None,
        head: Head | None = None,
    ) -> list[Any]:
        """Return one typed result for each image of a batch.

        Args:
            images: RGB uint8 (B, 3, H, W), as the transforms made them.
            infos: path, original size and content of each; a path of '' is an array's.
            pictures: the originals, kept in the results.
            network: computes these outputs instead of the predictor's own.
            head: decodes them instead of the predictor's own.
        """
        if len(images) == 0:
            return []
        answers = self._said((head or self.head).predict, images, infos, network=network)
        kept = pictures or [None] * len(infos)
        return [
            self.task.result(**answer, class_names=self.classes, image=picture, path=info.path or None)
            for answer, info, picture in zip(answers, infos, kept, strict=True)
        ]

    def _said(
        self,
        call: Callable[..., list[Any]],
        images: Tensor,
        infos: Sequence[SampleInfo],
        *,
        network: Network | None = None,
    ) -> list[Any]:
        """Return what `call`, a method of the head, makes of the network's outputs: one a picture."""
        outputs = in_float32((network or self.network)(images))
        # Decoding is cheap and wants the full range of float32.
        with torch.autocast(device_of(outputs).type, enabled=False):
            return call(
                outputs,
                [info.size for info in infos],
                input_size=(images.shape[2], images.shape[3]),
                content_sizes=[info.content for info in infos],
            )

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int = 16,
        score_threshold: float | None = None,
        tiles: int | None = None,
    ) -> Any:
        """Answer for one picture or many.

        Args:
            inputs: a path, an RGB uint8 (H, W, 3) array, a folder, or a list of paths and arrays.
            batch_size: pictures run through the network at a time.
            score_threshold: leave out detections that score less, 0 to 1; by default 0.05, with 0 none. For
                tasks whose results know `above`.
            tiles: cut each picture into overlapping tiles, this many along its longer side, and join their
                answers. For pictures much larger than the network's input, and tasks whose results know
                `from_tiles`.

        Returns:
            One result for one picture, a list for a list or folder (in sorted order). The result of one
            picture, and that of an array, keeps it for `draw()`; others read their file again.
            Of a folder, files that are no readable pictures are left out with a warning that names each;
            the list's `skipped` has path -> reason. In a list of files each has its place, so there it is
            an error.

        Raises:
            UserError: a file is missing or no picture, a folder holds none that is readable, or the task
                has no such option.
        """
        options: dict[str, Any] = {'score_threshold': score_threshold, 'tiles': tiles}
        if isinstance(inputs, (str, Path)) and Path(inputs).is_dir():
            skipped: dict[str, str] = {}
            paths = find_images([inputs])
            found = list(self._each(paths, batch_size=batch_size, skipped=skipped, **options))
            if not found:
                raise UserError(f'none of the {len(paths)} files in {inputs} is a readable picture')
            return Predictions(found, skipped)
        if isinstance(inputs, (str, Path, np.ndarray)) or not isinstance(inputs, Sequence):
            (result,) = self._each([inputs], batch_size=1, keep=True, **options)
            return result
        return list(self._each(inputs, batch_size=batch_size, **options))

    def predict_each(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 1,
        score_threshold: float | None = None,
        tiles: int | None = None,
    ) -> Iterator[Any]:
        """Yield one result per picture, computing `batch_size` of them at a time; see `predict`."""
        return self._each(
            pictures, batch_size=batch_size, score_threshold=score_threshold, tiles=tiles, keep=True
        )

    def _each(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int,
        score_threshold: float | None,
        tiles: int | None,
        keep: bool = False,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Any]:
        """Yield results. `keep`: they hold pictures read from files; `skipped`: takes what cannot be read."""
        self._check_options(score_threshold, tiles, batch_size)
        threshold = RETURNED_FROM if score_threshold is None else score_threshold
        sifts = threshold > 0 and hasattr(self.task.result, 'above')
        read, head = self._read_all(pictures, skipped), sifting(self.head, threshold)
        while batch := list(itertools.islice(read, batch_size)):
            if tiles is None:
                results: Iterable[Any] = [
                    each
                    for images, infos, originals in self._batches(batch)
                    for each in self.answer(images, infos, pictures=originals, head=head)
                ]
            else:
                results = (
                    self._predict_tiles(picture, image, tiles=tiles, threshold=threshold)
                    for picture, image in batch
                )
            for (picture, _), result in zip(batch, results, strict=True):
                if not keep and not isinstance(picture, np.ndarray):
                    result = replace(result, image=None)
                yield result.above(threshold) if sifts else result

    def _check_options(self, score_threshold: float | None, tiles: int | None, batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
            raise UserError(f'batch_size must be a whole number of at least 1, got {batch_size!r}')
        if score_threshold is not None:
            if not hasattr(self.task.result, 'above'):
                raise UserError(f'a score threshold is for detection; this model is for {self.task.name}')
            is_number = isinstance(score_threshold, Real) and not isinstance(score_threshold, bool)
            if not (is_number and 0 <= score_threshold <= 1):
                raise UserError(f'score_threshold must lie in 0..1, got {score_threshold!r}')
        if tiles is not None:
            if not hasattr(self.task.result, 'from_tiles'):
                raise UserError(
                    f'tiles are for detection and segmentation; this model is for {self.task.name}'
                )
            tile_places(1, 1, tiles)  # a wrong number is said before anything is read

    def _read_all(
        self, pictures: Iterable[Picture], skipped: dict[str, str] | None
    ) -> Iterator[tuple[Picture, np.ndarray]]:
        """Yield each picture with its pixels; files are decoded by threads that run ahead."""
        several = isinstance(pictures, Sequence) and len(pictures) > 1
        if not (several and any(isinstance(each, (str, Path)) for each in pictures)):
            for picture in pictures:
                yield picture, to_image(picture)
            return
        for picture, image in ahead(to_image, pictures):
            try:
                yield picture, image.result()
            except (ImageError, MemoryError) as error:
                if skipped is None:
                    raise
                reason = getattr(error, 'reason', 'does not fit into memory')
                skipped[str(picture)] = reason
                warnings.warn(f'skipped {picture}: {reason}', stacklevel=2)

    @torch.inference_mode()
    def _predict_tiles(self, picture: Picture, image: np.ndarray, *, tiles: int, threshold: float) -> Any:
        result = self.task.result
        places = tile_places(image.shape[0], image.shape[1], tiles)
        score_maps = getattr(self.head, 'score_maps', None) if hasattr(result, 'from_score_maps') else None
        if result.tiles_with_whole and len(places) > 1:
            places.insert(0, (0, 0, image.shape[1], image.shape[0]))
        answers = []
        for start in range(0, len(places), TILES_AT_A_TIME):
            part = [
                np.ascontiguousarray(image[top:bottom, left:right])
                for left, top, right, bottom in places[start : start + TILES_AT_A_TIME]
            ]
            for images, infos, _ in self._batches([(each, each) for each in part]):
                answers += self._said(score_maps, images, infos) if score_maps else self.answer(images, infos)
        path = None if isinstance(picture, np.ndarray) else str(picture)
        kept = {'class_names': self.classes, 'image': image, 'path': path}
        if score_maps:
            return result.from_score_maps(answers, places, **kept)
        answers = [each.above(threshold) if hasattr(each, 'above') else each for each in answers]
        return result.from_tiles(answers, places, **kept)

    def to_input(self, image: np.ndarray) -> np.ndarray:
        """Turn an RGB uint8 (H, W, 3) picture into the network's input, RGB uint8 (h, w, 3)."""
        return self.transforms(epoch=0, index=0, image=image)['image']

    def _batches(
        self, pairs: Sequence[tuple[Picture, np.ndarray]]
    ) -> Iterator[tuple[Tensor, list[SampleInfo], list[np.ndarray]]]:
        """Yield the network's inputs, RGB uint8 (B, 3, h, w), what is known of each, and its picture."""
        originals = [image for _, image in pairs]
        inputs = [self.to_input(original) for original in originals]
        infos = [
            SampleInfo(
                index=index,
                path='' if isinstance(picture, np.ndarray) else str(picture),
                size=(original.shape[0], original.shape[1]),
                content=self.transforms.content_size(original.shape[0], original.shape[1]),
            )
            for index, (picture, original) in enumerate(pairs)
        ]
        # Inputs of one size share a batch; transforms that keep sizes give batches of one.
        alike = len({each.shape for each in inputs}) == 1
        groups = [slice(None)] if alike else [slice(place, place + 1) for place in range(len(inputs))]
        for group in groups:
            images = torch.from_numpy(np.stack(inputs[group])).permute(0, 3, 1, 2)
            yield images, infos[group], originals[group]


def sifting(head: Head, threshold: float) -> Head:
    """Return a head that leaves out boxes below a score early: they suppress none that scores more."""
    options = getattr(head, 'suppression', None)
    least = float(np.nextafter(np.float32(threshold), np.float32(-1)))  # what scores the threshold stays
    if not isinstance(options, Mapping) or options.get('score_threshold', least) >= least:
        return head
    copied: Any = copy.copy(head)  # with the same weights
    copied.suppression = {**options, 'score_threshold': least}
    return copied


class Predicts:
    """What a model shows of its `predictor`."""

    predictor: Predictor

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int = 16,
        score_threshold: float | None = None,
        tiles: int | None = None,
    ) -> Any:
        """Answer for one picture or many; see `tasks.predictor.Predictor.predict`."""
        return self.predictor.predict(
            inputs, batch_size=batch_size, score_threshold=score_threshold, tiles=tiles
        )

    def predict_each(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 1,
        score_threshold: float | None = None,
        tiles: int | None = None,
    ) -> Iterator[Any]:
        """Yield one result per picture, computing `batch_size` of them at a time; see `predict`."""
        return self.predictor.predict_each(
            pictures, batch_size=batch_size, score_threshold=score_threshold, tiles=tiles
        )

    def to_input(self, image: np.ndarray) -> np.ndarray:
        """Turn an RGB uint8 (H, W, 3) picture into the network's input, RGB uint8 (h, w, 3)."""
        return self.predictor.to_input(image)
