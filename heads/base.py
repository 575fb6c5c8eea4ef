"""What a head promises, and the registry that finds one by name.

A head turns a backbone's feature maps into a task's answer in three steps, kept apart so that each can
be tested and exported on its own:

    outputs = head(features)                        # tensors only: what an exported model computes
    losses  = head.loss(outputs, targets)           # {'loss_...': scalar}, for training
    answers = head.predict(outputs, image_sizes)    # one answer per image, in the original image's pixels

It is built from the backbone's `channels` and `strides` and the number of classes in the data.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from mmengine.registry import Registry
from torch import Tensor, nn

HEADS = Registry('head', scope='mmengine', locations=['heads'])


class ClassRows(NamedTuple):
    """How the rows (dimension 0) of a tensor belong to classes.

    Attributes:
        groups: how often the classes are repeated, for example once for every default box of a cell.
        background: rows at the beginning of each group that belong to no class of the data.
    """

    groups: int = 1
    background: int = 0


class Head(nn.Module, ABC):
    """Base class of every head.

    Attributes:
        task: the task it answers ('classification', ...), which decides the result class and the metric.
        min_maps: how many maps it needs at least.

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
            layout: a layout of `backbones.weights.split`, for example 'object_detection'.
            tensors: what `split_weights` there found beside the backbone, in torch's axis order.

        Returns:
            Entries for `load_state_dict`; nothing for a layout the head does not know.
        """
        return {}

    def class_rows(self) -> dict[str, ClassRows]:
        """Say which of the head's tensors have rows per class, by their `state_dict` key.

        With this a checkpoint goes on with other classes: rows of classes that both know are kept.
        """
        return {}

    @abstractmethod
    def predict(
        self,
        outputs: Any,
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int] | None = None,
        content_sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Turn raw outputs into one answer per image.

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
