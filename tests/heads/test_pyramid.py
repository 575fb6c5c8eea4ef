"""The top-down path: fine maps know what coarse ones saw, at any size, and nothing changes without it."""

import numpy as np
import pytest
import torch

from falconet.backbones import MobileNetV2
from falconet.heads import SSDLiteHead
from falconet.heads.pyramid import enlarged

TAPS = ('stage4_expand', 'stage6_expand', 'last')


def detector(**options: object) -> tuple[MobileNetV2, SSDLiteHead]:
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, taps=TAPS)
    head = SSDLiteHead(
        backbone.channels,
        backbone.strides,
        num_classes=3,
        extra_channels=(64, 32),
        **options,  # type: ignore[arg-type]
    )
    return backbone.eval(), head.eval()


def reach(head: SSDLiteHead, place: int, number: int) -> float:
    """How far the scores of the boxes of map `number` change with the backbone's map `place`."""
    torch.manual_seed(1)
    maps = [
        torch.randn(1, each, 64 // stride, 64 // stride)
        for each, stride in zip(head.channels, head.strides, strict=True)
    ]
    maps[place].requires_grad_()
    cells = [8, 4, 2, 1, 1]
    counts = [len(shapes) * cell**2 for shapes, cell in zip(head.shapes, cells, strict=True)]
    scores = head(maps)['logits'].split(counts, dim=1)
    (gradient,) = torch.autograd.grad(scores[number].square().sum(), maps[place], allow_unused=True)
    return 0.0 if gradient is None else float(gradient.abs().sum())


def test_fine_maps_see_what_coarse_ones_saw_only_with_it() -> None:
    _, plain = detector()
    _, pyramid = detector(pyramid_channels=32)
    assert reach(plain, 2, 0) == 0
    assert reach(pyramid, 2, 0) > 0
    for head in (plain, pyramid):
        assert reach(head, 0, 0) > 0
        assert reach(head, 0, 1) == 0  # nothing goes up again


@pytest.mark.parametrize('size', [(64, 64), (33, 97), (100, 60)])
def test_any_input_size_has_the_default_boxes_it_has_without(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    answers = []
    for channels in (0, 32):
        backbone, head = detector(pyramid_channels=channels)
        with torch.no_grad():
            answers.append(head(backbone(images)))
    plain, pyramid = answers
    torch.testing.assert_close(plain['defaults'], pyramid['defaults'])
    assert plain['logits'].shape == pyramid['logits'].shape


def test_it_is_small_where_the_maps_are_wide() -> None:
    plain, pyramid = (
        sum(each.numel() for each in detector(pyramid_channels=channels)[1].parameters())
        for channels in (0, 48)
    )
    assert pyramid < plain


def test_weights_of_its_classes_are_found_by_name() -> None:
    _, head = detector(pyramid_channels=32)
    state = head.state_dict()
    for name, rows in head.class_rows().items():
        assert len(state[name]) == rows.groups * (rows.background + 3)


def test_full_convolutions_for_comparison() -> None:
    separable, full = (detector(pyramid_channels=32, separable=each)[1].pyramid for each in (True, False))
    assert separable is not None
    assert full is not None
    assert [tuple(each[0][0].weight.shape) for each in separable.outputs] == [(32, 1, 3, 3)] * 5  # type: ignore[index]
    assert [tuple(each[0].weight.shape) for each in full.outputs] == [(32, 32, 3, 3)] * 5  # type: ignore[index]


@pytest.mark.parametrize(
    ('coarse', 'fine'), [((7, 4), (13, 8)), ((4, 1), (7, 2)), ((3, 5), (3, 5)), ((2, 3), (7, 12))]
)
def test_a_cell_lies_over_the_cells_it_saw(coarse: tuple[int, int], fine: tuple[int, int]) -> None:
    numbers = torch.arange(coarse[0] * coarse[1], dtype=torch.float32).view(1, 1, *coarse)
    found = enlarged(numbers, torch.zeros(1, 1, *fine))[0, 0]
    assert found.shape == fine
    rows, columns = (-(-large // small) for large, small in zip(fine, coarse, strict=True))
    for (y, x), value in zip(np.ndindex(fine), found.flatten().tolist(), strict=True):
        assert value == (y // rows) * coarse[1] + x // columns
