"""A depthwise convolution fused with the norms around it computes what torch's layers do, or is not taken."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falconet.backbones import MobileNetV2
from falconet.layers import ConvNormActivation
from falconet.layers.conv import in_turn
from falconet.layers.fast.fused import can_fuse, fused_kernels
from falconet.layers.fast.recompute import recompute

pytestmark = pytest.mark.skipif(not can_fuse(), reason='needs Numba')


@pytest.fixture(autouse=True)
def fusing() -> Iterator[None]:
    with fused_kernels():
        yield


def blocks(channels: int, **options: Any) -> tuple[ConvNormActivation, ConvNormActivation]:
    """An expansion and the depthwise convolution after it, with norms that are not as new."""
    torch.manual_seed(0)
    padding = options.pop('pad', None)
    pair = (
        ConvNormActivation(8, channels),
        ConvNormActivation(channels, channels, 3, groups=channels, **options),
    )
    for block in pair:
        nn.init.normal_(block[1].weight, 1, 0.3)  # type: ignore[arg-type]
        nn.init.normal_(block[1].bias, 1, 1)  # type: ignore[arg-type]
    if padding is not None:
        pair[1][0].padding = padding
    return pair


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return made.to(memory_format=torch.channels_last).requires_grad_()


def taken(made: Tensor) -> bool:
    return made.grad_fn is not None and 'NormDepthwise' in made.grad_fn.name()


def operations(made: Tensor) -> list[str]:
    """The names of all that made this."""
    names, todo = [], [made.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None:
            names.append(node.name())
            todo += [each for each, _ in node.next_functions]
    return names


def results(
    pair: tuple[ConvNormActivation, ConvNormActivation], x: Tensor, *, alone: bool = False, amp: bool = False
) -> list[Tensor]:
    """Output, gradients and statistics after a step."""
    first, second = pair
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        made = second(first[0](x)) if alone else in_turn(first, second, x)
    gradient = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    made.backward(gradient.to(made.dtype))
    modules = [second] if alone else [first, second]
    parameters = [first[0].weight, *(each for module in modules for each in module.parameters())]
    statistics = [each for module in modules for each in (module[1].running_mean, module[1].running_var)]
    return [made, x.grad, *(each.grad for each in parameters), *statistics]  # type: ignore[list-item]


@pytest.mark.parametrize('alone', [False, True], ids=['two norms', 'one norm'])
@pytest.mark.parametrize(
    ('channels', 'size', 'options'),
    [
        (16, (9, 11), {}),
        (96, (30, 31), {'stride': 2}),
        (24, (10, 10), {'stride': 2}),
        (5, (7, 7), {'dilation': 2}),
        (130, (64, 70), {'dilation': 4}),
        (40, (20, 13), {'dilation': 2, 'stride': 2, 'pad': (1, 0)}),
        (16, (5, 5), {'pad': (3, 3)}),
        (32, (1, 1), {}),
        (32, (1, 2), {'stride': 2}),
    ],
    ids=str,
)
def test_it_equals_double_precision(
    channels: int, size: tuple[int, int], options: dict[str, Any], alone: bool
) -> None:
    x = images(3, 8, *size)
    ours = results(blocks(channels, **options), x, alone=alone)
    wide = x.detach().double().requires_grad_()
    first, second = blocks(channels, **options)
    exact = results((first.double(), second.double()), wide, alone=alone)
    assert taken(ours[0])
    assert not taken(exact[0])
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for index, (one, other) in enumerate(zip(ours, exact, strict=True)):
        assert (one.double() - other).norm() <= 2e-5 * other.norm() + 2e-7, index


@pytest.mark.parametrize('options', [{}, {'stride': 2}, {'dilation': 2}], ids=str)
def test_in_bfloat16_it_is_as_exact_as_torch(options: dict[str, Any]) -> None:
    def found(fuse: bool, dtype: torch.dtype) -> list[Tensor]:
        first, second = blocks(24, **options)
        first[0] = nn.Identity()
        x = images(4, 24, 18, 17, dtype=torch.bfloat16)
        if dtype == torch.float64:
            first, second, x = first.double(), second.double(), x.detach().double().requires_grad_()
        with fused_kernels(fuse), torch.autocast('cpu', enabled=dtype == torch.bfloat16):
            made = in_turn(first, second, x)
        assert taken(made) == fuse
        assert made.dtype == dtype
        made.backward(images(*made.shape, dtype=torch.bfloat16).detach().to(dtype))
        return [made, x.grad, second[0].weight.grad, first[1].weight.grad, first[1].bias.grad]  # type: ignore[list-item]

    ours, theirs = found(True, torch.bfloat16), found(False, torch.bfloat16)
    exact = found(False, torch.float64)
    errors = [
        [float(((each.double() - right).norm() / right.norm()).detach()) for each in (one, other)]
        for one, other, right in zip(ours, theirs, exact, strict=True)
    ]
    assert all(one < 0.03 for one, _ in errors)
    assert sum(one for one, _ in errors) < 1.1 * sum(other for _, other in errors)


@pytest.mark.parametrize('amp', [True, False])
def test_no_bit_depends_on_the_number_of_threads(amp: bool) -> None:
    before, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(1)
            first, second = blocks(40, stride=2)
            x = first[0](images(3, 8, 120, 70)).detach().requires_grad_()
            torch.set_num_threads(number)
            with torch.autocast('cpu', torch.bfloat16, enabled=amp):
                made = second(x)
            assert taken(made)
            made.float().square().mean().backward()
            runs.append([made, x.grad, second[0].weight.grad, second[1].weight.grad, second[1].running_var])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for run in runs for pair in zip(run, runs[0], strict=True))


def change(name: str, pair: tuple[ConvNormActivation, ConvNormActivation], x: Tensor) -> Tensor:
    """Make of an ordinary case one that is not."""
    first, second = pair
    if name == 'norm_eval':
        first[1].eval()
    elif name == 'second norm_eval':
        second[1].eval()
    elif name == 'hook on the convolution':
        second[0].register_forward_hook(lambda *_: None)
    elif name == 'hook on the block':
        second.register_forward_hook(lambda *_: None)
    elif name == 'hook on the first norm':
        first[1].register_forward_hook(lambda *_: None)
    elif name == 'another activation':
        first[2] = nn.SiLU()
    elif name == 'no momentum':
        second[1].momentum = None  # type: ignore[assignment]
    elif name == 'reflection':
        second[0].padding_mode = 'reflect'  # type: ignore[assignment]
    elif name == 'bias':
        second[0].bias = nn.Parameter(torch.zeros(24))
    elif name == 'computed weights':
        nn.utils.parametrizations.weight_norm(second[0])
    elif name == 'float64':
        first.double()
        second.double()
        return x.detach().double().requires_grad_()
    return x


@pytest.mark.parametrize(
    ('name', 'second_alone'),
    {
        'norm_eval': True,
        'second norm_eval': False,
        'hook on the convolution': False,
        'hook on the block': True,
        'hook on the first norm': True,
        'another activation': True,
        'no momentum': False,
        'reflection': False,
        'bias': False,
        'computed weights': False,
        'float64': False,
    }.items(),
)
def test_what_it_does_not_cover_goes_the_usual_way(name: str, second_alone: bool) -> None:
    found = []
    for fuse in (True, False):
        pair = blocks(24)
        x = change(name, pair, images(2, 8, 9, 9))
        with fused_kernels(fuse):
            made = in_turn(*pair, x)
        if fuse:
            assert taken(made) == second_alone
            assert not (second_alone and made.grad_fn.has_norm)  # type: ignore[union-attr]
        made.backward(images(*made.shape).detach().to(made.dtype))
        found.append([made, x.grad, *(each.grad for each in (*pair[0].parameters(), *pair[1].parameters()))])
    assert all(torch.allclose(*both, rtol=1e-3, atol=1e-4) for both in zip(*found, strict=True))


@pytest.mark.parametrize(
    'second',
    [
        ConvNormActivation(24, 24, 5, groups=24),
        ConvNormActivation(24, 24, 3, groups=12),
        ConvNormActivation(24, 48, 3, groups=24),
        ConvNormActivation(24, 24, 3, stride=2, groups=24, padding='same'),
        ConvNormActivation(24, 24, 3),
    ],
    ids=['5x5', 'groups of two', 'two filters a channel', 'SAME', 'dense'],
)
def test_other_convolutions_are_left_alone(second: ConvNormActivation) -> None:
    first, _ = blocks(24)
    made = in_turn(first, second, images(2, 8, 9, 9))
    assert not taken(made)
    assert sum('NormClamp' in each for each in operations(made)) == 2  # norms and clamps still are one


def test_outside_of_training_it_is_not_taken() -> None:
    first, second = blocks(24)
    with torch.no_grad():
        assert in_turn(first, second, images(2, 8, 9, 9)).grad_fn is None
    single = blocks(24)
    one_value = in_turn(*single, images(1, 8, 1, 1))
    assert not taken(one_value)
    assert single[1][1].num_batches_tracked == 0
    with torch.autocast('cpu', torch.float16):
        assert not taken(in_turn(first, second, images(2, 8, 9, 9)))
    rows = images(2, 8, 9, 9).detach().contiguous()  # torch's own order: a 1x1 convolution keeps it
    assert not taken(second(first[0](rows)))


@pytest.mark.parametrize('options', [{'frozen': True}, {'frozen': False}], ids=str)
def test_what_needs_no_gradient_gets_none(options: dict[str, bool]) -> None:
    first, second = blocks(24)
    second.requires_grad_(not options['frozen'])
    first[0].requires_grad_(False)
    x = images(2, 8, 9, 9).detach()
    made = in_turn(first, second, x)
    assert taken(made)
    made.sum().backward()
    assert first[0].weight.grad is None
    assert first[1].weight.grad is not None
    assert (second[0].weight.grad is None) == options['frozen']


def test_a_whole_backbone_learns_the_same() -> None:
    def gradients(fuse: bool) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(0)
        backbone = MobileNetV2(width=0.35, taps=('stage2_expand', 'stage7'), output_stride=16)
        backbone.to(memory_format=torch.channels_last)
        x = images(4, 3, 64, 64).detach()
        with fused_kernels(fuse), recompute():
            maps = backbone(x)
        torch.stack([each.square().mean() for each in maps]).sum().backward()
        found = torch.cat([each.grad.flatten() for each in backbone.parameters() if each.grad is not None])
        return found, backbone.state_dict()

    (ours, state), (theirs, other) = gradients(True), gradients(False)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.999
    for name, value in state.items():
        assert torch.allclose(value, other[name], rtol=1e-3, atol=1e-4), name
