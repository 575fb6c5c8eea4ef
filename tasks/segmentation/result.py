"""The answer to one image: a class for every pixel, as an overlay with a legend and as a palette PNG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from falconet.core.owned_files import note
from falconet.datasets.formats.masks import voc_palette, write_mask
from falconet.heads.score_map import ScoreMap
from falconet.report.drawing import BACKGROUND, INK, at_least_wide, fitting_font
from falconet.report.text import shown
from falconet.tasks.results import class_indices, picture_to_draw
from falconet.tasks.segmentation.tiles import blend_scores, join_masks
from falconet.tasks.tiles import Place

OPACITY = 0.55
LEGEND_LIMIT = 12  # classes in a legend, the largest first


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """What a segmentation network says of one image.

    Attributes:
        mask: class index of every pixel of the image, uint8 (H, W).
        class_names: names by index.
        image: the picture, RGB uint8 (H, W, 3); None where it was not kept.
        path: the file it came from; None for an array.
    """

    mask: np.ndarray
    class_names: tuple[str, ...] = field(repr=False)
    image: np.ndarray | None = field(default=None, repr=False)
    path: str | None = None

    # What `save_extra` writes beside the annotated picture: key in predictions.json -> ending of the name.
    extra_files: ClassVar[dict[str, str]] = {'mask': '_mask.png'}

    # A picture in tiles: its small whole would say nothing of the fine.
    tiles_with_whole: ClassVar[bool] = False

    def __getitem__(self, name: str | int) -> np.ndarray:
        """Return where a class is, by its name or index: bool (H, W)."""
        return self.mask == class_indices(name, self.class_names)[0]

    @classmethod
    def from_tiles(
        cls, results: Sequence['SegmentationResult'], places: Sequence[Place], **kept: Any
    ) -> 'SegmentationResult':
        """Return the result of a picture from those of its tiles; see `tasks.segmentation.tiles`."""
        return cls(join_masks([each.mask for each in results], places), **kept)

    @classmethod
    def from_score_maps(
        cls, maps: Sequence[ScoreMap], places: Sequence[Place], **kept: Any
    ) -> 'SegmentationResult':
        """Return the same from what the head scored in the tiles, blended where they overlap."""
        return cls(blend_scores(maps, places), **kept)

    def to_palette(self) -> Image.Image:
        """Return a PIL picture of mode P: class indices, and VOC's palette."""
        picture = Image.fromarray(self.mask)
        picture.putpalette(voc_palette().ravel().tolist())
        return picture

    @classmethod
    def from_palette(
        cls, picture: Image.Image, class_names: Sequence[str], **kept: Any
    ) -> 'SegmentationResult':
        """Return the result of a picture of mode P or L whose values are class indices."""
        if picture.mode not in ('P', 'L'):
            raise ValueError(f'a mask is of mode P or L, got {picture.mode}')
        return cls(np.array(picture, np.uint8), tuple(class_names), **kept)

    def to_torchvision(self) -> dict[str, Any]:
        """Return tensors: `masks` bool (K, H, W) of the classes that occur, `labels` int64 (K,).

        As `torchvision.utils.draw_segmentation_masks` takes them. The background is one of the classes.
        """
        import torch

        labels, masks = self._by_class()
        return {'masks': torch.from_numpy(masks), 'labels': torch.from_numpy(labels)}

    @classmethod
    def from_torchvision(
        cls, answer: Mapping[str, Any], class_names: Sequence[str], **kept: Any
    ) -> 'SegmentationResult':
        """Return the result of such a dict; where masks overlap the last counts."""
        masks, labels = (answer[key].detach().cpu().numpy() for key in ('masks', 'labels'))
        return cls._of_masks(masks, labels, class_names, **kept)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`: one mask a class that occurs, the background left out."""
        import supervision  # pyright: ignore[reportMissingImports]

        labels, masks = self._by_class()
        if self.class_names[0] == 'background':
            masks, labels = masks[labels != 0], labels[labels != 0]
        if not len(labels):
            return supervision.Detections.empty()
        return supervision.Detections(
            xyxy=supervision.mask_to_xyxy(masks).astype(np.float32), mask=masks, class_id=labels
        )

    @classmethod
    def from_supervision(
        cls, found: Any, class_names: Sequence[str], *, size: Sequence[int], **kept: Any
    ) -> 'SegmentationResult':
        """Return the result of `supervision.Detections` with masks; `size` is (height, width).

        Raises:
            ValueError: there are boxes without masks, or they say no classes.
        """
        if len(found.xyxy) and (found.mask is None or found.class_id is None):
            lacks = 'mask' if found.mask is None else 'class: set their class_id'
            raise ValueError(f'{len(found.xyxy)} detections have no {lacks}')
        masks = np.zeros((0, *size), bool) if found.mask is None else found.mask
        labels = np.zeros(0, np.int64) if found.class_id is None else found.class_id
        return cls._of_masks(masks, labels, class_names, **kept)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return COCO's result format for pixels: an entry per class that occurs, its mask as RLE.

        `category_id` is the class's position: 0 for a background.
        """
        from pycocotools import mask as coco

        labels, masks = self._by_class()
        entries = []
        for label, mask in zip(labels, masks, strict=True):
            code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            segmentation = {'size': list(code['size']), 'counts': str(code['counts'], 'ascii')}  # pyright: ignore[reportArgumentType]
            entries.append({'image_id': image_id, 'category_id': int(label), 'segmentation': segmentation})
        return entries

    @classmethod
    def from_coco(
        cls, entries: Sequence[Mapping[str, Any]], class_names: Sequence[str], **kept: Any
    ) -> 'SegmentationResult':
        """Return the result of one picture's entries, at least one."""
        from pycocotools import mask as coco

        masks = np.stack([coco.decode(each['segmentation']) for each in entries])
        return cls._of_masks(masks, [each['category_id'] for each in entries], class_names, **kept)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per class that occurs: `class_name`, `pixels`, `share`."""
        import pandas  # pyright: ignore[reportMissingImports]

        rows = [(name, round(share * self.mask.size), share) for name, share in self.shares().items()]
        return pandas.DataFrame(rows, columns=['class_name', 'pixels', 'share'])  # type: ignore[arg-type]

    def _by_class(self) -> tuple[np.ndarray, np.ndarray]:
        labels = np.unique(self.mask).astype(np.int64)
        return labels, self.mask[None] == labels[:, None, None]

    @classmethod
    def _of_masks(
        cls, masks: np.ndarray, labels: Any, class_names: Sequence[str], **kept: Any
    ) -> 'SegmentationResult':
        mask = np.zeros(masks.shape[1:], np.uint8)
        for one, label in zip(masks, labels, strict=True):
            mask[one.astype(bool)] = label
        return cls(mask, tuple(class_names), **kept)

    def shares(self) -> dict[str, float]:
        """Return the share of pixels of every class that occurs, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind='stable')
        return {self.class_names[i]: float(counts[i] / self.mask.size) for i in order if counts[i]}

    def title(self) -> str:
        """Return one line for a caption: the classes found, apart from the background."""
        found = [name for name in self.shares() if name != 'background']
        return ', '.join(found[:4]) or 'background'

    def summary(self) -> dict[str, Any]:
        """Return what predictions.json holds of this image: `shares` of the pixels by class."""
        return {
            'path': self.path,
            'height': self.mask.shape[0],
            'width': self.mask.shape[1],
            'shares': {name: round(share, 6) for name, share in self.shares().items()},
        }

    def overlay(
        self,
        image: np.ndarray | None = None,
        *,
        classes: str | int | Sequence[str | int] | None = None,
        opacity: float = OPACITY,
    ) -> Image.Image:
        """Return the picture with every class laid over it in its VOC colour, the background left bare.

        Args:
            image: RGB uint8 (H, W, 3); by default the one kept in the result, or that at its path.
            classes: lay over these only, by name or index; a background too, if it is named.
            opacity: of the colours, 0 to 1.

        Raises:
            ValueError: the result kept no picture and none was given, its size is not the mask's, or a value
                is none.
        """
        return Image.fromarray(self.painted(image, classes=classes, opacity=opacity))

    def painted(
        self,
        image: np.ndarray | None = None,
        *,
        classes: str | int | Sequence[str | int] | None = None,
        opacity: float = OPACITY,
        in_place: bool = False,
    ) -> np.ndarray:
        """Return what `overlay` does as an array, RGB uint8: a frame of a video.

        `in_place`: laid over the picture itself.
        """
        import cv2

        if not 0 <= opacity <= 1:
            raise ValueError(f'opacity must lie in 0..1, got {opacity}')
        image = picture_to_draw(image, self.image, self.path)
        if image.shape[:2] != self.mask.shape:
            raise ValueError(f'the picture is {image.shape[:2]} (height, width), the mask {self.mask.shape}')
        shown = np.zeros(256, np.uint8)
        if classes is not None:
            shown[class_indices(classes, self.class_names)] = 1
        else:
            shown[int(self.class_names[0] == 'background') :] = 1
        colours = cv2.applyColorMap(self.mask, np.ascontiguousarray(voc_palette()[:, None]))
        mixed = cv2.addWeighted(colours, opacity, image, 1 - opacity, 0)
        return cv2.copyTo(mixed, cv2.LUT(self.mask, shown), image if in_place else image.copy())

    def preview(self) -> Image.Image:
        """Return what a contact sheet shows."""
        return self.overlay()

    def draw(
        self,
        image: np.ndarray | None = None,
        *,
        classes: str | int | Sequence[str | int] | None = None,
        opacity: float = OPACITY,
        font_size: int | None = None,
    ) -> Image.Image:
        """Return the overlay with a legend below it: colour, class and share of the pixels.

        Args:
            image, classes, opacity: as `overlay` takes them; the legend has the same classes.
            font_size: of the legend, in pixels; by default 1/32 of the width.

        Raises:
            ValueError: as `overlay`.
        """
        if font_size is not None and font_size < 1:
            raise ValueError(f'font_size must be at least 1, got {font_size}')
        # At least as wide as the legend needs.
        picture = at_least_wide(self.overlay(image, classes=classes, opacity=opacity), 160)
        entries = list(self.shares().items())
        if classes is not None:
            named = {self.class_names[each] for each in class_indices(classes, self.class_names)}
            entries = [each for each in entries if each[0] in named]
        entries = entries[:LEGEND_LIMIT]
        if not entries:
            return picture
        size = font_size or max(12, picture.width // 32)
        columns = max(1, min(len(entries), picture.width // (size * 11)))
        rows, row_height, cell = -(-len(entries) // columns), round(size * 1.6), picture.width / columns
        canvas = Image.new('RGB', (picture.width, picture.height + rows * row_height), BACKGROUND)
        canvas.paste(picture, (0, 0))
        pen = ImageDraw.Draw(canvas)
        for position, (name, share) in enumerate(entries):
            left = position % columns * cell + size * 0.4
            middle = picture.height + (position // columns + 0.5) * row_height
            colour = tuple(voc_palette()[self.class_names.index(name)].tolist())
            box = (left, middle - size * 0.4, left + size * 0.8, middle + size * 0.4)
            pen.rectangle(box, fill=colour, outline=INK)
            text = f'{shown(name)} {share:.0%}' if share >= 0.005 else f'{shown(name)} <1%'
            font = fitting_font(text, cell - size * 1.8, size)
            pen.text((left + size * 1.2, middle), text, fill=INK, font=font, anchor='lm')
        return canvas

    def save_mask(self, path: Path | str) -> None:
        """Write the mask as VOC does: a PNG of class indices with VOC's palette."""
        write_mask(path, self.mask)

    def save_extra(self, key: str, path: Path) -> None:
        """Write one of `extra_files`."""
        assert key == 'mask'
        write_mask(path, self.mask, pnginfo=note())
