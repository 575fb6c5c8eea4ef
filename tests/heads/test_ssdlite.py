"""SSDLite: the paper's counts, TensorFlow's answers, and what its loss must do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from falconet.backbones import MobileNetV2
from falconet.backbones.weights.files import read_state_dict
from falconet.backbones.weights.split import split_weights
from falconet.heads import SSDLiteHead
from falconet.heads.boxes import encode

TAPS = ('stage6_expand', 'last')


def detector(**options: object) -> tuple[MobileNetV2, SSDLiteHead]:
    torch.manual_seed(0)
    backbone = MobileNetV2(taps=TAPS, padding='same', norm_eps=1e-3)
    head = SSDLiteHead(backbone.channels, backbone.strides, **{'num_classes': 80, **options})  # type: ignore[arg-type]
    return backbone.eval(), head.eval()


def parameters(*modules: torch.nn.Module) -> int:
    return sum(each.numel() for module in modules for each in module.parameters())


def multiply_adds(backbone: MobileNetV2, head: SSDLiteHead, size: int) -> tuple[int, int]:
    """Of the whole network, and of the head alone."""
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        maps = backbone(torch.zeros(1, 3, size, size))
        head(maps)
    with torch.no_grad(), FlopCounterMode(display=False) as alone:
        head(maps)
    return whole.get_total_flops() // 2, alone.get_total_flops() // 2


@pytest.mark.parametrize(
    ('options', 'of_head', 'of_both', 'adds_of_head', 'adds_of_both'),
    [
        ({}, 2_113_141, 4_337_013, 177_617_344, 788_830_144),
        ({'num_classes': 90}, 2_276_671, 4_500_543, 193_184_704, 804_397_504),
        ({'separable': False}, 14_776_629, 17_000_501, 1_259_068_672, 1_870_281_472),
    ],
)
def test_counts_of_tables_5_and_6(
    options: dict, of_head: int, of_both: int, adds_of_head: int, adds_of_both: int
) -> None:
    backbone, head = detector(**options)
    assert parameters(head) == of_head
    assert parameters(backbone, head) == of_both
    assert multiply_adds(backbone, head, 320) == (adds_of_both, adds_of_head)


@pytest.mark.parametrize(
    ('size', 'boxes'),
    [((320, 320), 2034), ((300, 300), 1917), ((64, 64), 96), ((33, 97), None), ((320, 192), None)],
)
def test_any_input_size(size: tuple[int, int], boxes: int | None) -> None:
    backbone, head = detector(num_classes=3)
    with torch.no_grad():
        outputs = head(backbone(torch.rand(1, 3, *size)))
    count = len(outputs['defaults'])
    assert boxes is None or count == boxes
    assert outputs['offsets'].shape == (1, count, 4)
    assert outputs['logits'].shape == (1, count, 4)


def person_detector(real_data: Path) -> tuple[MobileNetV2, SSDLiteHead]:
    path = real_data / 'weights/ssdlite_mobilenetv2_person_tf_variables.npz'
    weights = split_weights(read_state_dict(path), source=str(path))
    backbone, head = detector(num_classes=1)
    for module, state in (
        (backbone, weights.backbone),
        (head, head.translate(weights.layout, weights.rest)),
    ):
        report = module.load_state_dict(state, strict=False)
        assert report.unexpected_keys == []
        assert all(key.endswith('num_batches_tracked') for key in report.missing_keys)
    return backbone, head


def test_tensorflows_weights_give_tensorflows_boxes(real_data: Path) -> None:
    backbone, head = person_detector(real_data)
    answers = np.load(real_data / 'known_answers/ssdlite_tf_reference.npz')
    names = sorted({key.split('/')[0] for key in answers.files})
    assert len(names) == 4
    for name in names:
        theirs = {key: torch.from_numpy(answers[f'{name}/{key}']) for key in (
            'input', 'box_encodings', 'class_logits', 'detection_boxes', 'detection_scores'
        )}  # fmt: skip
        with torch.no_grad():
            outputs = head(backbone(theirs['input'].permute(0, 3, 1, 2)))
        yxhw = outputs['offsets'][..., [1, 0, 3, 2]]
        torch.testing.assert_close(yxhw, theirs['box_encodings'][:, :, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(outputs['logits'], theirs['class_logits'], atol=1e-4, rtol=0)
        found = head.predict(outputs, [(300, 300)])[0]
        assert found['boxes'].shape == (100, 4)
        expected = theirs['detection_boxes'][0, :, [1, 0, 3, 2]].numpy() * 300
        np.testing.assert_allclose(found['boxes'], expected, atol=0.05)
        np.testing.assert_allclose(found['scores'], theirs['detection_scores'][0].numpy(), atol=1e-5)


def perfect(head: SSDLiteHead, targets: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Outputs that say exactly what the targets ask for."""
    maps = [torch.zeros(len(targets), 576, 20, 20), torch.zeros(len(targets), 1280, 10, 10)]
    with torch.no_grad():
        outputs = head(maps)
    columns, codes, _ = head._assign(targets, outputs['defaults'])
    outputs['offsets'] = codes
    outputs['logits'] = 40.0 * torch.nn.functional.one_hot(columns, head.columns) - 20.0
    return outputs


TARGET = {
    'boxes_unit': torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.6, 0.6, 0.7, 0.7]]),
    'labels': torch.tensor([2, 0]),
}
EMPTY = {'boxes_unit': torch.zeros(0, 4), 'labels': torch.zeros(0, dtype=torch.int64)}


