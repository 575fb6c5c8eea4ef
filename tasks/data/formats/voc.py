"""Reading PASCAL VOC's XML files: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tasks.data.annotations import Annotations, ImageRecord, Problems, build_annotations
from tasks.errors import UserError


def read_voc(
    xml_files: Sequence[Path], image_folder: Path, *, classes: Sequence[str] | None, problems: Problems
) -> Annotations:
    """Read one XML file per image.

    Corners in these files count from 1 and belong to the object; here they become pixel edges counted from 0.
    Objects marked 'difficult' are neither learnt nor counted, like COCO's crowds.

    Args:
        xml_files: in the order of the images. Images are numbered from 1 in it.
        image_folder: where the images are.
        classes: names in the order of their indices; None takes the names found, sorted.
        problems: where to note what was dropped.

    Raises:
        UserError: a file is missing or no VOC XML, or names a class that is not in `classes`.
    """
    images: list[ImageRecord] = []
    owners: list[int] = []
    names: list[str] = []
    boxes: list[list[float]] = []
    difficult: list[bool] = []
    for index, file in enumerate(xml_files):
        try:
            root = ElementTree.parse(file).getroot()
            image = root.findtext('filename') or f'{file.stem}.jpg'
            size = (int(_text(root, 'size/height')), int(_text(root, 'size/width')))
            if min(size) < 1:
                raise ValueError(f'size {size}')
            for each in root.iter('object'):
                names.append(_text(each, 'name').strip())
                corners = [float(_text(each, f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
                boxes.append([corners[0] - 1, corners[1] - 1, corners[2], corners[3]])
                difficult.append(each.findtext('difficult', '0').strip() == '1')
                owners.append(index)
        except OSError as error:
            raise UserError(f'{file} cannot be read: {error}') from error
        except (ElementTree.ParseError, ValueError) as error:
            raise UserError(f'{file} is no VOC annotation: {error}') from error
        images.append(ImageRecord(index + 1, str(image_folder / image), size))

    found = sorted(set(names))
    kept = list(classes) if classes is not None else found
    if not kept:
        raise UserError(f'no objects in the {len(images)} XML files, from {xml_files[0]} on')
    if strangers := [name for name in found if name not in kept]:
        where = xml_files[owners[names.index(strangers[0])]]
        raise UserError(f'{where}: class {strangers[0]!r} is none of {", ".join(kept)}')
    corners_array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return build_annotations(
        images,
        owners=np.array(owners, dtype=np.int64),
        boxes=corners_array,
        labels=np.array([kept.index(name) for name in names], dtype=np.int32),
        crowd=np.array(difficult, dtype=bool),
        areas=(corners_array[:, 2:] - corners_array[:, :2]).prod(axis=1),
        object_ids=np.arange(1, len(owners) + 1),
        class_names=kept,
        category_ids=range(1, len(kept) + 1),
        problems=problems,
    )


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f'<{path}> is missing')
    return text
