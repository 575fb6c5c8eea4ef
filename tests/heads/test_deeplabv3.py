"""DeepLabV3Head computes what the papers, torchvision and TensorFlow say."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation.deeplabv3 import ASPP

from falconet.backbones import MobileNetV2
from falconet.backbones.weights.files import read_state_dict
from falconet.backbones.weights.load import copy_matching
from falconet.backbones.weights.split import split_weights
from falconet.heads import DeepLabV3Head
from falconet.heads.deeplabv3 import possible_winners
from falconet.layers.fast.fused import fused_kernels

# (pyramid, output stride) -> parameters with 21 classes, and multiply-adds counted on an independent build:
# at stride 16 one pass at 513 x 513, at stride 8 six scales (0.5 to 1.75) and their mirror images.
# The paper prints 2.75 B, 152.6 B, 5.8 B and 387 B: with the pyramid it counts atrous convolutions as
# TensorFlow 1 ran them, over maps padded to a multiple of the rate.
COUNTED = {
    (False, 16): (2_113_557, 2.741e9),
    (False, 8): (2_113_557, 152.3e9),
    (True, 16): (4_523_541, 5.364e9),
    (True, 8): (4_523_541, 327.9e9),
}


@pytest.mark.parametrize(('aspp', 'output_stride'), COUNTED)
def test_parameters_and_multiply_adds_are_the_counted_ones(aspp: bool, output_stride: int) -> None:
    passes = [1.0] if output_stride == 16 else [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] * 2
    total = 0
    with torch.device('meta'):
        backbone = MobileNetV2(taps=('stage7',), output_stride=output_stride).eval()
        head = DeepLabV3Head(backbone.channels, backbone.strides, num_classes=21, aspp=aspp).eval()
        for scale in passes:
            side = int(512 * scale + 1)
            with FlopCounterMode(display=False) as counter:
                head(backbone(torch.empty(1, 3, side, side)))
            total += counter.get_total_flops() // 2
    parameters, multiply_adds = COUNTED[aspp, output_stride]
    assert sum(p.numel() for each in (backbone, head) for p in each.parameters()) == parameters
    assert total == pytest.approx(multiply_adds, rel=5e-4)  # four digits are given


def shake(module: nn.Module) -> nn.Module:
    """Give every norm statistics that are not those of a fresh one."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.uniform_(-0.3, 0.3)
            each.running_var.uniform_(0.5, 1.5)
            each.weight.data.uniform_(0.5, 1.5)
            each.bias.data.uniform_(-0.3, 0.3)
    return module


@pytest.mark.parametrize('stride', [8, 16])
def test_pyramid_equals_torchvisions(stride: int) -> None:
    """torchvision's ASPP has the pooled branch last; its rates are given by hand, ours follow the stride."""
    torch.manual_seed(0)
    rates = {8: [12, 24, 36], 16: [6, 12, 18]}[stride]
    theirs = shake(ASPP(40, rates)).eval()
    head = DeepLabV3Head((40,), (stride,), num_classes=5, aspp=True).eval()
    head.pool[0].load_state_dict(theirs.convs[4][1].state_dict())
    head.pool[1].load_state_dict(theirs.convs[4][2].state_dict())
    for ours, branch in zip(head.branches, theirs.convs[:4], strict=True):
        ours[0].load_state_dict(branch[0].state_dict())
        ours[1].load_state_dict(branch[1].state_dict())
    weight = theirs.project[0].weight.data.split(256, dim=1)
    head.project[0].weight.data = torch.cat([weight[4], *weight[:4]], dim=1)
    head.project[1].load_state_dict(theirs.project[1].state_dict())
    cells = torch.randn(2, 40, 17, 23)
    with torch.no_grad():
        torch.testing.assert_close(head([cells]), head.classifier(theirs(cells)))