@pytest.mark.parametrize('options', [{}, {'scores': 'softmax'}, {'class_loss': 'focal'}])
def test_perfect_outputs_cost_nothing_and_are_found_again(options: dict) -> None:
    _, head = detector(num_classes=3, **options)
    outputs = perfect(head, [TARGET, EMPTY])
    losses = head.loss(outputs, [TARGET, EMPTY])
    assert float(losses['loss_class']) < 1e-4
    assert float(losses['loss_box']) < 1e-6
    found = head.predict(outputs, [(100, 200), (50, 50)])
    sure = found[0]['scores'] > 0.5
    np.testing.assert_allclose(
        found[0]['boxes'][sure][found[0]['labels'][sure].argsort()],
        [[120, 60, 140, 70], [20, 20, 100, 90]],
        atol=1e-3,
    )
    assert sorted(found[0]['labels'][sure]) == [0, 2]
    assert not (found[1]['scores'] > 0.5).any()


def test_padding_is_taken_off_the_boxes() -> None:
    """The image fills the left 60 % and the upper 100 % of the input."""
    _, head = detector(num_classes=3)
    outputs = perfect(head, [TARGET])
    (found,) = head.predict(outputs, [(100, 60)], input_size=(320, 320), content_sizes=[(320, 192)])
    best = found['boxes'][found['labels'] == 2][0]
    np.testing.assert_allclose(best, [10, 20, 50, 90], atol=1e-3)


@pytest.mark.parametrize('options', [{}, {'scores': 'softmax'}, {'class_loss': 'focal'}])
def test_a_batch_without_a_single_object_has_a_finite_loss_that_teaches(options: dict) -> None:
    backbone, head = detector(num_classes=3, **options)
    head.train()
    losses = head.loss(head(backbone(torch.rand(2, 3, 64, 64))), [EMPTY, EMPTY])
    total = losses['loss_class'] + losses['loss_box']
    assert torch.isfinite(total)
    total.backward()
    assert any(each.grad is not None and each.grad.abs().sum() > 0 for each in head.parameters())


def test_a_crowd_is_neither_object_nor_background() -> None:
    _, head = detector(num_classes=3)
    crowd = {
        'boxes_unit': torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        'labels': torch.tensor([1]),
        'crowd': torch.tensor([True]),
    }
    maps = [torch.rand(1, 576, 20, 20), torch.rand(1, 1280, 10, 10)]
    outputs = head(maps)
    columns, _, ignored = head._assign([crowd], outputs['defaults'])
    assert (columns == 0).all()
    assert ignored.float().mean() > 0.8
    outputs['logits'] = outputs['logits'].detach().requires_grad_()
    head.loss(outputs, [crowd])['loss_class'].backward()
    assert outputs['logits'].grad is not None
    assert (outputs['logits'].grad[ignored] == 0).all()


def test_the_class_loss_is_cross_entropy_over_all_columns() -> None:
    """Against torch's own, on one image with every default box counted."""
    _, head = detector(num_classes=3, negative_ratio=10_000)
    maps = [torch.rand(1, 576, 20, 20), torch.rand(1, 1280, 10, 10)]
    outputs = head(maps)
    columns, codes, _ = head._assign([TARGET], outputs['defaults'])
    matched = int((columns > 0).sum())
    goal = torch.nn.functional.one_hot(columns, 4).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs['logits'], goal, reduction='sum')
    losses = head.loss(outputs, [TARGET])
    torch.testing.assert_close(losses['loss_class'], expected / matched)
    difference = (outputs['offsets'] - codes)[columns > 0].abs()
    huber = torch.where(difference < 1, difference**2 / 2, difference - 0.5).sum()
    torch.testing.assert_close(losses['loss_box'], huber / matched)
    assert float(losses['matched']) == matched


@pytest.mark.parametrize('options', [{}, {'scores': 'softmax'}, {'class_loss': 'focal'}])
def test_smoothing_reaches_the_loss(options: dict) -> None:
    _, head = detector(num_classes=2, **options)
    _, smooth = detector(num_classes=2, label_smoothing=0.2, **options)
    outputs = {
        'offsets': torch.zeros(1, 1, 4),
        'logits': torch.tensor([[[-3.0, 5.0, -4.0]]]),
        'defaults': torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
    }
    targets = [{'boxes_unit': torch.tensor([[0.3, 0.3, 0.7, 0.7]]), 'labels': torch.tensor([0])}]
    assert smooth.loss(outputs, targets)['loss_class'] > 2 * head.loss(outputs, targets)['loss_class']


def test_targets_are_coded_against_the_box_they_were_given() -> None:
    _, head = detector(num_classes=3)
    outputs = perfect(head, [TARGET])
    columns, codes, _ = head._assign([TARGET], outputs['defaults'])
    place = int((columns[0] == 3).nonzero()[0])
    torch.testing.assert_close(codes[0, place], encode(TARGET['boxes_unit'][0], outputs['defaults'][place]))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'scores': 'tanh'}, 'sigmoid'),
        ({'class_loss': 'mse'}, 'hard_negatives'),
        ({'class_loss': 'focal', 'scores': 'softmax'}, 'needs scores'),
        ({'padding': 'valid'}, 'symmetric'),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector(**options)


def test_one_map_is_too_few() -> None:
    with pytest.raises(ValueError, match=r'needs 2 or more maps, got channels \[1280\]'):
        SSDLiteHead((1280,), (32,), num_classes=3)
