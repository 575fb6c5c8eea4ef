"""Work done by a few threads beside the main one, in order and with a bounded number of things waiting.

Decoding and encoding pictures happens in C without Python's lock, so threads are enough: they read the next
pictures while the network computes, and write the last ones.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

THREADS = 4  # more decode faster than any network here computes

Item = TypeVar('Item')


def ahead(
    call: Callable[[Item], Any], items: Iterable[Item], *, threads: int = THREADS, waiting: int | None = None
) -> Generator[tuple[Item, Future], None, None]:
    """Yield (item, future of `call(item)`) in the order of the items.

    Items are taken in the caller's thread. When taking one raises, what was begun before is yielded first.

    Args:
        call: run by another thread; an exception of its is raised by the future's `result()`.
        items: what to call it with, which may be endless.
        threads: how many there are. With one, calls do not overlap and keep their order.
        waiting: how many items are begun before the first is yielded; by default two more than threads.
    """
    waiting = waiting or threads + 2
    pending: deque[tuple[Item, Future]] = deque()
    stop: BaseException | None = None
    iterator = iter(items)
    own: set[int] = set()  # its threads
    pool = ThreadPoolExecutor(
        threads, thread_name_prefix='falconet', initializer=lambda: own.add(threading.get_ident())
    )
    try:
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                break
            except BaseException as error:
                stop = error
                break
            pending.append((item, pool.submit(call, item)))
            del item
            if len(pending) >= waiting:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
        if stop is not None:
            raise stop
    finally:
        # Whoever lets go of an unfinished one last may be a thread of its own, which cannot wait for itself.
        pool.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)
