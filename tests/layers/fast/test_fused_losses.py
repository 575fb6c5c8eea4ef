"""Losses over many scores: the loops compute what torch does in double precision."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from falconet.heads.score_map import line, neighbours
from falconet.layers.fast.fused import can_fuse, fused_kernels
from falconet.layers.fast.fused_losses import computes_losses, pixel_losses, softplus

pytestmark = [
    pytest.mark.skipif(not can_fuse(), reason='needs Numba'),
    pytest.mark.usefixtures('fusing'),
]
IGNORE = 255


def taken(made: Tensor) -> bool:
    """Whether the loops made this."""
    return made.grad_fn is not None and type(made.grad_fn).__name__ in (
        'SoftplusBackward',
        'PixelLossesBackward',
    )


def gradient_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def test_softplus_and_its_slope_equal_double_precision() -> None:
    x = torch.cat([torch.linspace(-80, 80, 70_001), torch.randn(9) * 1e-6]).requires_grad_()
    made = softplus(x)
    assert taken(made)
    upstream = torch.linspace(-1, 1, len(x))
    made.backward(upstream)
    wide = x.detach().double()
    torch.testing.assert_close(made.double(), F.softplus(wide, threshold=1e3), rtol=3e-7, atol=0)
    torch.testing.assert_close(gradient_of(x).double(), wide.sigmoid() * upstream.double(), rtol=3e-7, atol=0)


def test_softplus_of_what_is_no_ordinary_number() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 0.0], requires_grad=True)
    made = softplus(x)
    made.sum().backward()
    torch.testing.assert_close(made.detach(), F.softplus(x.detach()), equal_nan=True, atol=1e-30, rtol=1e-6)
    torch.testing.assert_close(x.grad, x.detach().sigmoid(), equal_nan=True, atol=1e-30, rtol=1e-6)


SOFTPLUS_BY_TORCH: dict[str, Callable[[], Tensor]] = {
    'float64': lambda: torch.randn(5, dtype=torch.float64, requires_grad=True),
    'bfloat16': lambda: torch.randn(5, dtype=torch.bfloat16, requires_grad=True),
    'not side by side': lambda: torch.randn(5, 4, requires_grad=True)[:, ::2],
    'nothing': lambda: torch.randn(0, 4, requires_grad=True),
}


@pytest.mark.parametrize('case', SOFTPLUS_BY_TORCH)
def test_elsewhere_torch_computes(case: str) -> None:
    x = SOFTPLUS_BY_TORCH[case]()
    made = softplus(x)
    assert not taken(made)
    assert torch.equal(made, F.softplus(x))


def test_without_gradients_or_switched_off_torch_computes() -> None:
    x = torch.randn(5, requires_grad=True)
    assert computes_losses(x)
    with torch.no_grad():
        assert not computes_losses(x)
    with fused_kernels(False):
        assert not taken(softplus(x))
    assert torch.func.grad(lambda x: softplus(x).sum())(x.detach()).shape == x.shape


def case(shape: tuple[int, int, int, int], size: tuple[int, int], *, coherent: bool) -> tuple[Tensor, Tensor]:
    """Scores of cells, and labels of pixels, some of which are ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * 4
    labels = torch.randint(0, shape[1], (shape[0], *size), generator=generator)
    if coherent:
        labels[:] = labels[:, :1, :1]
    labels[:, ::5, ::3] = IGNORE
    return logits.requires_grad_(), labels.to(torch.uint8)


def ours(logits: Tensor, labels: Tensor, *, align_corners: bool) -> tuple[Tensor, Tensor]:
    (high, wide), (height, width) = logits.shape[2:], labels.shape[1:]
    rows = neighbours(high, height, align_corners=align_corners)
    columns = line(wide, width, width, width, align_corners=align_corners)
    return pixel_losses(logits, labels, rows, columns)


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize(
    ('shape', 'size'),
    [
        ((2, 21, 9, 11), (65, 81)),
        ((1, 2, 5, 5), (17, 40)),
        ((3, 7, 9, 9), (9, 9)),
        ((1, 255, 4, 3), (33, 17)),
        ((2, 3, 1, 1), (5, 4)),
        ((1, 40, 6, 6), (5, 4)),  # made smaller: rows of cells that no pixel reads
    ],
)
def test_pixel_losses_equal_double_precision(
    shape: tuple[int, int, int, int], size: tuple[int, int], align_corners: bool
) -> None:
    logits, labels = case(shape, size, coherent=shape[0] == 2)
    upstream = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1))
    losses, right = ours(logits, labels, align_corners=align_corners)
    assert taken(losses)
    losses.backward(upstream)
    wide = logits.detach().double().requires_grad_()
    scores = F.interpolate(wide, size=size, mode='bilinear', align_corners=align_corners)
    expected = F.cross_entropy(scores, labels.long(), ignore_index=IGNORE, reduction='none')
    expected.backward(upstream.double())
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=3e-5)
    exact = gradient_of(wide)
    assert (gradient_of(logits).double() - exact).norm() <= 3e-6 * exact.norm()
    same = right == (scores.argmax(dim=1) == labels)
    assert same.float().mean() > 0.999  # scores may tie to the last bit of float32
    assert not losses[labels == IGNORE].any()
    assert not right[labels == IGNORE].any()


def test_no_bit_depends_on_the_number_of_threads() -> None:
    before, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            logits, labels = case((3, 40, 9, 9), (97, 65), coherent=False)
            losses, right = ours(logits, labels, align_corners=True)
            losses.sum().backward()
            x = torch.linspace(-9, 9, 50_000).requires_grad_()
            softplus(x).sum().backward()
            runs.append([losses, right, gradient_of(logits), gradient_of(x)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for run in runs for pair in zip(run, runs[0], strict=True))


def test_a_label_that_is_no_class_is_refused() -> None:
    logits, labels = case((1, 3, 4, 4), (9, 9), coherent=False)
    labels[0, 4, 4] = 3
    with pytest.raises(IndexError, match='label 3 is no class: there are 3'):
        ours(logits, labels, align_corners=True)


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_a_score_that_is_no_number_makes_the_loss_none(value: float) -> None:
    logits, labels = case((1, 3, 4, 4), (9, 9), coherent=False)
    with torch.no_grad():
        logits[0, 1, 0, 0] = value
    losses, _ = ours(logits, labels, align_corners=True)
    assert not torch.isfinite(losses[0, 1, 1])
    assert torch.isfinite(losses[0, 8, 8])
