"""How far a prediction is: a bar on a terminal, a line every few seconds in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

EVERY = 10.0  # seconds between the lines of a log

Item = TypeVar('Item')


def progress(items: Iterable[Item], total: int | None, *, what: str) -> Iterator[Item]:
    """Yield the items, saying how many are done, how fast and how long the rest takes.

    Args:
        items: what is done when the next is asked for.
        total: how many there are, if that is known.
        what: what they are: 'pictures'.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, what, total=total, transient=True, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= EVERY:
            last, speed = now, done / (now - start)
            rest = f' of {total}, {(total - done) / speed:.0f} s left' if total else ''
            print(f'{what}: {done}{rest}, {speed:.1f} a second', file=sys.stderr, flush=True)
        yield item
