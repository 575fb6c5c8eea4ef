"""Folder-per-class data sets: any user's folders, Kaggle's Intel scenes, ImageNet."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from tasks.data.dataset import VisionDataset
from tasks.data.folders import IGNORED_NAMES, existing_root, is_held_out, list_images
from tasks.errors import UserError
from tasks.registry import closest


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
        augment, strict, seed: as in `tasks.data.dataset.VisionDataset`.

    Attributes:
        labels: class index of every image, int64 (N,).
        ignored: files that are no images by their ending.

    Raises:
        UserError: a folder is missing, a class is empty, or the classes differ from `classes`.
    """

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
    ) -> None:
        folder = find_split(Path(root), split)
        folders = class_folders(folder)
        names = match_classes(sorted(folders), classes, folder=folder)
        self._collect(folder, {name: folders[name] for name in names}, holdout, training)
        super().__init__(self._found, names, augment=augment, training=training, strict=strict, seed=seed)

    def _collect(self, folder: Path, folders: Mapping[str, Path], holdout: float, training: bool) -> None:
        labels: list[int] = []
        self._found: list[str] = []
        self.ignored: list[str] = []
        for label, (name, class_folder) in enumerate(folders.items()):
            files, others = list_images(class_folder)
            self.ignored += others
            if holdout:
                files = [file for file in files if training != is_held_out(file, folder, holdout)]
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
        counts = Counter(self.labels.tolist())
        text = f'{len(self):,} images in {len(self.classes)} classes'
        if len(self.classes) <= 20:
            text += ': ' + ', '.join(f'{name} {counts[i]}' for i, name in enumerate(self.classes))
        if self.ignored:
            text += (
                f'; {len(self.ignored)} files that are no images by their ending left aside '
                f'({", ".join(Path(file).name for file in self.ignored[:3])}'
                f'{", ..." if len(self.ignored) > 3 else ""})'
            )
        return text


@DATASETS.register_module()
class ImageNet(ImageFolder):
    """ImageNet-1k in its official layout: `<root>/<split>/<wnid>/*.JPEG`, always 1000 classes.

    The index of a class is the rank of its wnid among the 1000, as in every published weight file. A
    split may lack folders, so that a subset can be scored with a 1000-class model.

    Args:
        root, split, classes, training, augment, strict, seed: as in `ImageFolder`. `classes`, when given,
            must be the 1000 names in order.
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
    ) -> None:
        wnids, names = imagenet_classes()
        if classes is not None and tuple(classes) != names:
            raise UserError(
                f'the model knows {len(classes)} classes ({", ".join(list(classes)[:3])}, ...), '
                'not the 1000 of ImageNet in their official order'
            )
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
            self, self._found, names, augment=augment, training=training, strict=strict, seed=seed
        )

    def __str__(self) -> str:
        present = len(np.unique(self.labels))
        return f'{len(self):,} images of {present} of the 1000 ImageNet classes'


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the 1000 wnids in sorted order, and a unique English name for each.

    wnids come from timm, names from torchvision; the two names that occur twice (crane, maillot)
    get their wnid appended.
    """
    from timm.data.imagenet_info import ImageNetInfo
    from torchvision.models import MobileNet_V2_Weights

    wnids = tuple(ImageNetInfo('imagenet-1k').label_names())
    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta['categories']
    counts = Counter(names)
    unique = (
        name if counts[name] == 1 else f'{name} ({wnid})' for name, wnid in zip(names, wnids, strict=True)
    )
    return wnids, tuple(unique)


def find_split(root: Path, split: str) -> Path:
    """Return the folder that holds the class folders, or raise UserError saying what was looked for."""
    folder = existing_root(root) / split
    if not folder.is_dir():
        inside = sorted(each.name for each in root.iterdir() if each.is_dir())
        raise UserError(f'{folder} does not exist. {root} holds {inside or "no folders"}.')
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
    if not folders:
        raise UserError(
            f'{folder} has no class folders: looked for {folder}/<class>/<image>, one folder per class'
        )
    return folders


def match_classes(found: Sequence[str], expected: Sequence[str] | None, *, folder: Path) -> tuple[str, ...]:
    """Return the class names in the model's order; both sides must have the same names."""
    if expected is None:
        return tuple(found)
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        lines = [f'{folder}: classes differ from those the model is trained on.']
        if missing:
            lines.append(f'No folder for {", ".join(missing)}.')
        if extra:
            hints = ' '.join(closest(name, missing or expected) for name in extra[:3])
            lines.append(f'Unknown folders {", ".join(extra)}. {hints}')
        raise UserError(' '.join(lines))
    return tuple(expected)
