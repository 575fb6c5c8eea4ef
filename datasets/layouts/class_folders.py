"""Pictures in a folder a class, with or without train, val and test above: what most tools export."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from falconet.core.errors import listing
from falconet.datasets.annotations import Problems
from falconet.datasets.files import check_names
from falconet.datasets.layouts.base import Layout, one_each, sorted_splits
from falconet.datasets.layouts.file_tree import Tree, split_of
from falconet.datasets.layouts.tables import LabelledFiles


def recognise(tree: Tree, *, classes: Sequence[str] | None = None, **_: Any) -> Layout | None:
    """Return the layout if there are two folders of pictures or more, or splits of such."""
    base = _unwrapped(tree, '')
    inside = _folders(tree, base)
    named: dict[str, list[str]] = {}
    for folder in inside:
        if split_of(folder) and len(_folders(tree, _unwrapped(tree, f'{base}{folder}/'))) > 0:
            named.setdefault(split_of(folder), []).append(f'{base}{folder}/')
    found = one_each(named, root=tree.root, what='folders') if 'train' in named else {}
    places = {split: _unwrapped(tree, each) for split, each in found.items()} or {'': base}
    places = sorted_splits({key: value or '/' for key, value in places.items()})
    of_split = {split: _by_class(tree, '' if each == '/' else each) for split, each in places.items()}
    # Where there is a split to score beside it, test is looked at only when it is asked for.
    used = {key: each for key, each in of_split.items() if key != 'test' or 'val' not in of_split}
    names = sorted({name for each in used.values() for name in each})
    if not found and (len(names) < 2 or all(split_of(name) for name in names)):
        return None
    check_names(names, tree.root)
    for split, by_class in used.items():
        if missing := [name for name in names if name not in by_class]:
            where = tree.root / places[split].strip('/')
            tree.refuse(
                'class_in_one_split',
                [f'{name}: no folder in {split}' for name in missing],
                f'{where}: class {missing[0]!r} has no pictures there, other splits do '
                f'({listing(names, 10)}). Every class needs a folder in every split, spelt alike',
            )
    ordered = tuple(names) if classes is None or sorted(classes) != names else tuple(classes)

    def read(by_class: dict[str, list[str]], problems: Problems) -> LabelledFiles:
        if strangers := sorted(set(by_class) - set(ordered)):
            tree.refuse(
                'class_in_one_split',
                [f'{name}: none of the classes of training' for name in strangers],
                f'{tree.root}: class {strangers[0]!r} is none of {listing(ordered, 10)}',
            )
        pairs = [(str(tree.path(file)), name) for name in ordered for file in by_class.get(name, ())]
        return LabelledFiles([file for file, _ in pairs], [name for _, name in pairs], ordered)

    return Layout('folders', f'a folder a class: {listing(names, 8)}', of_split, read)


def _folders(tree: Tree, base: str) -> list[str]:
    """Return the folders directly below one that have pictures somewhere in them."""
    below = (file[len(base) :] for file in tree.images if file.startswith(base))
    return sorted({file.split('/')[0] for file in below if '/' in file})


def _unwrapped(tree: Tree, base: str) -> str:
    """Step into folders that hold one folder and no picture, as archives repeat their name."""
    while True:
        folders = _folders(tree, base)
        direct = any('/' not in file[len(base) :] for file in tree.images if file.startswith(base))
        if len(folders) != 1 or direct or not _folders(tree, f'{base}{folders[0]}/'):
            return base
        base = f'{base}{folders[0]}/'


def _by_class(tree: Tree, base: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in tree.images:
        parts = PurePosixPath(file[len(base) :]).parts if file.startswith(base) else ()
        if len(parts) > 1:
            found.setdefault(parts[0], []).append(file)
    return found