@pytest.mark.parametrize(('stride', 'rates'), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_rates_follow_the_stride_and_weights_do_not(stride: int, rates: tuple) -> None:
    head = DeepLabV3Head((8,), (stride,), num_classes=2, aspp=True)
    assert tuple(branch[0].dilation[0] for branch in head.branches[1:]) == rates
    assert all(branch[0].padding == branch[0].dilation for branch in head.branches[1:])
    other = DeepLabV3Head((8,), (16,), num_classes=2, aspp=True)
    other.load_state_dict(head.state_dict())


def test_head_goes_on_a_timm_backbone() -> None:
    backbone = timm.create_model('resnet18', features_only=True, out_indices=(4,), output_stride=16)
    info = backbone.feature_info
    head = DeepLabV3Head(info.channels(), info.reduction(), num_classes=4, aspp=True).eval()
    with torch.no_grad():
        logits = head(backbone.eval()(torch.rand(1, 3, 65, 97)))
    assert logits.shape == (1, 4, 5, 7)
    (answer,) = head.predict(logits, [(65, 97)], input_size=(65, 97))
    assert answer['mask'].shape == (65, 97)


@pytest.mark.parametrize('aspp', [False, True])
def test_a_batch_of_one_trains_and_keeps_the_pooled_statistics(aspp: bool) -> None:
    torch.manual_seed(0)
    head = DeepLabV3Head((8,), (16,), num_classes=3, aspp=aspp, hidden_channels=16)
    shake(head)
    before = {key: value.clone() for key, value in head.pool[1].state_dict().items()}
    loss = head.loss(head([torch.randn(1, 8, 5, 5)]), torch.randint(0, 3, (1, 65, 65)))['loss_pixel']
    loss.backward()
    assert all(each.grad is not None for each in head.parameters())
    assert all(torch.equal(value, before[key]) for key, value in head.pool[1].state_dict().items())
    # The pooled branch is what it would be in evaluation, not a constant.
    pooled = torch.randn(1, 8, 1, 1)
    in_training = head.pool(pooled)
    torch.testing.assert_close(in_training, head.pool.eval()(pooled))
    head.train()
    head([torch.randn(2, 8, 5, 5)])
    assert not torch.equal(head.pool[1].running_mean, before['running_mean'])


def test_one_pixel_of_one_image_trains() -> None:
    head = DeepLabV3Head((8,), (32,), num_classes=3, aspp=True, hidden_channels=16)
    head.loss(head([torch.randn(1, 8, 1, 1)]), torch.tensor([[[2]]]))['loss_pixel'].backward()
    assert all(torch.isfinite(each.grad).all() for each in head.parameters())


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('weights', [None, [0.5, 2.0, 1.0]])
def test_loss_is_torchs_cross_entropy_of_the_enlarged_scores(weights: list | None, fused: bool) -> None:
    torch.manual_seed(0)
    head = DeepLabV3Head((4,), (16,), num_classes=3, class_weights=weights)
    logits, labels = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 65, 97))
    labels[:, :10] = 255
    large = F.interpolate(logits, (65, 97), mode='bilinear', align_corners=True)
    expected = F.cross_entropy(
        large, labels, weight=None if weights is None else torch.tensor(weights), ignore_index=255
    )
    with fused_kernels(fused):
        losses = head.loss(logits, labels.to(torch.uint8))
    torch.testing.assert_close(losses['loss_pixel'], expected)
    some, some_labels = large[:, :, ::4, ::4].argmax(1), labels[:, ::4, ::4]
    right = (some == some_labels)[some_labels != 255].float().mean()
    torch.testing.assert_close(losses['pixel_accuracy'], right)


