"""Images with label maps: PASCAL VOC in its official layout, and any user's pair of folders."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from tasks.data.dataset import VisionDataset
from tasks.data.folders import existing_root, is_held_out, list_images
from tasks.data.formats.masks import check_masks, read_mask
from tasks.data.packed import PackedStrings
from tasks.errors import UserError, listing

VOC_CLASSES = (
    'background',
    *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow'),
    *('diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train'),
    'tvmonitor',
)
CLASS_FILE = 'classes.txt'


class SegmentationDataset(VisionDataset):
    """Images with one label map each.

    A training sample's target is the augmented mask. An evaluation sample's is the mask as it was drawn, of
    the original image's size, whatever the transforms do to the image: scores are counted there.
    """

    @abstractmethod
    def read_mask(self, index: int) -> np.ndarray:
        """Return the label map of image `index`, uint8 (H, W) of the image's size."""

    @abstractmethod
    def class_weights(self) -> list[float]:
        """Return a loss weight for each class, from how often it occurs."""

    def target(self, index: int) -> dict[str, Any]:
        # albumentations moves a 'mask' with the image, and leaves alone what it does not know.
        return {'mask' if self.training else 'label_map': self.read_mask(index)}

    def to_target(self, augmented: Mapping[str, Any]) -> np.ndarray:
        return np.ascontiguousarray(augmented['mask' if self.training else 'label_map'])


