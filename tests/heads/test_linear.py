"""LinearHead computes what torch and the paper say."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import mobilenet_v2

from falconet.heads import LinearHead


def test_logits_equal_torchvisions_classifier() -> None:
    theirs = mobilenet_v2().eval()
    head = LinearHead((1280,), (32,), num_classes=1000).eval()
    head.fc.load_state_dict(theirs.classifier[1].state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(head([theirs.features(images)]), theirs(images))


def test_loss_is_smoothed_weighted_cross_entropy() -> None:
    head = LinearHead((4,), (32,), num_classes=3, label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5])
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    # By hand: the smoothed target gives 0.1 / 3 to every class, each class's part weighted.
    weights = torch.tensor([1.0, 2.0, 0.5])
    target = F.one_hot(labels, 3) * 0.9 + 0.1 / 3
    expected = -(target * weights * logits.log_softmax(1)).sum() / weights[labels].sum()
    torch.testing.assert_close(head.loss(logits, labels)['loss_class'], expected)


def test_probabilities_as_targets_give_the_mixed_loss() -> None:
    head = LinearHead((4,), (32,), num_classes=3)
    logits = torch.randn(2, 3)
    first, second = torch.tensor([0, 1]), torch.tensor([2, 2])
    mixed = 0.3 * F.one_hot(first, 3).float() + 0.7 * F.one_hot(second, 3).float()
    expected = 0.3 * F.cross_entropy(logits, first) + 0.7 * F.cross_entropy(logits, second)
    torch.testing.assert_close(head.loss(logits, mixed)['loss_class'], expected)


def test_logged_accuracy_is_the_share_that_is_right() -> None:
    head = LinearHead((4,), (32,), num_classes=2)
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert float(head.loss(logits, torch.tensor([0, 1, 1, 1]))['top1']) == 0.75


def test_class_weights_stay_out_of_the_checkpoint() -> None:
    weighted = LinearHead((4,), (32,), num_classes=2, class_weights=[1.0, 2.0])
    assert set(weighted.state_dict()) == {'fc.weight', 'fc.bias'}


def test_scores_add_up_to_one_and_label_is_the_best() -> None:
    head = LinearHead((4,), (32,), num_classes=3)
    (answer,) = head.predict(torch.tensor([[0.0, 2.0, 1.0]]), [(10, 10)])
    assert answer['label'] == 1
    assert answer['scores'].dtype == 'float32'
    assert answer['scores'].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        (((576, 1280), (16, 32)), {}, r'one map, got 2: channels \[576, 1280\], strides \[16, 32\]'),
        (((1280,), (32,)), {'class_weights': [1.0]}, '1 numbers, the data has 3'),
    ],
)
def test_a_wrong_fit_is_explained(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearHead(*arguments, num_classes=3, **options)
