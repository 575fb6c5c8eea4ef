"""Folder-per-class data sets: any user's folders, Kaggle's Intel scenes, ImageNet."""

import importlib.util
import os
import runpy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError, listing
from falconet.datasets.classes import counted, match_classes
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.files import (
    IGNORED_NAMES,
    check_names,
    existing_folder,
    existing_root,
    list_images,
    part_of,
)
from falconet.report.text import shown


@DATASETS.register_module()
class ImageFolder(VisionDataset):
    """Images sorted into one folder per class: `<root>/<split>/<class>/**/*.jpg`.

    Classes are the folders' names in sorted order, or `classes`: then every one of them must have a
    folder, and there must be no other, so that training and test data are matched by name and never by
    position. Folders may be nested once more, as in Kaggle's `seg_train/seg_train/<class>`.

    Args:
        root: folder of the data set.
        split: folder inside `root`; '' when the class folders lie in `root` itself.
        classes: class names in the model's order; None takes the folders' names.
        holdout: set aside this share of every class for testing, where the data has no split of its
            own. Which files is decided by their names, so that adding files moves no other file.
        training: use the part that is not set aside (True), or the part that is (False); and replace
            unreadable files rather than leave them out.
        augment, strict, seed, exif: as in `datasets.dataset.VisionDataset`.

    Attributes:
        labels: class index of every image, int64 (N,).
        ignored: files that are no images by their ending.

    Raises:
        UserError: a folder is missing, a class is empty, or the classes differ from `classes`.
    """

    reducible = True

    def __init__(
        self,
        root: str,
        split: str = '',
        *,
        classes: Sequence[str] | None = None,
        holdout: float = 0.0,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
    ) -> None:
        folder = find_split(Path(root), split)
        folders = class_folders(folder)
        hint = 'Every class needs a folder, and there must be no other.'
        names = match_classes(sorted(folders), classes, source=folder, ordered=False, hint=hint)
        self._collect(folder, {name: folders[name] for name in names}, holdout, training)
        super().__init__(
            self._found, names, augment=augment, training=training, strict=strict, seed=seed, exif=exif
        )

    def _collect(self, folder: Path, folders: Mapping[str, Path], holdout: float, training: bool) -> None:
        labels: list[int] = []
        self._found: list[str] = []
        self.ignored: list[str] = []
        for label, (name, class_folder) in enumerate(folders.items()):
            files, others = list_images(class_folder)
            self.ignored += others
            files = part_of(files, folder, holdout=holdout, training=training)
            if not files:
                raise UserError(
                    f'class {name!r} has no images: looked for files with an image ending '
                    f'(.jpg, .png, ...) below {class_folder}, found {len(others)} other files'
                    + (f' (holdout={holdout})' if holdout else '')
                )
            self._found += files
            labels += [label] * len(files)
        self.labels = np.array(labels, dtype=np.int64)

    def target(self, index: int) -> dict[str, Any]:
        return {'label': int(self.labels[index])}

    def to_target(self, augmented: Mapping[str, Any]) -> int:
        return augmented['label']

    def __str__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.classes))
        text = f'{len(self):,} images in {len(self.classes)} classes{counted(self.classes, counts)}'
        if self.ignored:
            names = listing((shown(Path(file).name) for file in self.ignored), 3)
            text += f'; {len(self.ignored)} files that are no images by their ending left aside ({names})'
        return text


@DATASETS.register_module()
class ImageNet(ImageFolder):
    """ImageNet-1k in its official layout: `<root>/<split>/<wnid>/*.JPEG`, always 1000 classes.

    The index of a class is the rank of its wnid among the 1000, as in every published weight file. A
    split may lack folders, so that a subset can be scored with a 1000-class model.

    Args:
        root, split, classes, training, augment, strict, seed, exif: as in `ImageFolder`. `classes`, when
            given, must be the 1000 names in order.
    """

    def __init__(
        self,
        root: str,
        split: str = 'val',
        *,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
    ) -> None:
        wnids, names = imagenet_classes()
        hint = "Labels are positions in ImageNet's official order."
        match_classes(names, classes, source='ImageNet', hint=hint)
        folder = find_split(Path(root), split)
        folders = class_folders(folder)
        if unknown := sorted(set(folders) - set(wnids)):
            raise UserError(
                f'{folder}: {len(unknown)} folders are no ImageNet-1k wnid, for example {unknown[0]!r}. '
                "For other classes use type='ImageFolder'."
            )
        self._collect(folder, folders, holdout=0.0, training=training)
        index_of = {wnid: index for index, wnid in enumerate(wnids)}
        self.labels = np.array([index_of[wnid] for wnid in folders], dtype=np.int64)[self.labels]
        VisionDataset.__init__(
            self, self._found, names, augment=augment, training=training, strict=strict, seed=seed, exif=exif
        )

    def __str__(self) -> str:
        present = len(np.unique(self.labels))
        return f'{len(self):,} images of {present} of the 1000 ImageNet classes'


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the 1000 wnids in sorted order, and a unique English name for each.

    wnids come from timm, names from torchvision; the two names that occur twice (crane, maillot)
    get their wnid appended. Both are read from the libraries' files: to import these takes seconds.
    """
    wnids = tuple(_file_of('timm', 'data/_info/imagenet_synsets.txt').read_text('utf-8').split())
    names = runpy.run_path(str(_file_of('torchvision', 'models/_meta.py')))['_IMAGENET_CATEGORIES']
    counts = Counter(names)
    unique = (
        name if counts[name] == 1 else f'{name} ({wnid})' for name, wnid in zip(names, wnids, strict=True)
    )
    return wnids, tuple(unique)


def _file_of(package: str, file: str) -> Path:
    """Return a file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'No module named {package!r}', name=package)
    return Path(spec.origin).parent / file


def find_split(root: Path, split: str) -> Path:
    """Return the folder that holds the class folders, or raise UserError saying what was looked for."""
    folder = existing_folder(existing_root(root), split)
    # Kaggle's archives repeat the folder's name: seg_train/seg_train/<class>.
    nested = folder / folder.name
    return nested if split and nested.is_dir() else folder


def class_folders(folder: Path) -> dict[str, Path]:
    """Return the class folders by name, sorted."""
    with os.scandir(folder) as entries:
        folders = {
            entry.name: Path(entry.path)
            for entry in sorted(entries, key=lambda entry: entry.name)
            if entry.is_dir() and not entry.name.startswith('.') and entry.name not in IGNORED_NAMES
        }
    check_names(folders, folder)
    if not folders:
        raise UserError(
            f'{folder} has no class folders: looked for {folder}/<class>/<image>, one folder per class'
        )
    return folders