class MaskFileDataset(SegmentationDataset):
    """Images whose label maps are files. All of them are read and checked at once, before anything runs.

    Args:
        pairs: (image file, mask file).
        classes: class names in the order of the masks' indices.
        augment, training, strict, seed: as in `tasks.data.dataset.VisionDataset`.

    Attributes:
        counts: what the masks hold.

    Raises:
        UserError: a mask is missing, unreadable, of another size, or holds unexpected values.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        classes: Sequence[str],
        *,
        augment: Sequence[Mapping[str, Any]],
        training: bool,
        strict: bool,
        seed: int,
    ) -> None:
        images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
        self.counts = check_masks(images, masks, classes)
        self.masks = PackedStrings(masks)
        super().__init__(images, classes, augment=augment, training=training, strict=strict, seed=seed)

    def read_mask(self, index: int) -> np.ndarray:
        return read_mask(self.masks[index])

    def class_weights(self) -> list[float]:
        return self.counts.balanced_weights()

    def __str__(self) -> str:
        text = f'{len(self):,} images with masks of {len(self.classes)} classes'
        if len(self.classes) <= 30:
            shown = zip(self.classes, self.counts.masks.tolist(), strict=True)
            text += ': ' + ', '.join(f'{name} {count}' for name, count in shown)
        if self.counts.empty:
            names = listing((Path(mask).name for mask in self.counts.empty), 3)
            text += f'; {len(self.counts.empty)} masks label nothing ({names})'
        return text


@DATASETS.register_module()
class VOCSegmentation(MaskFileDataset):
    """PASCAL VOC's official layout.

        <root>[/VOC2012]/JPEGImages/<name>.jpg
                        /SegmentationClass/<name>.png
                        /SegmentationClassAug/<name>.png         (split 'train_aug': VOC and SBD)
                        /ImageSets/Segmentation/<split>.txt

    The classes are VOC's 21, or the lines of `classes.txt` beside these folders.

    Args:
        root: folder that holds VOC2012, or that folder itself.
        split: 'train', 'val', 'trainval', 'train_aug', or any other list in ImageSets/Segmentation.
        classes: class names of the model; must be those of the data.
        augment, training, strict, seed: as in `tasks.data.dataset.VisionDataset`.

    Raises:
        UserError: a folder, list, image or mask is missing; see also `MaskFileDataset`.
    """

    def __init__(
        self,
        root: str,
        split: str = 'train',
        *,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        folder = existing_root(root)
        if (folder / 'VOC2012').is_dir():
            folder = folder / 'VOC2012'
        masks = folder / ('SegmentationClassAug' if is_augmented(split) else 'SegmentationClass')
        lists = folder / 'ImageSets' / 'Segmentation'
        for needed in (folder / 'JPEGImages', masks, lists):
            if not needed.is_dir():
                more = (
                    " (the masks of SBD, 10,582 with VOC's own)"
                    if needed == masks and is_augmented(split)
                    else ''
                )
                raise UserError(f'{needed} does not exist{more}; expected the layout of VOC2012')
        names = read_split(lists, split)
        images = [folder / 'JPEGImages' / f'{name}.jpg' for name in names]
        if absent := [path for path in images if not path.is_file()]:
            raise UserError(
                f'{lists / split}.txt names {len(absent)} images (of {len(images)}) that are not in '
                f'{folder / "JPEGImages"}: {listing(path.name for path in absent)}'
            )
        listed = folder / CLASS_FILE
        super().__init__(
            [(str(image), str(masks / f'{image.stem}.png')) for image in images],
            match_names(read_names(listed) if listed.is_file() else VOC_CLASSES, classes, source=folder),
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
        )


@DATASETS.register_module()
class MaskFolder(MaskFileDataset):
    """Your own pair of folders: pictures in one, masks of the same names in the other, and a class list.

        <root>/<images>/**/<name>.jpg    <root>/<masks>/**/<name>.png    <root>/classes.txt

    `classes.txt` holds one class name a line, in the order of the masks' indices: the first line is index 0.

    Args:
        root: folder of the data.
        images, masks: folders inside `root`.
        class_file: the class list inside `root`.
        holdout: set aside this share of the pictures for testing, where the data has no split of its own.
            Which ones is decided by their names, so that adding files moves no other file.
        classes: class names of the model; must be those of the data.
        training: use the part that is not set aside (True), or the part that is (False).
        augment, strict, seed: as in `tasks.data.dataset.VisionDataset`.

    Raises:
        UserError: a folder or the class list is missing, or a picture has no mask; see also
            `MaskFileDataset`.
    """

    def __init__(
        self,
        root: str,
        images: str = 'images',
        masks: str = 'masks',
        *,
        class_file: str = CLASS_FILE,
        holdout: float = 0.0,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        base = existing_root(root)
        for folder in (base / images, base / masks):
            if not folder.is_dir():
                inside = sorted(each.name for each in base.iterdir() if each.is_dir())
                raise UserError(f'{folder} does not exist. {base} holds {inside or "no folders"}.')
        if not (base / class_file).is_file():
            raise UserError(
                f'{base / class_file} does not exist. Write one class name a line, in the order of the '
                "masks' indices; the first line is index 0."
            )
        names = read_names(base / class_file)
        mask_of = by_stem(base / masks)
        files = list_images(base / images)[0]
        pairs = [(file, mask_of.get(stem_below(file, base / images))) for file in files]
        if missing := [file for file, mask in pairs if mask is None]:
            raise UserError(
                f'{len(missing)} of {len(files)} pictures in {base / images} have no mask of the same name '
                f'in {base / masks}: {listing(Path(file).name for file in missing)}'
            )
        kept = [
            (file, mask)
            for file, mask in pairs
            if mask is not None and (not holdout or training != is_held_out(file, base / images, holdout))
        ]
        if not kept:
            raise UserError(
                f'no pictures (.jpg, .png, ...) in {base / images}'
                + (f' (holdout={holdout})' if holdout else '')
            )
        super().__init__(
            kept,
            match_names(names, classes, source=base),
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
        )


def is_augmented(split: str) -> bool:
    """Whether a split needs the masks of SBD: 'train_aug', and the spellings 'trainaug' and 'aug'."""
    return split.replace('_', '') in ('trainaug', 'aug')


def read_split(folder: Path, split: str) -> list[str]:
    """Return the names of a split: one a line, or as some lists of train_aug have them, '/<image> /<mask>'.

    Raises:
        UserError: there is no such list, or it is empty or names an image twice.
    """
    spellings = [split, 'trainaug', 'train_aug', 'aug'] if is_augmented(split) else [split]
    path = next((folder / f'{name}.txt' for name in spellings if (folder / f'{name}.txt').is_file()), None)
    if path is None:
        known = sorted(each.stem for each in folder.glob('*.txt'))
        hint = (
            ' Write it: the names of all masks in SegmentationClassAug that are not in val.txt.'
            if is_augmented(split)
            else ''
        )
        raise UserError(
            f'there is no {folder / split}.txt; there are {", ".join(known) or "no lists"}.{hint}'
        )
    lines = [line.split() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    names = [Path(line[0]).stem if len(line) == 2 else line[0] for line in lines]
    if not names:
        raise UserError(f'{path} is empty')
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f'{path} names {twice} more than once')
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Return the class names of a list, one a line; UserError when it is empty or repeats one."""
    names = tuple(line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip())
    if not names or len(set(names)) < len(names):
        raise UserError(f'{path}: expected one class name a line, each once, found {list(names)[:10]}')
    return names


def match_names(found: Sequence[str], expected: Sequence[str] | None, *, source: Path) -> tuple[str, ...]:
    """Return the data's class names; UserError unless the model, if it has any yet, has the same in order."""
    if expected is not None and tuple(expected) != tuple(found):
        raise UserError(
            f'{source} has {len(found)} classes ({listing(found, 8)}), the model {len(expected)} '
            f'({listing(expected, 8)}): the same names are needed in the same order, since masks hold indices'
        )
    return tuple(found)


def stem_below(file: str, folder: Path) -> str:
    """Return a file's path below `folder` without its ending."""
    return Path(file).relative_to(folder).with_suffix('').as_posix()


def by_stem(folder: Path) -> dict[str, str]:
    """Return the masks below `folder` by path without ending; UserError where two share one."""
    found: dict[str, str] = {}
    for file in list_images(folder)[0]:
        stem = stem_below(file, folder)
        if stem in found:
            raise UserError(f'{found[stem]} and {file} are masks of the same picture: which one counts?')
        found[stem] = file
    return found
