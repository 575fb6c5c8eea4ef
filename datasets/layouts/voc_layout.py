"""VOC's XML, one file a picture: in Annotations/ with lists (VOC, CVAT), or beside the pictures (Roboflow).

Annotations/*.xml, JPEGImages/, ImageSets/Main/train.txt     VOC, CVAT (one list, default.txt)
Annotations/*.xml, images/                                   Label Studio
labels/*.xml, data/                                          FiftyOne
train/*.xml, pictures beside them; valid/, test/             Roboflow
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from falconet.core.errors import listing
from falconet.datasets.annotations import Annotations, Problems
from falconet.datasets.formats.voc import read_voc
from falconet.datasets.layouts.base import Layout, sorted_splits
from falconet.datasets.layouts.file_tree import Tree, names_in, split_of_place
from falconet.datasets.packed_strings import PackedStrings


def recognise(tree: Tree, *, classes: Sequence[str] | None = None, **_: Any) -> Layout | None:
    """Return the layout if there are XML files of VOC's kind."""
    candidates = tree.ending('.xml')
    certain = [file for file in candidates if _looks_like_voc(tree, file)]
    if not certain:
        return None
    folders = sorted({PurePosixPath(file).parent.as_posix() for file in certain})
    # Beside them a broken one is named rather than passed over.
    files = [file for file in candidates if PurePosixPath(file).parent.as_posix() in folders]
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(split_of_place(file), []).append(file)
    seen = f'VOC XML: {len(files)} files in {listing(folders, 4)}'
    missing: list[str] = []
    if set(found) == {''} and len(folders) == 1:
        lists = (PurePosixPath(folders[0]).parent / 'ImageSets' / 'Main').as_posix()
        if named := _from_lists(tree, lists, files):
            found, missing = named
            seen = f'{seen}, lists in {lists}'
            if missing:
                seen += f'; left out {len(missing)} pictures of the lists without XML: {listing(missing)}'
    splits = sorted_splits(found)
    everything = [file for each in splits.values() for file in each]
    names = list(classes or ())

    def read(chosen: list[str], problems: Problems) -> Annotations:
        if not names:  # of all splits, so that every one has the same
            paths = [tree.path(file) for file in everything]
            names.extend(read_voc(paths, tree.root, classes=None, problems=Problems()).class_names)
        found = read_voc([tree.path(file) for file in chosen], Path(), classes=names, problems=problems)
        paths = []
        for path, file in zip(found.paths, chosen, strict=True):
            place = tree.picture(path, near=file)
            paths.append(str(tree.path(file).parent / path if place is None else tree.path(place)))
        return replace(found, paths=PackedStrings(paths))

    def unnamed() -> list[str]:
        stems = {PurePosixPath(file).stem for file in files}
        pictures = [file for file in tree.images if PurePosixPath(file).stem in stems]
        stems |= set(missing)  # which `seen` names
        return [file for file in tree.beside(set(pictures)) if PurePosixPath(file).stem not in stems]

    return Layout('voc', seen, splits, read, unnamed)


def _from_lists(tree: Tree, folder: str, files: list[str]) -> tuple[dict[str, list[str]], list[str]] | None:
    """Return the files by split as the lists of ImageSets/Main say, and the names that have none.

    None where there are no lists to learn from.
    """
    by_stem = {PurePosixPath(file).stem: file for file in files}
    found: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    bare: list[str] = []
    for split in ('train', 'val', 'test'):
        if f'{folder}/{split}.txt' not in tree.files:
            continue
        names = [PurePosixPath(name).name for name in names_in(tree, f'{folder}/{split}.txt')]
        if twice := [name for name in names if name in owner]:
            tree.refuse(
                'pictures_in_two_splits',
                [f'{name}: {owner[name]} and {split}' for name in twice],
                f'{tree.path(folder)}: {len(twice)} pictures are in {owner[twice[0]]}.txt and in '
                f'{split}.txt: {listing(twice)}. What is learnt must not be scored: take them out of one '
                'list',
            )
        names = [name for name in names if name not in owner]
        owner |= dict.fromkeys(names, split)
        found[split] = [by_stem[name] for name in names if name in by_stem]
        bare += [name for name in names if name not in by_stem]
    return (found, bare) if 'train' in found else None


def _looks_like_voc(tree: Tree, file: str) -> bool:
    try:
        with tree.path(file).open('rb') as opened:
            return b'<annotation' in opened.read(400)
    except OSError:
        return False
