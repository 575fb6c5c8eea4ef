"""Pictures of a stream: in their order, a few at a time, with the threads given back."""

import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from falconet.engine.predict.stream import AT_A_TIME, answers
from falconet.tasks.model import VisionModel


@pytest.fixture
def model() -> VisionModel:
    return VisionModel(
        {'type': 'MobileNetV2', 'width': 0.1, 'taps': ('stage2',)},
        {'type': 'LinearHead'},
        classes=('dark', 'light'),
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
    ).eval()


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield 5
    torch.set_num_threads(before)


def test_answers_keep_their_order_and_few_pictures_wait(model: VisionModel, threads: int) -> None:
    taken, finished = [], []

    def pictures() -> Iterator[tuple[int, np.ndarray]]:
        for number in range(40):
            taken.append(number)
            yield number, np.full((20, 30, 3), 6 * number, np.uint8)

    def finish(number: int, image: np.ndarray, result: Any) -> tuple[int, np.ndarray]:
        time.sleep(random.random() / 200)
        return number, result.scores

    for number, future in answers(model, pictures(), finish):
        assert torch.get_num_threads() == 1
        finished.append(future.result())
        assert finished[-1][0] == number
        assert len(taken) - len(finished) <= AT_A_TIME + 2
    assert [number for number, _ in finished] == list(range(40))
    alone = [model.predict(np.full((20, 30, 3), 6 * number, np.uint8)).scores for number in range(40)]
    np.testing.assert_allclose([scores for _, scores in finished], alone, atol=1e-5)
    assert torch.get_num_threads() == threads


def test_frames_go_in_small_batches_and_each_has_its_own_end(
    model: VisionModel, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    sizes: list[int] = []
    forward = model.forward

    def watched(images: torch.Tensor, **options: Any) -> Any:
        sizes.append(len(images))
        return forward(images, **options)

    monkeypatch.setattr(model, 'forward', watched)

    def finish(number: int, image: np.ndarray, result: Any) -> np.ndarray:
        if number == 5:
            raise OSError('no room')
        return result.scores

    pictures = [(number, np.full((20, 30, 3), 12 * number, np.uint8)) for number in range(19)]
    found = dict(answers(model, pictures, finish, batch_size=4, small_batches=True))
    assert list(found) == list(range(19))
    assert sorted(sizes) == [3, 4, 4, 4, 4]
    with pytest.raises(OSError, match='no room'):
        found.pop(5).result()
    for number, future in found.items():
        np.testing.assert_allclose(future.result(), model.predict(pictures[number][1]).scores, atol=1e-5)
    sizes.clear()
    monkeypatch.setattr('falconet.engine.predict.stream.BATCH_PIXELS', 2 * 32 * 32)
    assert len(dict(answers(model, pictures, finish, batch_size=4, small_batches=True))) == 19
    assert max(sizes) == 2


def test_the_threads_come_back_when_a_picture_fails(model: VisionModel, threads: int) -> None:
    def finish(number: int, image: np.ndarray, result: Any) -> None:
        raise OSError('no room')

    found = answers(model, ((number, np.zeros((8, 8, 3), np.uint8)) for number in range(9)), finish)
    with pytest.raises(OSError, match='no room'):
        next(found)[1].result()
    found.close()
    assert torch.get_num_threads() == threads


def test_an_engine_is_called_by_one_thread_at_a_time(
    model: VisionModel, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """And may write each answer over the last one."""
    inside: list[int] = []
    memory = torch.zeros(1, 2)

    def engine(images: torch.Tensor) -> torch.Tensor:
        assert not inside
        inside.append(1)
        memory[:] = images.float().mean()
        memory[0, 1] = 0
        time.sleep(0.001)
        inside.clear()
        return memory

    monkeypatch.setattr(model.predictor, 'network', engine)
    pictures = ((number, np.full((20, 30, 3), 12 * number, np.uint8)) for number in range(20))
    found = answers(model, pictures, lambda number, image, result: result.scores[0])
    scores = [future.result() for _, future in found]
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-12.0 * number)) for number in range(20)], atol=1e-5)


def test_a_network_on_a_gpu_gets_batches(model: VisionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def network(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return model(images)

    monkeypatch.setattr(VisionModel, 'device', torch.device('meta'))  # stands for one
    monkeypatch.setattr(model.predictor, 'network', network)
    pictures = ((number, np.full((20, 30, 3), 9 * number, np.uint8)) for number in range(20))
    found = answers(model, pictures, lambda number, *_: number, batch_size=8)
    assert [(number, future.result()) for number, future in found] == [(each, each) for each in range(20)]
    assert sizes == [8, 8, 4]


def test_an_engine_gets_frames_in_small_batches(model: VisionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It divides them among its threads."""
    sizes: list[int] = []

    def engine(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return model(images)

    monkeypatch.setattr(model.predictor, 'network', engine)
    pictures = [(number, np.full((20, 30, 3), 12 * number, np.uint8)) for number in range(10)]
    found = answers(model, pictures, lambda number, image, result: number, batch_size=8, small_batches=True)
    assert [future.result() for _, future in found] == list(range(10))
    assert sorted(sizes) == [2, 4, 4]
