"""What a head promises, and the registry that finds one by name.

A head turns a backbone's feature maps into a task's answer in steps, kept apart so that each can be tested
and exported on its own:

    outputs = head(features)                        # tensors only: what an exported model computes
    losses  = head.loss(outputs, targets)           # {'loss_...': scalar}, for training
    answer  = head.decode(outputs)                  # tensors of fixed size: what it may compute besides
    answers = head.place(answer, image_sizes)       # one answer per image, in the original image's pixels
    answers = head.predict(outputs, image_sizes)    # the last two in one

It is built from the backbone's `channels` and `strides` and the number of classes in the data.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from mmengine.registry import Registry
from torch import Tensor, nn

HEADS = Registry('head', scope='mmengine', locations=['falconet.heads'])
IGNORE = 255  # label of pixels that count neither in the loss nor in a score


class ClassRows(NamedTuple):
    """How the rows (dimension 0) of a tensor belong to classes.

    Attributes:
        groups: how often the classes are repeated, for example once for every default box of a cell.
        background: rows at the beginning of each group that belong to no class of the data.
    """

    groups: int = 1
    background: int = 0


@runtime_checkable
class Enlarges(Protocol):
    """What testing at several scales needs of a head: scores of cells that can be enlarged to pixels."""

    def enlarge(self, outputs: Any, size: Sequence[int], /) -> Tensor:
        """Return raw outputs as logits (B, C, height, width), for `size` = (height, width)."""
        ...


class Head(nn.Module, ABC):
    """Base class of every head.

    Attributes:
        task: the task it answers ('classification', ...), which decides the result class and the metric.
        min_maps: how many maps it needs at least.
        option_values: what a checkpoint may set, a type of `core.options` for each option. Nothing that
            names a file or an address. None: numbers and switches only.

    Args:
        channels: channels of the backbone's maps, finest first.
        strides: image pixels per cell of those maps.
        num_classes: classes in the data. Background is never counted.

    Raises:
        ValueError: `channels` and `strides` differ in length, there are fewer than `min_maps`, or
            `num_classes` is below 1.
    """

    task: ClassVar[str]
    min_maps: ClassVar[int] = 1
    option_values: ClassVar[Mapping[str, Any] | None] = None

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, num_classes: int) -> None:
        super().__init__()
        if len(channels) != len(strides) or not channels:
            raise ValueError(
                f'a head needs one stride per map, got channels {list(channels)} and strides {list(strides)}'
            )
        if len(channels) < self.min_maps:
            raise ValueError(
                f'{type(self).__name__} needs {self.min_maps} or more maps, got channels {list(channels)} '
                f'and strides {list(strides)}. Give the backbone more taps'
            )
        if num_classes < 1:
            raise ValueError(f'num_classes must be at least 1, got {num_classes}')
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Any:
        """Turn feature maps into raw outputs.

        Args:
            features: one (B, channels[i], H_i, W_i) map per entry of `channels`.

        Returns:
            A tensor, or a tuple or dict of tensors. No Python branching on data, so it can be exported.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Compare raw outputs with the targets.

        Returns:
            Scalars. Those whose name starts with 'loss_' are added up and minimised; others are logged.
        """

    def translate(self, layout: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give another project's tensors this head's own keys and axis order.

        Args:
            layout: name of the layout, for example 'object_detection'.
            tensors: what was found beside the backbone, in torch's axis order; a linear classifier of any
                layout as 'classifier.weight' (classes, channels) and 'classifier.bias' (classes,).

        Returns:
            Entries for `load_state_dict`; nothing for a layout the head does not know.
        """
        return {}

    def linear(self) -> dict[str, Tensor]:
        """Return `weight` and `bias` of a head that is one linear classifier, else nothing."""
        return {}

    def class_rows(self) -> dict[str, ClassRows]:
        """Say which of the head's tensors have rows per class, by their `state_dict` key.

        With this a checkpoint goes on with other classes: rows of classes that both know are kept.
        """
        return {}

    def decode(self, outputs: Any, *, input_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Turn raw outputs into tensors that say the answer, still in terms of the network's input.

        Args:
            outputs: what `forward` returned, in float32.
            input_size: (height, width) of the batch of images that the network saw. With it an answer that
                has a place for every pixel is as large as the input; without it may stay smaller.

        Returns:
            Tensors by name, each with the batch as its first dimension. Their sizes depend on those of
            `outputs` alone, and nothing branches on data, so it can be exported.

        Raises:
            TypeError: the head has no `decode`; it answers through a `predict` of its own.
        """
        raise TypeError(self._lacks('decode'))

    def place(
        self,
        answer: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int] | None = None,
        content_sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Bring what `decode` returned to the original images; the rest is as in `predict`.

        Where `decode` had an `input_size`, this needs the same. TypeError as from `decode`.
        """
        raise TypeError(self._lacks('place'))

    def _lacks(self, method: str) -> str:
        name = type(self).__name__
        if type(self).predict is Head.predict:
            return f'{name} has no {method}: a head needs decode and place, see heads/base.py'
        return f'{name} has no {method}: it answers through its own predict, and exports its raw outputs only'

    def predict(
        self,
        outputs: Any,
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int] | None = None,
        content_sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Turn raw outputs into one answer per image: `place` what `decode` returns.

        Args:
            outputs: what `forward` returned, in float32.
            image_sizes: (height, width) of every original image, in pixels.
            input_size: (height, width) of the batch of images that the network saw; None when it is
                exactly the finest map's size times its stride.
            content_sizes: (height, width) of the part of the network's input that each image fills, from
                the upper left corner; None, for one or for all, when it fills the input.

        Returns:
            One dict of NumPy arrays and numbers per image: the fields of the task's result class,
            geometry in the original image's pixels.
        """
        return self.place(
            self.decode(outputs), image_sizes, input_size=input_size, content_sizes=content_sizes
        )
