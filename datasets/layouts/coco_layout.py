"""COCO's JSON wherever it lies: one file, or one a split. Roboflow, CVAT, Label Studio and FiftyOne.

annotations/instances_train.json and images/ or train/    CVAT, COCO itself
train/_annotations.coco.json, pictures beside it          Roboflow
result.json, images/                                      Label Studio
labels.json, data/                                        FiftyOne
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from falconet.datasets.annotations import Problems
from falconet.datasets.formats.coco import CocoObjects, parent_category, read_coco_file, read_objects
from falconet.datasets.layouts.base import Layout, one_each, sorted_splits
from falconet.datasets.layouts.file_tree import Tree, split_of, split_of_place

# Of COCO's own annotations those without boxes, or for other tasks.
OTHERS = ('person_keypoints', 'captions', 'panoptic', 'stuff', 'image_info')


def recognise(
    tree: Tree, *, outlines: bool = False, classes: Sequence[str] | None = None, **_: Any
) -> Layout | None:
    """Return the layout if some JSON files look like COCO's.

    A category that only names the group of the others, and that no object of any split is of, is no class:
    Roboflow's exports begin with one. It stays where `classes`, those of a model, have it.
    """
    found: dict[str, list[str]] = {}
    for file in tree.ending('.json'):
        name = PurePosixPath(file).name
        if not name.startswith(OTHERS) and _looks_like_coco(tree, file):
            found.setdefault(split_of(name) or split_of_place(file), []).append(file)
    if not found:
        return None
    splits = sorted_splits(one_each(found, root=tree.root, what="files in COCO's format"))

    named: dict[str, set[str]] = {}
    parents = _Parents([tree.path(file) for file in splits.values()], keep=classes or ())

    def read(file: str, problems: Problems) -> CocoObjects:
        folder = tree.path(file).parent
        objects = read_objects(
            [tree.path(file)],
            [folder],
            categories=None,
            problems=problems,
            outlines=outlines,
            parent=parents,
        )
        images, used = [], named.setdefault(file, set())
        for image in objects.images:
            name = PurePosixPath(image.path).relative_to(PurePosixPath(str(folder)).as_posix()).as_posix()
            place = tree.picture(name, near=file)
            used.update([] if place is None else [place])
            images.append(image if place is None else image._replace(path=str(tree.path(place))))
        return replace(objects, images=images)

    def unnamed() -> list[str]:
        for file in (file for files in found.values() for file in files if file not in named):
            content = read_coco_file(tree.path(file))
            places = (tree.picture(str(each.get('file_name', '')), near=file) for each in content['images'])
            named[file] = {place for place in places if place is not None}
        return tree.beside(set().union(*named.values()))

    seen = f'COCO JSON: {", ".join(splits.values())}'
    return Layout('coco', seen, splits, read, unnamed, lambda: parents.left_out)


class _Parents:
    """Finds the category that is none: the parent of all others, in every file of a folder.

    Args:
        files: of all splits.
        keep: names that are classes all the same.

    Attributes:
        left_out: names found so far.
    """

    def __init__(self, files: Sequence[Path], *, keep: Sequence[str]) -> None:
        self.files, self.keep = files, keep
        self.left_out: list[str] = []

    def __call__(self, content: dict[str, Any]) -> dict[str, Any] | None:
        """Return its entry in the content of one of the files; None if there is no such category."""
        entry = parent_category(content)
        if entry is None:
            return None
        name = entry['name']
        # Where a class has its parent's name, which Roboflow allows, the model's class is that one.
        twice = [each.get('name') for each in content['categories']].count(name) > 1
        if name in self.keep and not twice:
            return None
        if name not in self.left_out:
            found = (parent_category(read_coco_file(file)) for file in self.files)
            if not all(each is not None and each['name'] == name for each in found):
                return None
            self.left_out.append(name)
        return entry


def _looks_like_coco(tree: Tree, file: str) -> bool:
    try:
        data = tree.path(file).read_bytes()
    except OSError:
        return False
    return all(key in data for key in (b'"images"', b'"annotations"', b'"categories"'))
