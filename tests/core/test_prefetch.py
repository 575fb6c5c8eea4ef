"""Work ahead keeps its order and its bounds, and ends wherever it is let go of."""

import itertools
import sys
import threading
import time
from typing import Any

import pytest

from falconet.core.prefetch import ahead


def test_answers_come_in_order_and_few_wait() -> None:
    begun: list[int] = []

    def call(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    def numbers() -> Any:
        for number in range(30):
            begun.append(number)
            yield number

    for done, (number, future) in enumerate(ahead(call, numbers(), threads=3)):
        assert (number, future.result()) == (done, done * done)
        assert len(begun) - done <= 3 + 2
    assert len(begun) == 30


def test_what_was_begun_is_yielded_before_a_failure() -> None:
    def numbers() -> Any:
        yield from range(3)
        raise OSError('no more')

    work = ahead(str, numbers())
    assert [(number, future.result()) for number, future in itertools.islice(work, 3)] == [
        (0, '0'),
        (1, '1'),
        (2, '2'),
    ]
    with pytest.raises(OSError, match='no more'):
        next(work)


def test_an_unfinished_one_may_be_let_go_of_by_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the garbage collector does; an exception there would be nobody's."""
    held: dict[str, Any] = {}
    go, gone, lost = threading.Event(), threading.Event(), []
    monkeypatch.setattr(sys, 'unraisablehook', lost.append)

    def call(number: int) -> None:
        if number == 1:
            go.wait(20)
            held.clear()
            gone.set()

    held['work'] = ahead(call, range(9), threads=1, waiting=2)
    next(held['work'])[1].result()
    go.set()
    assert gone.wait(20)
    assert lost == []
