"""Networks whose norms are folded into numbered convolutions become checkpoints that compute the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from falconet import load_model
from falconet.checkpoints.convert import class_names, convert, read_model
from falconet.checkpoints.external_weights import load_weights
from falconet.checkpoints.transfer import transfer_weights
from falconet.core.errors import UserError
from falconet.datasets.segmentation.dataset import VOC_CLASSES
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel

DEEPLAB_OPTIONS = (
    'model.backbone.width=0.5',
    'model.backbone.channel_divisor=1',
    'model.backbone.output_stride=8',
)


@pytest.fixture
def deeplab_files(real_data: Path, tmp_path: Path) -> dict[str, Path]:
    """A real folded deeplab, by which branch is the pooled one: as it is, and with both exchanged."""
    first = real_data / 'weights/deeplabv3_mobilenetv2_050_voc_tf_folded.npz'
    other = {'051/': '052/', '052/': '051/'}
    with np.load(first) as content:
        arrays = {other.get(key[:4], key[:4]) + key[4:]: content[key] for key in content.files}
    np.savez(tmp_path / 'exchanged.npz', **arrays)
    return {'first': first, 'second': tmp_path / 'exchanged.npz'}


@pytest.mark.parametrize('order', ['first', 'second'])
@pytest.mark.parametrize('given', [False, True])
def test_folded_branches_in_either_order_give_what_tensorflow_gives(
    real_data: Path,
    deeplab_files: dict[str, Path],
    root: Path,
    order: str,
    given: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        'falconet.checkpoints.external_weights.print_log', lambda message, **options: said.append(message)
    )
    config = load_config(root / 'configs/deeplabv3_voc.py', DEEPLAB_OPTIONS)
    model = read_model(
        str(deeplab_files[order]), classes=VOC_CLASSES, config=config, pooled_branch=order if given else None
    )
    found = [f'its {order} 1x1 branch is taken for the pooled one' in message for message in said]
    assert found == ([] if given else [True])
    answers = np.load(real_data / 'known_answers/deeplabv3_tf_reference.npz')
    name = answers.files[0].split('/')[0]
    images = torch.from_numpy(answers[f'{name}/input']).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model.head.enlarge(model.head(model.backbone(images)), (257, 257))
    ours = logits.permute(0, 2, 3, 1)[:, ::4, ::4].numpy()
    assert np.abs(ours - answers[f'{name}/logits_every_4th']).max() < 1e-3


def test_branches_that_cannot_be_told_apart_must_be_named(
    deeplab_files: dict[str, Path], tmp_path: Path, root: Path
) -> None:
    with np.load(deeplab_files['first']) as content:
        arrays = dict(content)
    arrays['052/CONV_2D/weight'] = arrays['051/CONV_2D/weight'] * 1.2
    np.savez(tmp_path / 'alike.npz', **arrays)
    config = load_config(root / 'configs/deeplabv3_voc.py', DEEPLAB_OPTIONS)
    with pytest.raises(UserError, match=r'cannot be told .*--pooled-branch first \(or second\)'):
        read_model(str(tmp_path / 'alike.npz'), classes=VOC_CLASSES, config=config)
    model = read_model(
        str(tmp_path / 'alike.npz'), classes=VOC_CLASSES, config=config, pooled_branch='second'
    )
    assert model.head.pool[0].weight.flatten()[0] == arrays['052/CONV_2D/weight'].flatten()[0]  # type: ignore[index]


def test_an_order_of_branches_is_refused_where_there_are_none(tmp_path: Path) -> None:
    folded_classifier(tmp_path / 'x.npz')
    with pytest.raises(UserError, match='no folded deeplab: leave --pooled-branch out'):
        read_model(str(tmp_path / 'x.npz'), pooled_branch='first')


def folded_classifier(path: Path, *, kind: str = 'FULLY_CONNECTED') -> torch.nn.Module:
    """Write a classifier with folded norms, numbered as its layers run, and return the network it is."""
    torch.manual_seed(0)
    theirs = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, 'padding': 'same', 'norm_eps': 1e-3},
        {'type': 'LinearHead'},
        classes=class_names(1001),
        normalise='tensorflow',
    ).eval()
    arrays, norms, number = {}, [], 0
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            norms.append(module)
    layers = [each for each in theirs.modules() if isinstance(each, torch.nn.Conv2d)]
    for number, (conv, norm) in enumerate(zip(layers, norms, strict=True)):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        name = f'{number:03}/{"DEPTHWISE_CONV_2D" if conv.groups > 1 else "CONV_2D"}'
        arrays[f'{name}/weight'] = (conv.weight * scale.view(-1, 1, 1, 1)).detach().numpy()
        arrays[f'{name}/bias'] = (norm.bias - norm.running_mean * scale).detach().numpy()
    linear = {key: value.numpy() for key, value in theirs.head.linear().items()}
    arrays[f'{number + 1:03}/{kind}/weight'] = linear['weight']
    if kind == 'CONV_2D':
        arrays[f'{number + 1:03}/{kind}/weight'] = linear['weight'][..., None, None]
    arrays[f'{number + 1:03}/{kind}/bias'] = linear['bias']
    np.savez(path, **arrays)
    return theirs


@pytest.mark.parametrize('kind', ['FULLY_CONNECTED', 'CONV_2D'])
def test_a_folded_classifier_becomes_a_checkpoint(tmp_path: Path, kind: str) -> None:
    theirs = folded_classifier(tmp_path / 'folded.npz', kind=kind)
    convert(str(tmp_path / 'folded.npz'), tmp_path / 'k.pth')
    ours = load_model(tmp_path / 'k.pth')
    assert (ours.classes[0], ours.spec['backbone']['width']) == ('background', 0.35)
    assert (ours.spec['backbone']['padding'], ours.normalise.mean) == ('same', (0.5, 0.5, 0.5))
    images = torch.rand(2, 3, 97, 64)
    with torch.no_grad():
        expected = theirs.head(theirs.backbone(images))
        assert (ours.head(ours.backbone(images)) - expected).abs().max() < 1e-4
    assert expected.std() > 1e-3  # or the comparison would say nothing


def test_numbered_layers_of_another_network_are_refused(tmp_path: Path) -> None:
    folded_classifier(tmp_path / 'folded.npz')
    with np.load(tmp_path / 'folded.npz') as content:
        arrays = dict(content)
    swapped = {
        **arrays,
        **{
            f'{key[:3]}/CONV_2D/{leaf}': arrays[f'003/CONV_2D/{leaf}']
            for key in ('000',)
            for leaf in ('weight', 'bias')
        },
    }
    lost = {key: value for key, value in arrays.items() if key != '007/DEPTHWISE_CONV_2D/bias'}
    short = {key: value for key, value in arrays.items() if not key.startswith('052')}
    for content, message in (
        (swapped, r'000/CONV_2D should be the stem convolution'),
        (lost, r'007/DEPTHWISE_CONV_2D/bias is missing'),
        (short, r'52 numbered layers; a folded MobileNetV2 classifier has 53'),
    ):
        np.savez(tmp_path / 'x.npz', **content)
        with pytest.raises(UserError, match=message):
            convert(str(tmp_path / 'x.npz'), tmp_path / 'k.pth')


@pytest.mark.parametrize('ending', ['npz', 'pth'])
def test_a_file_or_checkpoint_of_another_width_names_the_right_one(tmp_path: Path, ending: str) -> None:
    folded_classifier(tmp_path / 'x.npz')
    convert(str(tmp_path / 'x.npz'), tmp_path / 'x.pth')
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.5, 'padding': 'same', 'norm_eps': 1e-3},
        {'type': 'LinearHead'},
        classes=class_names(1001),
        normalise='tensorflow',
    )
    with pytest.raises(UserError, match=r'another width or depth: MobileNetV2\(width=0\.35\)'):
        load_weights(model, tmp_path / f'x.{ending}')
    if ending == 'pth':
        with pytest.raises(UserError, match=r'another width or depth: MobileNetV2\(width=0\.35\)'):
            transfer_weights(model, tmp_path / 'x.pth')
