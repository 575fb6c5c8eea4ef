"""The one road from a picture to its answer, whatever computes the network in between.

picture -> transforms -> uint8 batch -> network -> outputs -> head.predict -> one typed result a picture

Prediction, validation and evaluation all take it. The network is any callable: a `VisionModel`, several
scales of one, an exported program in another engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.base import Head
from tasks.data.augment import Augment
from tasks.data.folders import find_images
from tasks.data.images import read_image
from tasks.data.samples import SampleInfo
from tasks.errors import UserError
from tasks.task import Task

Picture = str | Path | np.ndarray
# RGB uint8 (B, 3, H, W) -> what the head's `forward` returns.
Network = Callable[[Tensor], Any]


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
    ) -> list[Any]:
        """Return one typed result for each image of a batch.

        Args:
            images: RGB uint8 (B, 3, H, W), as the transforms made them.
            infos: path, original size and content of each; a path of '' is an array's.
            pictures: the originals, kept in the results.
            network: computes these outputs instead of the predictor's own.
        """
        if len(images) == 0:
            return []
        outputs = in_float32((network or self.network)(images))
        # Decoding is cheap and wants the full range of float32.
        with torch.autocast(device_of(outputs).type, enabled=False):
            answers = self.head.predict(
                outputs,
                [info.size for info in infos],
                input_size=(images.shape[2], images.shape[3]),
                content_sizes=[info.content for info in infos],
            )
        kept = pictures or [None] * len(infos)
        return [
            self.task.result(**answer, class_names=self.classes, image=picture, path=info.path or None)
            for answer, info, picture in zip(answers, infos, kept, strict=True)
        ]

    def predict(self, inputs: Any, *, batch_size: int = 16) -> Any:
        """Answer for one picture or many.

        Args:
            inputs: a path, an RGB uint8 (H, W, 3) array, a folder, or a list of paths and arrays.
            batch_size: pictures run through the network at a time.

        Returns:
            One result for one picture, a list for a list or folder (in sorted order). Each result keeps its
            picture for `draw()`.

        Raises:
            UserError: a file is missing or no picture, or a folder holds none.
        """
        if isinstance(inputs, (str, Path)) and Path(inputs).is_dir():
            inputs = find_images([inputs])
        elif isinstance(inputs, (str, Path, np.ndarray)) or not isinstance(inputs, Sequence):
            return next(self.predict_each([inputs]))
        return list(self.predict_each(inputs, batch_size=batch_size))

    def predict_each(self, pictures: Sequence[Picture], *, batch_size: int = 1) -> Iterator[Any]:
        """Yield one result per picture, reading `batch_size` of them at a time; see `predict`."""
        for start in range(0, len(pictures), batch_size):
            yield from self._predict_batch(pictures[start : start + batch_size])

    def to_input(self, image: np.ndarray) -> np.ndarray:
        """Turn an RGB uint8 (H, W, 3) picture into the network's input, RGB uint8 (h, w, 3)."""
        return self.transforms(epoch=0, index=0, image=image)['image']

    def _predict_batch(self, pictures: Sequence[Picture]) -> list[Any]:
        originals = [to_image(picture) for picture in pictures]
        inputs = [self.to_input(original) for original in originals]
        infos = [
            SampleInfo(
                index=index,
                path='' if isinstance(picture, np.ndarray) else str(picture),
                size=(original.shape[0], original.shape[1]),
                content=self.transforms.content_size(original.shape[0], original.shape[1]),
            )
            for index, (picture, original) in enumerate(zip(pictures, originals, strict=True))
        ]
        # Inputs of one size share a batch; transforms that keep sizes give batches of one.
        alike = len({each.shape for each in inputs}) == 1
        groups = [slice(None)] if alike else [slice(place, place + 1) for place in range(len(inputs))]
        results = []
        for group in groups:
            images = torch.from_numpy(np.stack(inputs[group])).permute(0, 3, 1, 2)
            results += self.answer(images, infos[group], pictures=originals[group])
        return results


def in_float32(outputs: Any) -> Any:
    """Return a tensor, or a nest of them, in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, Mapping):
        return {key: in_float32(value) for key, value in outputs.items()}
    return type(outputs)(in_float32(value) for value in outputs)


def device_of(outputs: Any) -> torch.device:
    """Return where the first tensor of a nest of them is."""
    if isinstance(outputs, Tensor):
        return outputs.device
    return device_of(next(iter(outputs.values() if isinstance(outputs, Mapping) else outputs)))


def to_image(picture: Picture) -> np.ndarray:
    """Read a user's own picture, turned as its EXIF says, or check an array."""
    if isinstance(picture, (str, Path)):
        return read_image(picture)
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f'a picture must be a path or an RGB uint8 array, got {type(picture).__name__} (of a PIL image: '
            "np.asarray(image.convert('RGB')))"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise UserError(
            f'a picture must be RGB uint8 (height, width, 3), got {picture.dtype} {picture.shape}'
        )
    return picture
