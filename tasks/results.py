"""The picture that a result is drawn on: given, kept, or read again from its file."""

import numpy as np

from falconet.datasets.images.images import read_image


def picture_to_draw(given: np.ndarray | None, kept: np.ndarray | None, path: str | None) -> np.ndarray:
    """Return RGB uint8 (H, W, 3): the first of the three that there is.

    Results of many files keep the path only, or a folder would have to fit into memory.

    Raises:
        ValueError: there is none.
        ImageError: the file is no longer there, or no picture.
    """
    if given is not None:
        return given
    if kept is not None:
        return kept
    if path is None:
        raise ValueError('this result kept no picture: pass one, result.draw(image)')
    return read_image(path)


def class_indices(names: object, known: tuple[str, ...]) -> list[int]:
    """Return the indices of classes given as a name, an index, or several of them.

    Raises:
        ValueError: a name or index that is not among `known`.
    """
    several = names if isinstance(names, (list, tuple, set, frozenset)) else [names]
    found = []
    for each in several:
        if isinstance(each, str) and each in known:
            found.append(known.index(each))
        elif isinstance(each, (int, np.integer)) and 0 <= each < len(known):
            found.append(int(each))
        else:
            raise ValueError(f'there is no class {each!r}; there are {", ".join(known[:20])}')
    return found
