"""Many strings in one buffer, which loading processes share."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np


class PackedStrings(Sequence[str]):
    """A sequence of strings in one buffer.

    Worker processes share it as it is. A list of a million strings would be copied into every one of
    them bit by bit, because reading a Python object writes its reference count.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode('utf-8', 'surrogateescape') for string in strings]
        self._ends = np.cumsum([0, *(len(each) for each in encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b''.join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        piece = self._bytes[self._ends[index] : self._ends[index + 1]]
        return piece.tobytes().decode('utf-8', 'surrogateescape')

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