def test_a_prediction_before_it_does_not_disturb_training() -> None:
    head = DeepLabV3Head((4,), (16,), num_classes=3)
    logits = torch.randn(1, 3, 3, 4, requires_grad=True)
    sizes: dict = {'input_size': (39, 53), 'content_sizes': [None]}
    with torch.inference_mode():
        head.score_maps(logits.detach(), [(39, 53)], **sizes)
        head.loss(logits, torch.zeros(1, 39, 53, dtype=torch.uint8))
    with fused_kernels():
        head.loss(logits, torch.zeros(1, 39, 53, dtype=torch.uint8))['loss_pixel'].backward()
    assert logits.grad is not None


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('weights', [None, [0.5, 2.0, 1.0]])
def test_hard_pixels_average_the_largest_losses(weights: list | None, fused: bool) -> None:
    torch.manual_seed(0)
    head = DeepLabV3Head((4,), (16,), num_classes=3, class_weights=weights, hard_pixels=0.25)
    logits, labels = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 65, 65))
    labels[0] = 255
    large = F.interpolate(logits, (65, 65), mode='bilinear', align_corners=True)
    scale = torch.ones(3) if weights is None else torch.tensor(weights)
    each = F.cross_entropy(large[1:], labels[1:], weight=scale, reduction='none').flatten()
    hardest = each.argsort(descending=True)[: int(0.25 * 65 * 65)]
    expected = each[hardest].sum() / scale[labels[1].flatten()[hardest]].sum()
    with fused_kernels(fused):
        found = head.loss(logits, labels.to(torch.uint8))['loss_pixel']
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('options', [{}, {'hard_pixels': 0.2}, {'class_weights': [1.0, 2.0, 3.0]}])
def test_a_batch_without_a_labelled_pixel_has_loss_zero(options: dict, fused: bool) -> None:
    head = DeepLabV3Head((4,), (16,), num_classes=3, **options)
    logits = torch.randn(2, 3, 3, 3, requires_grad=True)
    with fused_kernels(fused):
        losses = head.loss(logits, torch.full((2, 33, 33), 255, dtype=torch.uint8))
        losses['loss_pixel'].backward()
    assert losses['loss_pixel'] == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize('align_corners', [True, False])
def test_prediction_is_the_best_class_of_the_enlarged_scores(align_corners: bool) -> None:
    torch.manual_seed(0)
    head = DeepLabV3Head((4,), (16,), num_classes=6, align_corners=align_corners)
    logits = torch.randn(2, 6, 5, 7)
    large = F.interpolate(logits, (65, 97), mode='bilinear', align_corners=align_corners)
    # The first image fills 40 x 60 pixels of the input; the second was shrunk to 65 x 97 from 130 x 194.
    first, second = head.predict(
        logits, [(40, 60), (130, 194)], input_size=(65, 97), content_sizes=[(40, 60), None]
    )
    assert first['mask'].dtype == np.uint8
    np.testing.assert_array_equal(first['mask'], large[0, :, :40, :60].argmax(0).numpy())
    whole = F.interpolate(large[1:], (130, 194), mode='bilinear', align_corners=False)[0].argmax(0).numpy()
    assert second['mask'].shape == (130, 194)
    np.testing.assert_array_equal(second['mask'], whole)


def test_only_classes_that_can_win_are_enlarged() -> None:
    cells = torch.stack([torch.full((4, 4), value) for value in (1.0, 3.0, 2.0)])[None]
    assert possible_winners(cells).tolist() == [1]
    cells[0, 2, 0, 0] = 2.9  # between two cells class 1 is still 3
    assert possible_winners(cells).tolist() == [1]
    cells[0, 1, 0, 0] = 2.8
    assert possible_winners(cells).tolist() == [1, 2]


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('shape', [(5, 7), (1, 6), (1, 1)])
@pytest.mark.parametrize('spread', [0.1, 1.0, 5.0])
def test_leaving_out_losers_changes_no_pixel(
    shape: tuple[int, int], align_corners: bool, spread: float
) -> None:
    torch.manual_seed(0)
    head = DeepLabV3Head((4,), (16,), num_classes=9, align_corners=align_corners)
    logits = torch.randn(1, 9, *shape) + spread * torch.randn(1, 9, 1, 1)
    size = (16 * shape[0], 16 * shape[1])
    expected = F.interpolate(logits, size, mode='bilinear', align_corners=align_corners)[0].argmax(0)
    mask = head.predict(logits, [size])[0]['mask']
    np.testing.assert_array_equal(mask, expected.numpy())
    if spread == 5.0:
        assert len(possible_winners(logits)) < 9


