"""Images with label maps: PASCAL VOC in its official layout, and any user's pair of folders."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError, listing
from falconet.datasets.classes import counted, match_classes, read_classes
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.files import existing_folder, existing_root, list_images, part_of
from falconet.datasets.formats.masks import check_masks, read_mask
from falconet.datasets.formats.voc import read_split
from falconet.datasets.images.images import ImageError
from falconet.datasets.layouts.file_tree import picture_size
from falconet.datasets.packed_strings import PackedStrings

VOC_CLASSES = (
    'background',
    *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow'),
    *('diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train'),
    'tvmonitor',
)
CLASS_FILE = 'classes.txt'
ORDER_HINT = 'Masks hold indices: the same names are needed in the same order.'


class SegmentationDataset(VisionDataset):
    """Images with one label map each.

    A training sample's target is the augmented mask. An evaluation sample's is the mask as it was drawn, of
    the original image's size, whatever the transforms do to the image: scores are counted there.
    """

    @property
    def reducible(self) -> bool:  # type: ignore[override]
        """Only in evaluation: in training the mask goes through the same transforms as the picture."""
        return not self.training

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
        augment, training, strict, seed, exif: as in `datasets.dataset.VisionDataset`.

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
        exif: str,
    ) -> None:
        images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
        self.counts = check_masks(images, masks, classes, exif=exif)
        self.masks = PackedStrings(masks)
        super().__init__(
            images, classes, augment=augment, training=training, strict=strict, seed=seed, exif=exif
        )

    def size(self, index: int) -> tuple[int, int]:
        found = picture_size(Path(self.masks[index]), exif=self.exif)
        if found is None:
            raise ImageError(self.masks[index], 'not a readable mask')
        return found

    def read_mask(self, index: int) -> np.ndarray:
        return read_mask(self.masks[index], exif=self.exif)

    def class_weights(self) -> list[float]:
        return self.counts.balanced_weights()

    def __str__(self) -> str:
        text = f'{len(self):,} images with masks of {len(self.classes)} classes'
        text += counted(self.classes, self.counts.masks, 30)
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
        augment, training, strict, seed, exif: as in `datasets.dataset.VisionDataset`.

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
        exif: str = 'auto',
    ) -> None:
        folder = existing_root(root)
        if (folder / 'VOC2012').is_dir():
            folder = folder / 'VOC2012'
        augmented = is_augmented(split)
        masks = folder / ('SegmentationClassAug' if augmented else 'SegmentationClass')
        lists = folder / 'ImageSets' / 'Segmentation'
        for needed in (folder / 'JPEGImages', masks, lists):
            if not needed.is_dir():
                more = " (the masks of SBD, 10,582 with VOC's own)" if augmented and needed == masks else ''
                raise UserError(f'{needed} does not exist{more}; expected the layout of VOC2012')
        hint = 'Write it: the names of all masks in SegmentationClassAug that are not in val.txt.'
        names = read_split(
            lists,
            split,
            spellings=('trainaug', 'train_aug', 'aug') if augmented else (),
            hint=hint if augmented else '',
        )
        images = [folder / 'JPEGImages' / f'{name}.jpg' for name in names]
        if absent := [path for path in images if not path.is_file()]:
            raise UserError(
                f'{lists / split}.txt names {len(absent)} images (of {len(images)}) that are not in '
                f'{folder / "JPEGImages"}: {listing(path.name for path in absent)}'
            )
        listed = folder / CLASS_FILE
        found = read_classes(listed) if listed.is_file() else VOC_CLASSES
        super().__init__(
            [(str(image), str(masks / f'{image.stem}.png')) for image in images],
            match_classes(found, classes, source=folder, hint=ORDER_HINT),
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
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
        augment, strict, seed, exif: as in `datasets.dataset.VisionDataset`.

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
        exif: str = 'auto',
    ) -> None:
        base = existing_root(root)
        pictures, mask_of = existing_folder(base, images), by_stem(existing_folder(base, masks))
        if not (base / class_file).is_file():
            raise UserError(
                f'{base / class_file} does not exist. Write one class name a line, in the order of the '
                "masks' indices; the first line is index 0."
            )
        names = read_classes(base / class_file)
        files = list_images(pictures)[0]
        if missing := [file for file in files if stem_below(file, pictures) not in mask_of]:
            raise UserError(
                f'{len(missing)} of {len(files)} pictures in {pictures} have no mask of the same name '
                f'in {base / masks}: {listing(Path(file).name for file in missing)}'
            )
        kept = part_of(files, pictures, holdout=holdout, training=training)
        if not kept:
            raise UserError(
                f'no pictures (.jpg, .png, ...) in {pictures}' + (f' (holdout={holdout})' if holdout else '')
            )
        super().__init__(
            [(file, mask_of[stem_below(file, pictures)]) for file in kept],
            match_classes(names, classes, source=base, hint=ORDER_HINT),
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
        )


def is_augmented(split: str) -> bool:
    """Whether a split needs the masks of SBD: 'train_aug', and the spellings 'trainaug' and 'aug'."""
    return split.replace('_', '') in ('trainaug', 'aug')


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
