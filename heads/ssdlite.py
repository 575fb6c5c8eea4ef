"""SSDLite: SSD's single-shot detector with depthwise-separable extra maps and predictors.

Papers: SSD, arXiv 1512.02325; MobileNetV2, arXiv 1801.04381, section 6.2. Layout, box code, losses and
post-processing are those of the TensorFlow Object Detection API (`ssd_mobilenet_v2_feature_extractor`,
`convolutional_box_predictor`, `ssd_meta_arch`), whose weights give the same boxes here.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from falconet.core.options import NORM_OPTIONS, SHARE, SWITCH, check_options, number, one_of, sequence, whole
from falconet.heads.base import HEADS, ClassRows, Head
from falconet.heads.boxes import (
    box_shapes,
    corners_of,
    covered,
    decode,
    default_boxes,
    encode,
    hard_negatives,
    match,
)
from falconet.heads.class_losses import cross_entropy, focal_loss
from falconet.heads.nms_op import place_boxes, suppress_batch
from falconet.heads.pyramid import FeaturePyramid
from falconet.layers import ConvNormActivation
from falconet.layers.conv import PADDINGS

EXTRA_CHANNELS = (512, 256, 256, 128)
SCORES = ('sigmoid', 'softmax')
SPACINGS = ('linear', 'geometric')
CLASS_LOSSES = ('hard_negatives', 'focal')


@HEADS.register_module()
class SSDLiteHead(Head):
    """Find objects: a class and a box for each.

    Reads two or more maps, for MobileNetV2 `taps=('stage6_expand', 'last')`, and adds four smaller ones. Each
    cell of each map has a few default boxes of fixed size; for every one of them the head predicts how an
    object's box differs from it, and a score per class, background included.

    Args:
        channels, strides: of the backbone's maps.
        num_classes: classes in the data, without background.
        extra_channels: channels of the maps added after the backbone's last one; each halves the resolution.
        pyramid_channels: of the maps that a top-down path makes of all these, so that fine ones know what
            coarse ones saw; 0 predicts from the maps as they are, as SSD does. See `heads.pyramid`.
        separable: depthwise-separable convolutions, SSDLite; False gives SSD's full ones, for comparison.
        padding: 'same' as in TensorFlow, or 'symmetric'; must be the backbone's for weights to fit.
        min_scale, max_scale: size of the default boxes on the first and last map, in fractions of the input.
        scale_spacing: of the sizes between: 'linear', or 'geometric', by equal ratios.
        small_first_map: three small default boxes instead of six on the first map.
        scores: 'sigmoid' as in TensorFlow, or 'softmax' as in the SSD paper.
        class_loss: 'hard_negatives' learns from three background boxes for each one that has an object,
            those with the largest loss; 'focal' learns from all (needs scores='sigmoid').
        negative_ratio, min_negatives: of 'hard_negatives': background boxes for each one with an object, and
            at least that many in an image.
        focal_alpha, focal_gamma: of 'focal'; see `torchvision.ops.sigmoid_focal_loss`.
        label_smoothing: share of the goal that is spread evenly over all columns, background included, as in
            `torch.nn.functional.cross_entropy`; with 'focal' by `heads.class_losses.focal_loss`.
        match_threshold: least IoU at which a default box is to find an object.
        box_weight: weight of the box loss against the class loss.
        score_threshold, nms_threshold, per_class, limit: what `decode` keeps; see `heads.boxes.suppress`.
        norm_eps, norm_momentum: of the batch norms. TensorFlow's are 1e-3 and 0.0003; the momentum is higher
            here because few train as long.

    Raises:
        ValueError: fewer than two maps, or an option outside what is named above.
    """

    task = 'detection'
    option_values = MappingProxyType(
        {
            **NORM_OPTIONS,
            **dict.fromkeys(('separable', 'small_first_map'), SWITCH),
            **dict.fromkeys(('min_scale', 'max_scale'), number(above=0, most=4)),
            **dict.fromkeys(('negative_ratio', 'focal_gamma', 'box_weight'), number(least=0)),
            **dict.fromkeys(('match_threshold', 'score_threshold', 'nms_threshold'), SHARE),
            **dict.fromkeys(('per_class', 'limit'), whole(least=1, most=10_000)),
            'extra_channels': sequence(whole(least=1, most=4096), '0 to 8 whole numbers in 1..4096', most=8),
            'pyramid_channels': whole(least=0, most=4096),
            'padding': one_of(*PADDINGS),
            'scale_spacing': one_of(*SPACINGS),
            'scores': one_of(*SCORES),
            'class_loss': one_of(*CLASS_LOSSES),
            'min_negatives': whole(least=0),
            'focal_alpha': number(least=-1, most=1),  # below 0 switches it off, as in torchvision
            'label_smoothing': number(least=0, below=1),
        }
    )
    min_maps = 2

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        num_classes: int,
        extra_channels: Sequence[int] = EXTRA_CHANNELS,
        pyramid_channels: int = 0,
        separable: bool = True,
        padding: str = 'same',
        min_scale: float = 0.2,
        max_scale: float = 0.95,
        scale_spacing: str = 'linear',
        small_first_map: bool = True,
        scores: str = 'sigmoid',
        class_loss: str = 'hard_negatives',
        negative_ratio: float = 3.0,
        min_negatives: int = 3,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        label_smoothing: float = 0.0,
        match_threshold: float = 0.5,
        box_weight: float = 1.0,
        score_threshold: float = 1e-8,
        nms_threshold: float = 0.6,
        per_class: int = 100,
        limit: int = 100,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.03,
    ) -> None:
        super().__init__(channels, strides, num_classes=num_classes)
        check_options(self.option_values, locals())
        if class_loss == 'focal' and scores != 'sigmoid':
            raise ValueError("class_loss='focal' needs scores='sigmoid'")
        self.scores, self.class_loss = scores, class_loss
        self.negative_ratio, self.min_negatives = negative_ratio, min_negatives
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.label_smoothing = label_smoothing
        self.match_threshold, self.box_weight = match_threshold, box_weight
        self.suppression = {
            'score_threshold': score_threshold,
            'iou_threshold': nms_threshold,
            'per_class': per_class,
            'limit': limit,
        }
        self.separable = separable
        self.columns = num_classes + 1  # column 0 is the background
        norm = {'norm_eps': norm_eps, 'norm_momentum': norm_momentum}
        layer = partial(ConvNormActivation, padding=padding, **norm)

        self.extras = nn.ModuleList()
        map_channels = list(channels)
        for width in extra_channels:
            self.extras.append(extra_map(map_channels[-1], width, separable=separable, layer=layer))
            map_channels.append(width)
        self.pyramid = None
        if pyramid_channels:
            self.pyramid = FeaturePyramid(map_channels, pyramid_channels, separable=separable, layer=layer)
            map_channels = [pyramid_channels] * len(map_channels)
        self.shapes = box_shapes(
            len(map_channels),
            min_scale=min_scale,
            max_scale=max_scale,
            spacing=scale_spacing,
            small_first_map=small_first_map,
        )
        self.box_predictors = nn.ModuleList()
        self.class_predictors = nn.ModuleList()
        for width, shapes in zip(map_channels, self.shapes, strict=True):
            for predictors, outputs in ((self.box_predictors, 4), (self.class_predictors, self.columns)):
                predictors.append(
                    map_predictor(width, len(shapes) * outputs, separable=separable, layer=layer)
                )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.03, a=-0.06, b=0.06)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.class_loss == 'focal':
            # Every box starts as 1 % likely an object: else the many background boxes drown the rest
            # (RetinaNet, arXiv 1708.02002, section 4.1).
            start = torch.full((self.columns,), -math.log(99))
            start[0] = math.log(99)
            for predictor in self.class_predictors:
                bias = list(predictor.parameters())[-1]
                bias.data = start.repeat(len(bias) // self.columns)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Predict for every default box.

        Returns:
            offsets: (B, N, 4), in the code of `heads.boxes.encode`.
            logits: (B, N, 1 + num_classes), background first.
            defaults: the default boxes, float32 (N, 4) unit cxcywh.
        """
        maps = list(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        if self.pyramid is not None:
            maps = self.pyramid(maps)
        offsets, logits = [], []
        for tensor, to_boxes, to_classes in zip(
            maps, self.box_predictors, self.class_predictors, strict=True
        ):
            batch = tensor.shape[0]
            # (B, A * k, H, W) -> (B, H * W * A, k)
            offsets.append(to_boxes(tensor).permute(0, 2, 3, 1).reshape(batch, -1, 4))
            logits.append(to_classes(tensor).permute(0, 2, 3, 1).reshape(batch, -1, self.columns))
        grids = [(tensor.shape[2], tensor.shape[3]) for tensor in maps]
        return {
            'offsets': torch.cat(offsets, dim=1),
            'logits': torch.cat(logits, dim=1),
            'defaults': default_boxes(grids, self.shapes, device=features[0].device),
        }

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Class and box loss, both divided by the number of default boxes that have an object.

        Args:
            outputs: what `forward` returned.
            targets: for each image `boxes_unit`, float (M, 4) xyxy in fractions of the input; `labels`,
                int64 (M,); and optionally `crowd`, bool (M,): regions that are neither object nor background.
        """
        offsets, logits, defaults = outputs['offsets'], outputs['logits'], outputs['defaults']
        wanted, codes, ignored = self._assign(targets, defaults)
        positive = wanted > 0  # (B, N)
        matched = positive.sum()
        # Over all processes, so that the gradient does not depend on how objects are spread over them.
        normaliser = matched.float()
        all_reduce(normaliser, op='mean')
        normaliser = normaliser.clamp(min=1.0)

        box_loss = F.smooth_l1_loss(offsets[positive], codes[positive], reduction='sum')
        if self.class_loss == 'focal':
            goal = F.one_hot(wanted[~ignored], self.columns).to(logits.dtype)
            options = {'alpha': self.focal_alpha, 'gamma': self.focal_gamma}
            class_loss = focal_loss(logits[~ignored], goal, smoothing=self.label_smoothing, **options)
        else:
            losses = cross_entropy(logits, wanted, scores=self.scores, smoothing=self.label_smoothing)
            negative = hard_negatives(
                losses.detach(),
                positive,
                ratio=self.negative_ratio,
                minimum=self.min_negatives,
                ignored=ignored,
            )
            class_loss = losses[positive | negative].sum()
        return {
            'loss_class': class_loss / normaliser,
            'loss_box': self.box_weight * box_loss / normaliser,
            'matched': matched.float() / len(targets),
        }

    def _assign(
        self, targets: Sequence[Mapping[str, Tensor]], defaults: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give every default box its goal.

        Returns:
            Columns, int64 (B, N), 0 for background; codes, float32 (B, N, 4), zero for background; and which
            boxes are neither, bool (B, N), because they lie in a crowd.
        """
        corners = corners_of(defaults)
        columns = torch.zeros(len(targets), len(defaults), dtype=torch.int64, device=defaults.device)
        codes = defaults.new_zeros(len(targets), len(defaults), 4)
        ignored = torch.zeros_like(columns, dtype=torch.bool)
        for row, target in enumerate(targets):
            boxes, labels = target['boxes_unit'].float(), target['labels']
            if (crowd := target.get('crowd')) is not None and crowd.any():
                ignored[row] = covered(corners, boxes[crowd])
                boxes, labels = boxes[~crowd], labels[~crowd]
            if len(boxes) == 0:
                continue
            matches = match(boxes, corners, threshold=self.match_threshold)
            found = matches >= 0
            columns[row, found] = labels[matches[found]] + 1
            codes[row, found] = encode(boxes[matches[found]], defaults[found])
        return columns, codes, ignored & (columns == 0)

    def translate(self, layout: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate the Object Detection API's scopes.

        'layer_19_1_Conv2d_K_1x1_W' reduces, 'layer_19_2_Conv2d_K_3x3_s2_W_depthwise' and the same without
        '_depthwise' make extra map K - 2; 'BoxPredictor_M/ClassPredictor' and '.../BoxEncodingPredictor',
        each beside one ending in '_depthwise', predict from map M. TensorFlow writes y before x.
        """
        if layout != 'object_detection':
            return {}
        state = {}
        for name, value in tensors.items():
            scope, _, leaf = name.rpartition('/')
            kind, attribute = leaf.split('.')
            place = f'{"0" if kind == "conv" else "1"}.{attribute}'  # inside a ConvNormActivation
            if found := re.fullmatch(r'layer_19_([12])_Conv2d_(\d+)_\w+?(_depthwise)?', scope):
                step = 0 if found[1] == '1' else 1 if found[3] else 2
                state[f'extras.{int(found[2]) - 2}.{step}.{place}'] = value
            elif found := re.fullmatch(
                r'BoxPredictor_(\d+)/(Class|BoxEncoding)Predictor(_depthwise)?', scope
            ):
                predictors = 'class_predictors' if found[2] == 'Class' else 'box_predictors'
                if found[3]:
                    state[f'{predictors}.{found[1]}.0.{place}'] = value
                    continue
                if found[2] == 'BoxEncoding':
                    yx = value.view(-1, 4, *value.shape[1:])  # (A, [y, x, h, w], ...)
                    value = yx[:, [1, 0, 3, 2]].reshape(value.shape)
                state[f'{predictors}.{found[1]}.1.{attribute}'] = value
        return state

    def class_rows(self) -> dict[str, ClassRows]:
        """For each default box of a cell a background row, then one a class."""
        return {
            # The last layer of a predictor, with or without a depthwise one before it.
            f'class_predictors.{place}.{int(self.separable)}.{name}': ClassRows(len(shapes), background=1)
            for place, shapes in enumerate(self.shapes)
            for name in ('weight', 'bias')
        }

    def decode(
        self, outputs: Mapping[str, Tensor], *, input_size: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """Return the best boxes, in fractions of the input, unclipped; see `suppress_batch`."""
        boxes = decode(outputs['offsets'], outputs['defaults'])  # (B, N, 4), unit
        logits = outputs['logits']
        scores = logits.sigmoid() if self.scores == 'sigmoid' else logits.softmax(dim=2)
        return suppress_batch(boxes, scores[..., 1:], **self.suppression)

    def place(
        self,
        answer: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        input_size: tuple[int, int] | None = None,
        content_sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the boxes of each image in its pixels; see `place_boxes`."""
        return place_boxes(answer, image_sizes, input_size=input_size, content_sizes=content_sizes)


def extra_map(in_channels: int, out_channels: int, *, separable: bool, layer: Any) -> nn.Sequential:
    """1x1 to half the channels, then a 3x3 at stride 2: depthwise and 1x1, or full."""
    thin = out_channels // 2
    if not separable:
        return nn.Sequential(layer(in_channels, thin), layer(thin, out_channels, 3, stride=2))
    return nn.Sequential(
        layer(in_channels, thin),
        layer(thin, thin, 3, stride=2, groups=thin),
        layer(thin, out_channels),
    )


def map_predictor(in_channels: int, out_channels: int, *, separable: bool, layer: Any) -> nn.Sequential:
    """3x3 depthwise, then 1x1 with bias; or one full 3x3 with bias."""
    if not separable:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1))
    return nn.Sequential(
        layer(in_channels, in_channels, 3, groups=in_channels), nn.Conv2d(in_channels, out_channels, 1)
    )
