"""What each task's program answers with, and the way back from there to `Head.place`.

Outside of Python nobody knows of default boxes, cells or padding: a program says boxes in pixels of the
picture it was given, or a class for each of its pixels. Engines here read that, and bring it to original
pictures by the same `Head.place` as ever.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from heads.base import Head
from heads.boxes import to_pixels


class Geometry(NamedTuple):
    """Sizes (height, width) in pixels, known when a program is made.

    Attributes:
        picture: of the pictures that the program takes.
        network: of the images that the network sees.
        content: of the part of those, from the upper left corner, that the picture fills; None for all.
    """

    picture: tuple[int, int]
    network: tuple[int, int]
    content: tuple[int, int] | None


@dataclass(frozen=True)
class Form:
    """The outputs of a task's program.

    Attributes:
        finish: (head, what its `forward` returned, geometry) -> tensors by name, in operations that export.
        restore: those tensors -> what `Head.place` takes.
        meanings: what each of them says.
        placed: the names of those that `restore` reads.
    """

    finish: Callable[[Head, Any, Geometry], dict[str, Tensor]]
    restore: Callable[[Mapping[str, Tensor], Geometry], Mapping[str, Tensor]]
    meanings: dict[str, str] = field(default_factory=dict)
    placed: tuple[str, ...] = ()


def _decode(head: Head, outputs: Any, geometry: Geometry) -> dict[str, Tensor]:
    return head.decode(outputs)


def _as_it_is(answer: Mapping[str, Tensor], geometry: Geometry) -> Mapping[str, Tensor]:
    return answer


def _finish_boxes(head: Head, outputs: Any, geometry: Geometry) -> dict[str, Tensor]:
    answer = head.decode(outputs)
    size, where = geometry.picture, {'input_size': geometry.network, 'content_size': geometry.content}
    return {**answer, 'boxes': to_pixels(answer['boxes'], size, **where)}


def _restore_boxes(answer: Mapping[str, Tensor], geometry: Geometry) -> Mapping[str, Tensor]:
    height, width = geometry.content or geometry.network
    # From pixels of the picture to pixels of the network's input, then to fractions of it.
    rows = height / geometry.picture[0] / geometry.network[0]
    columns = width / geometry.picture[1] / geometry.network[1]
    return {**answer, 'boxes': answer['boxes'] * answer['boxes'].new_tensor([columns, rows] * 2)}


def _finish_mask(head: Head, outputs: Any, geometry: Geometry) -> dict[str, Tensor]:
    height, width = geometry.content or geometry.network
    pixels = head.decode(outputs, input_size=geometry.network)['scores'][:, :, :height, :width]
    if (height, width) != geometry.picture:
        pixels = F.interpolate(pixels, size=geometry.picture, mode='bilinear', align_corners=False)
    return {
        'mask': pixels.argmax(dim=1).byte(),
        'scores': pixels.softmax(dim=1).amax(dim=1),
        'cells': head.decode(outputs)['scores'],
    }


def _restore_cells(answer: Mapping[str, Tensor], geometry: Geometry) -> Mapping[str, Tensor]:
    # Not the mask: a picture of another size needs the scores between its pixels.
    return {'scores': answer['cells']}


FORMS = {
    'classification': Form(
        _decode,
        _as_it_is,
        {'scores': 'probability of each class; every row adds up to 1'},
        ('scores',),
    ),
    'detection': Form(
        _finish_boxes,
        _restore_boxes,
        {
            'boxes': 'x_min, y_min, x_max, y_max in pixels of the picture, best first; 0 beyond count',
            'scores': 'of each box, 0 to 1; 0 beyond count',
            'labels': 'class of each box; -1 beyond count',
            'count': 'boxes found, after non-maximum suppression',
        },
        ('boxes', 'scores', 'labels', 'count'),
    ),
    'segmentation': Form(
        _finish_mask,
        _restore_cells,
        {
            'mask': 'class of each pixel of the picture',
            'scores': 'probability of that class, 0 to 1',
            'cells': 'logit of each class in each cell of the map, for a mask of another size',
        },
        ('cells',),
    ),
}
# Of a user's own task: what its head decodes, as it is.
PLAIN = Form(_decode, _as_it_is)
