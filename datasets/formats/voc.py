"""PASCAL VOC's XML files and lists of images, read and written.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from falconet.core.errors import UserError, closest
from falconet.datasets.annotations import Annotations, ImageRecord, Problems, build_annotations
from falconet.datasets.formats.coco_values import check_size


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
            size = check_size(int(_text(root, 'size/height')), int(_text(root, 'size/width')))
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


def write_voc(
    folder: Path,
    annotations: Annotations,
    *,
    source: Mapping[str, str] | None = None,
    truncated: Sequence[bool] | None = None,
    segmented: bool = False,
) -> None:
    """Write one XML file per image, which `read_voc` reads as what was given where boxes are whole pixels.

    Args:
        folder: an existing folder 'Annotations' of a data set.
        annotations: the objects; crowds are written as difficult.
        source: where the pictures are from, in VOC's words 'database', 'annotation' and 'image'.
        truncated: of each object, whether the border of the image cuts it; None writes that none is.
        segmented: whether there are masks too.
    """
    for index, path in enumerate(annotations.paths):
        height, width = annotations.sizes[index].tolist()
        root = ElementTree.Element('annotation')
        _add(
            root,
            folder=folder.parent.name,
            filename=Path(path).name,
            source=source or {},
            size={'width': width, 'height': height, 'depth': 3},
            segmented=int(segmented),
        )
        objects = annotations.objects(index)
        for k in range(objects.start, objects.stop):
            left, top, right, bottom = annotations.original_boxes[k].tolist()
            corners = {'xmin': left + 1, 'ymin': top + 1, 'xmax': right, 'ymax': bottom}
            _add(
                ElementTree.SubElement(root, 'object'),
                name=annotations.class_names[annotations.labels[k]],
                pose='Unspecified',
                truncated=int(truncated is not None and truncated[k]),
                difficult=int(annotations.crowd[k]),
                bndbox={key: f'{value:.15g}' for key, value in corners.items()},
            )
        ElementTree.indent(root, '\t')
        file = folder / f'{Path(path).stem}.xml'
        ElementTree.ElementTree(root).write(file, encoding='utf-8')


def _add(parent: ElementTree.Element, **entries: Any) -> None:
    for tag, value in entries.items():
        child = ElementTree.SubElement(parent, tag)
        if isinstance(value, Mapping):
            _add(child, **value)
        else:
            child.text = str(value)


def read_split(folder: Path, split: str, *, spellings: Sequence[str] = (), hint: str = '') -> list[str]:
    """Return the names of the images in a list: one a line.

    A second column is the label of an image in one class's list (-1, 0 or 1), or the file of its mask, as in
    some lists of train_aug: '/<image> /<mask>'. Both are understood and left out.

    Args:
        folder: a folder of `ImageSets`.
        split: name of the list.
        spellings: other names it may have.
        hint: where no such list is there, how to come by one.

    Raises:
        UserError: there is no such list, or it cannot be read, is empty, or names an image twice.
    """
    paths = [folder / f'{name}.txt' for name in (split, *spellings)]
    path = next((each for each in paths if each.is_file()), None)
    if path is None:
        known = sorted(each.stem for each in folder.glob('*.txt'))
        there = closest(split, known) if known else f'{folder} holds no lists.'
        raise UserError(f'there is no split {paths[0]}. {there} {hint}'.rstrip())
    try:
        lines = [line.split() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    names = [first if not rest or rest[0] in ('-1', '0', '1') else Path(first).stem for first, *rest in lines]
    if not names:
        raise UserError(f'{path} is empty: it lists no images')
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f'{path} names {twice} more than once')
    return names


def write_split(folder: Path, split: str, names: Iterable[str]) -> None:
    """Write a list that `read_split` reads."""
    (folder / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
