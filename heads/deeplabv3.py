"""DeepLabv3 head: image pooling, optional atrous pyramid, projection, one score per class and cell.

Papers: "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587, section 3.3;
MobileNetV2, arXiv 1801.04381, section 6.3, whose pick for phones leaves the pyramid (ASPP) out and reads the
320-channel map. Branch order, widths and ReLU (not ReLU6) follow the authors' `deeplab/model.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falconet.core.options import CLASS_WEIGHTS, NORM_OPTIONS, SHARE, SWITCH, check_options, number, whole
from falconet.heads.base import HEADS, IGNORE, ClassRows, Head
from falconet.heads.score_map import ScoreMap, line, neighbours
from falconet.layers import ConvNormActivation
from falconet.layers.fast.fused_losses import computes_losses, pixel_losses

ATROUS_RATES = (6, 12, 18)  # at output stride 16 (arXiv 1706.05587, section 3.3)
RATES_STRIDE = 16
# Numbers a CPU's widest registers hold. Torch's softmax over the last dimension is several times slower with
# fewer classes than that; then one over planes is faster.
VECTOR = 16


@HEADS.register_module()
class DeepLabV3Head(Head):
    """Label every pixel.

    `forward` stays at the map's resolution; scores are enlarged in `loss` and `place`, so that an exported
    model is small and a large picture costs little. The weights do not depend on the stride of the map.

    Args:
        channels, strides: of exactly one map, (B, C, H, W) of any size; MobileNetV2's 'stage7' in the paper.
        num_classes: classes in the data, at most 255. Where the data has a background, it is one of them.
        aspp: add three dense 3x3 convolutions at rates 6, 12, 18 at stride 16; 12, 24, 36 at stride 8;
            3, 6, 9 at stride 32. They follow the stride of the map.
        hidden_channels: channels of every branch and of the projection.
        dropout: probability of dropping a projected feature in training.
        align_corners: enlarge scores with the centres of the corner cells on those of the corner pixels, as
            TensorFlow's deeplab does. With padding 'symmetric' that is where the cells of an image of
            n * stride + 1 pixels are (513 = 32 * 16 + 1).
        class_weights: weight of each class in the loss, `num_classes` numbers; None weighs all alike.
        hard_pixels: share of the labelled pixels of a batch, those with the largest loss, that the loss
            averages over; 1 takes all of them.
        norm_eps: epsilon of the batch norms; TensorFlow's deeplab has 1e-5 in the head.
        norm_momentum: share of the new batch in the running statistics. TensorFlow's deeplab decays by
            0.9997, which is 0.0003 here.

    Raises:
        ValueError: more than one map, another number of weights than classes, more than 255 classes, or a
            share outside 0 to 1.
    """

    task = 'segmentation'
    option_values = MappingProxyType(
        {
            'aspp': SWITCH,
            'hidden_channels': whole(least=1, most=4096),
            'dropout': SHARE,
            'align_corners': SWITCH,
            'class_weights': CLASS_WEIGHTS,
            'hard_pixels': number(),
            **NORM_OPTIONS,
        }
    )
    class_weights: Tensor | None

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        num_classes: int,
        aspp: bool = False,
        hidden_channels: int = 256,
        dropout: float = 0.1,
        align_corners: bool = True,
        class_weights: Sequence[float] | None = None,
        hard_pixels: float = 1.0,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__(channels, strides, num_classes=num_classes)
        check_options(self.option_values, locals())
        if len(channels) != 1:
            raise ValueError(
                f'DeepLabV3Head reads one map, got {len(channels)}: channels {list(channels)}, strides '
                f"{list(strides)}. Give the backbone one tap, for example taps=('stage7',)"
            )
        if num_classes > IGNORE:
            raise ValueError(f'at most {IGNORE} classes fit beside the ignore label, got {num_classes}')
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(
                f'class_weights has {len(class_weights)} numbers, the data has {num_classes} classes'
            )
        if not 0 < hard_pixels <= 1:
            raise ValueError(f'hard_pixels is a share above 0 and at most 1, got {hard_pixels}')
        self.align_corners = align_corners
        self.hard_pixels = hard_pixels
        layer = partial(
            ConvNormActivation, activation=nn.ReLU, norm_eps=norm_eps, norm_momentum=norm_momentum
        )
        in_channels = channels[0]
        self.rates = tuple(max(1, round(rate * RATES_STRIDE / strides[0])) for rate in ATROUS_RATES)
        self.pool = layer(in_channels, hidden_channels)
        self.branches = nn.ModuleList([layer(in_channels, hidden_channels)])
        for rate in self.rates if aspp else ():
            self.branches.append(layer(in_channels, hidden_channels, 3, dilation=rate))
        joined = hidden_channels * (1 + len(self.branches))
        self.project = layer(joined, hidden_channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(hidden_channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.classifier:
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
        # The classifier keeps torch's start, which follows its inputs: a network from scratch takes longer
        # to get going from TensorFlow's normal of 0.01.
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]  # it has one
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # Not persistent: it shapes training only, and a checkpoint must load with or without it.
        self.register_buffer('class_weights', weights, persistent=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits at the map's resolution, (B, num_classes, H, W)."""
        (cells,) = features
        pooled = self.pool(F.adaptive_avg_pool2d(cells, 1))  # (B, hidden, 1, 1)
        if torch.compiler.is_exporting():
            return self.classifier(self._project_apart(pooled, [branch(cells) for branch in self.branches]))
        pooled = pooled.expand(-1, -1, cells.shape[2], cells.shape[3])
        joined = torch.cat([pooled, *(branch(cells) for branch in self.branches)], dim=1)
        return self.classifier(self.dropout(self.project(joined)))

    def _project_apart(self, pooled: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Project as `forward` does, the pooled branch by itself, which LiteRT refuses to spread."""
        convolution, *rest = self.project
        pooled_weight, weight = convolution.weight.split(  # type: ignore[operator]
            [pooled.shape[1], convolution.in_channels - pooled.shape[1]],  # type: ignore[operator]
            dim=1,
        )
        projected = F.conv2d(torch.cat([*maps], dim=1), weight, convolution.bias)  # type: ignore[arg-type]
        projected = projected + F.conv2d(pooled, pooled_weight)
        for layer in rest:
            projected = layer(projected)
        return projected

    def enlarge(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Return logits (B, C, h, w) enlarged bilinearly to `size` = (height, width)."""
        # Classes side by side in memory: several times faster to enlarge and to compare on a CPU.
        logits = logits.contiguous(memory_format=torch.channels_last)
        return F.interpolate(logits, size=tuple(size), mode='bilinear', align_corners=self.align_corners)

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy over the labelled pixels, and the share of them that is right for the log.

        Args:
            outputs: logits, (B, num_classes, h, w).
            targets: class indices of the input's pixels, integers (B, H, W); 255 is ignored. A batch
                without a single labelled pixel has loss 0.
        """
        losses, right = self._pixel_losses(outputs, targets)
        labelled = (targets != IGNORE).reshape(-1)
        weights = labelled.to(losses.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights[targets.long().reshape(-1).masked_fill(~labelled, 0)]
            losses = losses * weights
        if self.hard_pixels < 1:
            kept = max(1, int(self.hard_pixels * int(labelled.sum())))
            losses, hardest = losses.topk(kept, sorted=False)
            weights = weights[hardest]
        accuracy = right.sum() / (_some(targets) != IGNORE).sum().clamp(min=1)
        smallest = torch.finfo(losses.dtype).tiny
        return {
            'loss_pixel': losses.sum() / weights.sum().clamp(min=smallest),
            'pixel_accuracy': accuracy,
        }

    def _pixel_losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return every pixel's cross-entropy, (B * H * W,), and which of `_some` are right, (B, ..., ...)."""
        size = targets.shape[1:]
        if computes_losses(outputs) and targets.dtype == torch.uint8:
            (high, wide), (height, width) = outputs.shape[2:], size
            rows = neighbours(high, height, align_corners=self.align_corners)
            columns = line(wide, width, width, width, align_corners=self.align_corners)
            losses, right = pixel_losses(outputs, targets, rows, columns)
            return losses.reshape(-1), _some(right)
        targets, logits = targets.long(), self.enlarge(outputs, size)
        how: dict[str, Any] = {'ignore_index': IGNORE, 'reduction': 'none'}
        if self.num_classes < VECTOR:
            losses = F.cross_entropy(logits.contiguous(), targets, **how).reshape(-1)
        else:
            rows = logits.permute(0, 2, 3, 1).reshape(-1, self.num_classes)  # (B * H * W, C), no copy
            losses = F.cross_entropy(rows, targets.reshape(-1), **how)
        with torch.no_grad():
            right = _some(logits).argmax(dim=1) == _some(targets)
        return losses, right

    def translate(self, layout: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate the scopes of TensorFlow's deeplab, and those of transformers, which has no pyramid.

        'image_pooling', 'aspp0' to 'aspp3', 'concat_projection' and 'logits/semantic'; or, below
        'segmentation_head', 'conv_pool', 'conv_aspp', 'conv_projection' and 'classifier'.
        """
        if layout == 'deeplab':
            places = {f'aspp{branch}': f'branches.{branch}' for branch in range(1 + len(self.rates))}
            places |= {'image_pooling': 'pool', 'concat_projection': 'project'}
            classifier, separator, convolution = 'logits/semantic', '/', 'conv'
        elif layout == 'transformers':
            places = {'conv_pool': 'pool', 'conv_aspp': 'branches.0', 'conv_projection': 'project'}
            places = {f'segmentation_head.{theirs}': ours for theirs, ours in places.items()}
            classifier, separator, convolution = 'segmentation_head.classifier', '.', 'convolution'
        else:
            return {}
        state = {}
        for name, value in tensors.items():
            path, attribute = name.rsplit('.', 1)
            scope, _, kind = path.rpartition(separator)
            if scope in places:
                state[f'{places[scope]}.{0 if kind == convolution else 1}.{attribute}'] = value
            elif scope == classifier:
                state[f'classifier.{attribute}'] = value
        return state

    def class_rows(self) -> dict[str, ClassRows]:
        """One row a class; a background is one of the classes."""
        return {'classifier.weight': ClassRows(), 'classifier.bias': ClassRows()}

    def decode(self, outputs: Tensor, *, input_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Return `scores`, logits (B, num_classes, h, w) of the map's cells, or of the input's pixels."""
        return {'scores': outputs if input_size is None else self.enlarge(outputs, input_size)}

    def place(
        self,
        answer: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int] | None = None,
        content_sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return `mask`, the best class of every pixel of the original image, uint8 (H, W).

        Scores of cells are enlarged to the network's input, those of pixels stay; they are cut to the part
        the image fills. Where the original has another size, they are resized once more, one class at a time:
        memory never holds a score of every class for every pixel of a large photograph. Classes that cannot
        win anywhere take no part.
        """
        scores = answer['scores']
        if input_size is None:
            input_size = (scores.shape[2] * self.strides[0], scores.shape[3] * self.strides[0])
        contents = content_sizes or [None] * len(image_sizes)
        answers = []
        for cells, size, content in zip(scores.split(1), image_sizes, contents, strict=True):
            height, width = content or input_size
            classes = possible_winners(cells)
            pixels = self.enlarge(cells[:, classes], input_size)[:, :, :height, :width]
            if (height, width) == tuple(size):
                mask = classes.to(torch.uint8)[pixels.argmax(dim=1)[0]].cpu().numpy()
            else:
                mask = resized_winner(pixels, classes.tolist(), size)
            answers.append({'mask': mask})
        return answers

    def score_maps(
        self,
        outputs: Tensor,
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int],
        content_sizes: Sequence[tuple[int, int] | None],
    ) -> list[ScoreMap]:
        """Return the scores of every pixel of each image, of which `place` says the best; see `predict`."""
        maps = []
        for cells, size, content in zip(outputs.cpu(), image_sizes, content_sizes, strict=True):
            rows, columns = (
                line(*each, align_corners=self.align_corners)
                for each in zip(cells.shape[1:], input_size, content or input_size, size, strict=True)
            )
            maps.append(ScoreMap(cells, rows, columns))
        return maps


def _some(pixels: Tensor) -> Tensor:
    """Every fourth pixel each way, which tell as much about the state of training: (..., H, W)."""
    return pixels[..., ::4, ::4]


def possible_winners(cells: Tensor) -> Tensor:
    """Return the classes that can score highest somewhere after a bilinear enlargement.

    Between four cells a class is never above its highest of the four scores, nor below its lowest: where
    another's lowest is above its highest it cannot win. Usually few classes are left.

    Args:
        cells: (1, C, h, w).

    Returns:
        Class indices in ascending order, at least one, int64 (K,).
    """
    highest, lowest = _of_neighbours(cells, torch.maximum), _of_neighbours(cells, torch.minimum)
    bar = lowest.amax(dim=1, keepdim=True)
    bar = bar - 1e-4 * (1 + bar.abs())  # rounding of the enlargement
    loses = (highest < bar).all(dim=3).all(dim=2)[0]  # (C,); False where scores are not a number
    return (~loses).nonzero()[:, 0]


def _of_neighbours(cells: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return what `pick` leaves of each square of four cells: (..., h, w) -> (..., h - 1, w - 1).

    On maps this small `max_pool2d`, which wakes all threads and knows no least, takes twice the time.
    """
    for side in (-2, -1):
        if (length := cells.shape[side]) > 1:
            cells = pick(cells.narrow(side, 0, length - 1), cells.narrow(side, 1, length - 1))
    return cells


def resized_winner(scores: Tensor, classes: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Return which class scores highest at every pixel after a bilinear resize.

    One class at a time, by OpenCV and NumPy, whose loops over one plane take half of torch's time.

    Args:
        scores: (1, K, h, w).
        classes: the number of each of the K, ascending, 0 to 255.
        size: (height, width) to resize to.

    Returns:
        Class numbers, uint8 (height, width); the first of those that score alike.
    """
    winner = np.full(tuple(size), classes[0], np.uint8)
    if len(classes) == 1:
        return winner
    first, *others = scores[0].detach().float().cpu().contiguous().numpy()
    target, how = (size[1], size[0]), cv2.INTER_LINEAR
    best = cv2.resize(first, target, interpolation=how)
    plane, above = np.empty_like(best), np.empty(winner.shape, bool)
    for label, other in zip(classes[1:], others, strict=True):
        cv2.resize(other, target, dst=plane, interpolation=how)
        np.greater(plane, best, out=above)
        numbers = np.multiply(above.view(np.uint8), np.uint8(label), out=above.view(np.uint8))
        np.maximum(winner, numbers, out=winner)  # ascending: larger than every number before it
        np.maximum(best, plane, out=best)
    return winner
