"""Classification data in tar shards, as large sets are kept and moved: ImageNet and beyond."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from falconet.core.errors import UserError
from falconet.datasets.classes import counted, match_classes, read_classes
from falconet.datasets.classification.dataset import imagenet_classes
from falconet.datasets.dataset import VisionDataset
from falconet.datasets.files import existing_root
from falconet.datasets.shards.read import ShardReader, find_shards, index_shards
from falconet.datasets.shards.write import CLASS_FILE


@DATASETS.register_module()
class ImageShards(VisionDataset):
    """Pictures with a class number each, in tar files of WebDataset's layout (see `datasets.shards.read`).

    Args:
        root: folder of the shards.
        shards: which of them, as 'train-*.tar' or names with commas between.
        class_names: names by number: a list, 'imagenet', or None for `classes.txt` in `root`, which
            tools/pack_shards.py writes.
        classes: class names in the model's order; they must be the same in the same order, for numbers mean
            nothing else.
        training, augment, strict, seed, exif: as in `datasets.dataset.VisionDataset`.

    Attributes:
        labels: class index of every picture, int64 (N,).

    Raises:
        UserError: no shards, a cut-off or repeated one, no names, or a number that has none.
    """

    reducible = True

    def __init__(
        self,
        root: str,
        shards: str,
        *,
        class_names: Sequence[str] | str | None = None,
        classes: Sequence[str] | None = None,
        training: bool = False,
        augment: Sequence[Mapping[str, Any]] = (),
        strict: bool = False,
        seed: int = 0,
        exif: str = 'auto',
    ) -> None:
        folder = existing_root(root)
        files = find_shards(folder, shards)
        if class_names == 'imagenet':
            names = imagenet_classes()[1]
        elif isinstance(class_names, str):
            raise UserError(f"class_names must be a list, 'imagenet' or None, got {class_names!r}")
        elif class_names is not None:
            names = tuple(class_names)
        elif (folder / CLASS_FILE).is_file():
            names = read_classes(folder / CLASS_FILE)
        else:
            raise UserError(
                f'{folder} has no {CLASS_FILE}, which says what the class numbers in the shards mean: write '
                "one name a line, or set class_names=[...] or 'imagenet' in the data set"
            )
        hint = 'Labels are numbers: the same names are needed in the same order.'
        match_classes(names, classes, source=folder, hint=hint)
        index = index_shards(files)
        least, most = int(index.label.min()), int(index.label.max())
        if least < 0 or most >= len(names):
            raise UserError(
                f'{folder}: the shards hold class {least if least < 0 else most}, the {len(names)} names are '
                f'those of 0 to {len(names) - 1}'
            )
        self.labels = index.label
        self._reader = ShardReader(files, index)
        super().__init__(
            (f'{files[shard]}/{name}' for shard, name in zip(index.shard.tolist(), index.names, strict=True)),
            names,
            augment=augment,
            training=training,
            strict=strict,
            seed=seed,
            exif=exif,
        )

    def content(self, index: int) -> np.ndarray:
        return self._reader.read(index)

    def identity(self, index: int) -> tuple[Any, ...]:
        return (self.exif, self.size(index), *self._reader.status(index))

    def target(self, index: int) -> dict[str, Any]:
        return {'label': int(self.labels[index])}

    def to_target(self, augmented: Mapping[str, Any]) -> int:
        return augmented['label']

    def __str__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return (
            f'{len(self):,} images in {len(self.classes)} classes{counted(self.classes, counts)}, in '
            f'{len(self._reader.shards):,} shards'
        )