def test_scores_that_are_no_numbers_still_give_a_mask() -> None:
    head = DeepLabV3Head((4,), (16,), num_classes=3)
    assert head.predict(torch.full((1, 3, 2, 2), torch.nan), [(32, 32)])[0]['mask'].shape == (32, 32)


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        (((96, 320), (16, 32)), {}, r"one map, got 2: channels \[96, 320\].*taps=\('stage7',\)"),
        (((320,), (16,)), {'class_weights': [1.0]}, '1 numbers, the data has 3'),
        (((320,), (16,)), {'hard_pixels': 0.0}, 'hard_pixels is a share'),
        (((320,), (16,)), {'num_classes': 256}, 'at most 255 classes'),
    ],
)
def test_a_wrong_fit_is_explained(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepLabV3Head(*arguments, **{'num_classes': 3, **options})


@pytest.fixture
def tensorflow_weights(real_data: Path) -> Path:
    return real_data / 'weights/deeplabv3_mobilenetv2_050_voc_tf_folded.npz'


def test_logits_equal_tensorflows(real_data: Path, tensorflow_weights: Path) -> None:
    """Weights, dilation, padding, pooling and enlarging at once."""
    parts = split_weights(read_state_dict(tensorflow_weights), source='')
    backbone = MobileNetV2(
        width=0.5, channel_divisor=1, output_stride=8, padding='same', taps=('stage7',), norm_eps=1e-3
    )
    head = DeepLabV3Head(backbone.channels, backbone.strides, num_classes=21)
    backbone.load_state_dict(parts.backbone)
    assert head.load_state_dict(head.translate(parts.layout, parts.rest), strict=False).unexpected_keys == []
    backbone.eval(), head.eval()
    answers = np.load(real_data / 'known_answers/deeplabv3_tf_reference.npz')
    names = sorted({key.split('/')[0] for key in answers.files})
    assert len(names) == 4
    for name in names:
        images = torch.from_numpy(answers[f'{name}/input']).permute(0, 3, 1, 2)
        with torch.no_grad():
            logits = head.enlarge(head(backbone(images)), (257, 257))
        ours = logits.permute(0, 2, 3, 1)[:, ::4, ::4].numpy()
        assert np.abs(ours - answers[f'{name}/logits_every_4th']).max() < 1e-3, name


@pytest.mark.parametrize(('output_stride', 'width', 'size'), [(8, 0.5, (65, 97)), (16, 0.35, (129, 96))])
def test_logits_equal_transformers(output_stride: int, width: float, size: tuple[int, int]) -> None:
    """Same weights, same logits as MobileNetV2ForSemanticSegmentation, which TensorFlow's were ported to."""
    transformers = pytest.importorskip('transformers', reason="pip install -e '.[parity]'")
    config = transformers.MobileNetV2Config(
        depth_multiplier=width, output_stride=output_stride, num_labels=21
    )
    torch.manual_seed(0)
    theirs = shake(transformers.MobileNetV2ForSemanticSegmentation(config)).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.Conv2d):  # theirs start so small that every pixel gets the same logits
            nn.init.kaiming_normal_(layer.weight)
    parts = split_weights(theirs.state_dict(), source='')
    backbone = MobileNetV2(
        width=width, output_stride=output_stride, padding='same', taps=('stage7',), norm_eps=1e-3
    )
    head = DeepLabV3Head(backbone.channels, backbone.strides, num_classes=21)
    copy_matching(backbone.eval(), parts.backbone, source='')
    head.eval().load_state_dict(head.translate(parts.layout, parts.rest))
    images = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        expected = theirs(pixel_values=images).logits
        logits = head(backbone(images))
    assert float(expected.std(dim=(2, 3)).mean()) > 0.1  # the image matters
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
