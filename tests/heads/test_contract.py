"""Every registered head keeps the contract of heads/base.py, on every registered backbone."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import falconet.backbones
import falconet.heads
from falconet.backbones import BACKBONES
from falconet.core.options import check_options
from falconet.heads import HEADS, Head, LinearHead

assert falconet.backbones
assert falconet.heads

# Targets a head of each task understands, for a batch of two images.
TARGETS = {
    'classification': lambda classes: torch.tensor([0, classes - 1]),
    'detection': lambda classes: [
        {
            'boxes_unit': torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.3, 0.3, 0.5, 0.9]]),
            'labels': torch.tensor([0, classes - 1]),
            'crowd': torch.tensor([False, False]),
        },
        {
            'boxes_unit': torch.zeros(0, 4),
            'labels': torch.zeros(0, dtype=torch.int64),
            'crowd': torch.zeros(0, dtype=torch.bool),
        },
    ],
    'segmentation': lambda classes: torch.randint(0, classes, (2, 33, 33), dtype=torch.uint8),
}
# Options that make a backbone return at least so many maps.
OPTIONS = {
    'MobileNetV2': {1: {}, 2: {'taps': ('stage5', 'last')}},
    'TimmBackbone': {1: {}, 2: {'out_indices': (-2, -1)}},
}
SIZES = [(40, 60), (7, 5)]


@pytest.fixture(params=sorted(HEADS.module_dict))
def head_class(request: pytest.FixtureRequest) -> type[Head]:
    return HEADS.module_dict[request.param]


@pytest.fixture(params=sorted(BACKBONES.module_dict))
def pair(request: pytest.FixtureRequest, head_class: type[Head]) -> tuple:
    torch.manual_seed(0)
    backbone = BACKBONES.module_dict[request.param](**OPTIONS[request.param][head_class.min_maps])
    head = head_class(backbone.channels, backbone.strides, num_classes=3)
    return backbone.eval(), head.eval()


def test_task_has_targets_here(head_class: type[Head]) -> None:
    assert head_class.task in TARGETS, f'add targets of task {head_class.task!r} to this file'


@pytest.mark.parametrize('size', [64, 65, 33])
def test_loss_is_finite_and_trains_every_parameter(pair: tuple, size: int) -> None:
    backbone, head = pair
    head.train()
    losses = head.loss(head(backbone(torch.rand(2, 3, size, size))), TARGETS[head.task](3))
    total = sum(value for key, value in losses.items() if key.startswith('loss_'))
    assert torch.isfinite(total)
    total.backward()
    assert [name for name, value in head.named_parameters() if value.grad is None] == []


def test_one_answer_per_image(pair: tuple) -> None:
    backbone, head = pair
    with torch.no_grad():
        answers = head.predict(head(backbone(torch.rand(2, 3, 64, 64))), SIZES)
    assert len(answers) == 2


def test_an_image_is_answered_the_same_alone_and_in_a_batch(pair: tuple) -> None:
    backbone, head = pair
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        together = head.predict(head(backbone(images)), SIZES)
        alone = head.predict(head(backbone(images[1:])), SIZES[1:])
    for key, value in alone[0].items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(together[1][key]), atol=1e-5, rtol=1e-4
        )


class Whole(torch.nn.Module):
    """Backbone and head, and what becomes of the outputs."""

    def __init__(self, backbone: torch.nn.Module, head: Head, finish: Callable | None = None) -> None:
        super().__init__()
        self.backbone, self.head, self.finish = backbone, head, finish

    def forward(self, images: torch.Tensor) -> Any:
        outputs = self.head(self.backbone(images))
        return outputs if self.finish is None else self.finish(outputs)


def test_forward_can_be_exported(pair: tuple) -> None:
    whole, images = Whole(*pair).eval(), torch.rand(1, 3, 64, 64)
    exported = torch.export.export(whole, (images,)).module()
    torch.testing.assert_close(exported(images), whole(images))


@pytest.mark.parametrize('input_size', [None, (64, 96)])
def test_decode_can_be_exported_and_its_sizes_do_not_depend_on_the_picture(
    pair: tuple, input_size: tuple[int, int] | None
) -> None:
    whole = Whole(*pair, partial(pair[1].decode, input_size=input_size)).eval()
    nothing, images = torch.zeros(2, 3, 64, 96), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        exported = torch.export.export(whole, (nothing,)).module()
        expected = whole(images)
        torch.testing.assert_close(exported(images), expected)
        shapes = {key: value.shape for key, value in expected.items()}
        assert {key: value.shape for key, value in whole(nothing).items()} == shapes
    assert all(shape[0] == 2 for shape in shapes.values())


@pytest.mark.parametrize('sizes', [SIZES, [(64, 96), (64, 60)]])
def test_predict_is_decode_and_place(pair: tuple, sizes: list[tuple[int, int]]) -> None:
    backbone, head = pair
    where: dict[str, Any] = {'input_size': (64, 96), 'content_sizes': [None, (64, 60)]}
    with torch.no_grad():
        outputs = head(backbone(torch.rand(2, 3, 64, 96)))
        expected = head.predict(outputs, sizes, **where)
        for size in (None, (64, 96)):
            placed = head.place(head.decode(outputs, input_size=size), sizes, **where)
            for ours, theirs in zip(placed, expected, strict=True):
                assert ours.keys() == theirs.keys()
                for key, value in theirs.items():
                    np.testing.assert_array_equal(ours[key], value)


def test_a_head_that_only_predicts_still_does_and_says_what_it_lacks() -> None:
    class OldHead(LinearHead):
        decode, place = Head.decode, Head.place

        def predict(self, outputs: Any, image_sizes: Any, **sizes: Any) -> list[dict[str, Any]]:
            return [{'label': 1} for _ in image_sizes]

    class EmptyHead(LinearHead):
        decode, place = Head.decode, Head.place

    old, empty = (each((8,), (4,), num_classes=3) for each in (OldHead, EmptyHead))
    assert old.predict(torch.zeros(1, 3), [(4, 4)]) == [{'label': 1}]
    for call in (old.decode, lambda outputs: old.place({'scores': outputs}, [(4, 4)])):
        with pytest.raises(TypeError, match=r'OldHead has no .*its own predict, and exports its raw outputs'):
            call(torch.zeros(1, 3))
    with pytest.raises(TypeError, match='EmptyHead has no decode: a head needs decode and place'):
        empty.predict(torch.zeros(1, 3), [(4, 4)])


def test_wrong_maps_are_named(head_class: type[Head]) -> None:
    with pytest.raises(ValueError, match=r'channels \[8, 16\] and strides \[4\]'):
        head_class((8, 16), (4,), num_classes=3)
    with pytest.raises(ValueError, match='num_classes'):
        head_class((8,) * head_class.min_maps, (4,) * head_class.min_maps, num_classes=0)
    with pytest.raises(ValueError, match=r'more maps|one stride'):
        head_class((8,) * (head_class.min_maps - 1), (4,) * (head_class.min_maps - 1), num_classes=3)


def test_options_are_keyword_only_and_none_is_swallowed(head_class: type[Head]) -> None:
    parameters = list(inspect.signature(head_class).parameters.values())
    assert [each.name for each in parameters[:2]] == ['channels', 'strides']
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters[2:])


def test_it_states_what_a_checkpoint_may_set_and_checks_it(head_class: type[Head]) -> None:
    parameters = inspect.signature(head_class).parameters
    assert set(head_class.option_values or ()) == set(parameters) - {'channels', 'strides', 'num_classes'}
    check_options(head_class.option_values, {key: each.default for key, each in parameters.items()})
    maps = ((8,) * head_class.min_maps, (4,) * head_class.min_maps)
    for option in head_class.option_values or ():
        with pytest.raises(ValueError, match=f'{option} must'):
            head_class(*maps, num_classes=3, **{option: object()})
