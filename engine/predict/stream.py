"""Answers for a stream of pictures, in order, while others are read, drawn and written.

Cores that share a network of this size wait for each other at every layer. On a CPU several pictures, each
computed by few threads, are through sooner than one after another by all threads; and drawing one takes no
core away that a layer of another waits for. Frames of a video go in small batches, too: a layer of a few
pictures takes less of the core than each by itself. On a GPU batches are all there is.
"""

import copy
import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from falconet.core.errors import UserError
from falconet.core.prefetch import ahead
from falconet.tasks.model import VisionModel
from falconet.tasks.tiles import tile_places

CPU = torch.device('cpu')
AT_A_TIME = 4  # pictures or batches on a CPU: with their copies they are what fills the memory
FEW = 4  # pictures in a batch on a CPU; more are hardly faster
BATCH_PIXELS = FEW * 320 * 320  # of the network's input in such a batch: a map of a first layer takes 40 MB
DRAWING = 2  # threads beside a GPU

Key = TypeVar('Key')
Done = TypeVar('Done')


def check_options(model: VisionModel, *, score_threshold: float | None, tiles: int | None) -> None:
    """Raise UserError for options that the model's task does not have, before anything is written."""
    if score_threshold is not None and not hasattr(model.task.result, 'above'):
        raise UserError(f'--score-threshold is for detection; this checkpoint is for {model.task.name}')
    if tiles is not None:
        if not hasattr(model.task.result, 'from_tiles'):
            raise UserError(f'tiles are for detection and segmentation; this model is for {model.task.name}')
        tile_places(1, 1, tiles)


def answers(
    model: VisionModel,
    pictures: Iterable[tuple[Key, np.ndarray]],
    finish: Callable[[Key, np.ndarray, Any], Done],
    *,
    batch_size: int = 1,
    small_batches: bool = False,
    **options: Any,
) -> Generator[tuple[Key, 'Future[Done]'], None, None]:
    """Yield (key, future of what `finish` returned), in the order of the pictures.

    Args:
        model: what predicts; an exported program of `deploy.engines`, too.
        pictures: (anything, RGB uint8 (H, W, 3)), taken in the caller's thread, a few before their turn.
        finish: (key, picture, result) -> anything, called by several threads at once.
        batch_size: pictures in a batch on a GPU.
        small_batches: take batches on a CPU, too, of few: for pictures of one size that can wait for each
            other.
        options: of `tasks.predictor.Predictor.predict_each`.
    """
    if getattr(model, 'device', CPU).type != 'cpu':
        found = _in_batches(model, pictures, batch_size=batch_size, **options)
        with closing(ahead(lambda each: finish(*each), found, threads=DRAWING)) as done:
            for (key, *_), future in done:
                yield key, future
        return

    network, together = model.predictor.network, min(FEW, batch_size) if small_batches else 1
    before = torch.get_num_threads()
    workers, each = min(before, AT_A_TIME), max(1, before // AT_A_TIME)
    if network != getattr(model, 'infer', None):  # an engine: it has threads of its own
        network, workers, each = _one_by_one(network), max(2, workers), before
    at_hand = threading.local()

    def answer(batch: Sequence[tuple[Key, np.ndarray]]) -> list[Any]:
        if not hasattr(at_hand, 'predictor'):
            # With transforms of its own, whose state no other thread changes.
            at_hand.predictor = copy.copy(model.predictor)
            vars(at_hand.predictor).pop('transforms', None)
            at_hand.predictor.network = network
        images = [image for _, image in batch]
        return list(at_hand.predictor.predict_each(images, batch_size=len(images), **options))

    def work(batch: Sequence[tuple[Key, np.ndarray]]) -> 'list[Future[Done]]':
        try:
            results = answer(batch)
        except Exception as error:  # said of each of them, by the one who asks for it
            return [_future(_raise, error) for _ in batch]
        return [_future(finish, *picture, result) for picture, result in zip(batch, results, strict=True)]

    torch.set_num_threads(each)
    try:
        with closing(ahead(work, _small_batches(model, pictures, together), threads=workers)) as done:
            for batch, future in done:
                for (key, _), outcome in zip(batch, future.result(), strict=True):
                    yield key, outcome
    finally:
        torch.set_num_threads(before)


def _small_batches(
    model: VisionModel, pictures: Iterable[tuple[Key, np.ndarray]], most: int
) -> Iterator[list[tuple[Key, np.ndarray]]]:
    """Yield pictures by the few, at most as many as `BATCH_PIXELS` lets in."""
    pictures, known = iter(pictures), most == 1
    for first in pictures:
        if not known:
            height, width = model.to_input(first[1]).shape[:2]
            most, known = max(1, min(most, BATCH_PIXELS // (height * width))), True
        yield [first, *itertools.islice(pictures, most - 1)]


def _future(call: Callable[..., Done], *arguments: Any) -> 'Future[Done]':
    """Return a future that is done: with what a call returned or raised."""
    future: Future[Done] = Future()
    try:
        future.set_result(call(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def _raise(error: Exception) -> Any:
    raise error


def _in_batches(
    model: VisionModel, pictures: Iterable[tuple[Key, np.ndarray]], **options: Any
) -> Iterator[tuple[Key, np.ndarray, Any]]:
    """Yield (key, picture, result)."""
    both, images = itertools.tee(pictures)  # apart by a batch at most
    results = model.predict_each((image for _, image in images), **options)
    for (key, image), result in zip(both, results, strict=True):
        yield key, image, result


def _one_by_one(network: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Return an engine that threads may share: one call at a time, and none spoils another's outputs."""
    lock = threading.Lock()

    def compute(images: Tensor) -> Any:
        with lock:
            return _copied(network(images))

    return compute


def _copied(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.clone()
    if isinstance(outputs, Mapping):
        return {key: _copied(value) for key, value in outputs.items()}
    return type(outputs)(_copied(value) for value in outputs)
