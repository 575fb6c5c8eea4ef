"""TimmBackbone puts timm's models under every head, and refuses those that do not fit, with the reason."""

from pathlib import Path

import pytest
import timm
import torch

import falconet.heads
from falconet.backbones import TimmBackbone
from falconet.backbones.timm_adapter import is_network_error
from falconet.heads import HEADS, Head

assert falconet.heads

MODELS = (
    'mobilenetv3_small_050',
    'efficientnet_lite0',
    'resnet18',
    'ghostnet_050',
    'repvgg_a0',
    'regnetx_002',
)
# Which maps a head that needs so many reads.
MAPS = {1: (-1,), 2: (-2, -1)}


@pytest.mark.parametrize('model', MODELS)
def test_maps_equal_timms_own(model: str) -> None:
    torch.manual_seed(0)
    ours = TimmBackbone(model=model, out_indices=(1, 2, -1)).eval()
    theirs = timm.create_model(model, features_only=True).eval()
    theirs.load_state_dict(ours.network.state_dict())
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps, expected = ours(images), theirs(images)
    assert ours.channels == tuple(theirs.feature_info.channels()[place] for place in (1, 2, -1))
    assert ours.strides == (4, 8, 32)
    for tensor, place in zip(maps, (1, 2, -1), strict=True):
        torch.testing.assert_close(tensor, expected[place])


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('head_class', HEADS.module_dict.values(), ids=HEADS.module_dict)
def test_every_head_runs_on_it(model: str, head_class: type[Head]) -> None:
    backbone = TimmBackbone(model=model, out_indices=MAPS[head_class.min_maps]).eval()
    head = head_class(backbone.channels, backbone.strides, num_classes=3).eval()
    with torch.no_grad():
        answers = head.predict(head(backbone(torch.rand(2, 3, 64, 64))), [(40, 60), (7, 5)])
    assert len(answers) == 2


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('place', [0, 1])
def test_layers_above_the_highest_map_are_not_kept(model: str, place: int) -> None:
    backbone = TimmBackbone(model=model, out_indices=(place,))
    backbone(torch.rand(2, 3, 64, 64))[0].square().mean().backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'model': 'vit_tiny_patch16_224'}, r"cannot compute a 64x64 image .*doesn't match model \(224\)"),
        ({'model': 'convnext_atto'}, r'65x97 image is \(1, 320, 2, 3\).* must return \(1, 320, 3, 4\)'),
        ({'model': 'hrnet_w18_small'}, 'cannot compute a 65x97 image'),
        ({'model': 'resnet81'}, r"no model 'resnet81'\. Did you mean resnet18"),
        ({'model': 'resnet18.nobody'}, r"no weights 'resnet18\.nobody'; of resnet18 it has .*a1_in1k"),
        ({'out_indices': (7,)}, r'has 5 maps, of \[16, 8, 16, 24, 288\] channels: there is no map 7'),
        ({'out_indices': (-1, 1)}, 'finest first'),
        ({'out_indices': -1}, r'sequence such as \(-2, -1\)'),
        ({'options': {'features_only': False}}, r"may not hold \['features_only'\]"),
        ({'options': {'output_strid': 16}}, 'output_strid'),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**options)


def test_options_reach_timm() -> None:
    assert TimmBackbone(options={'output_stride': 16}).strides == (16,)


def test_a_file_of_timms_weights_fills_it_and_brings_its_normalisation(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model('mobilenetv3_small_050', num_classes=7)
    torch.save(whole.state_dict(), tmp_path / 'weights.pth')
    backbone = TimmBackbone(pretrained=str(tmp_path / 'weights.pth'))
    assert backbone.normalise == {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
    state = whole.state_dict()
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert TimmBackbone().normalise is None


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model('resnet18').state_dict(), tmp_path / 'resnet.pth')
    with pytest.raises(
        ValueError, match=r'does not fit timm model mobilenetv3_small_050: .*conv_stem\.weight'
    ):
        TimmBackbone(pretrained=str(tmp_path / 'resnet.pth'))
    with pytest.raises(FileNotFoundError, match='no such file'):
        TimmBackbone(pretrained=str(tmp_path / 'nothing.pth'))


def test_without_a_network_the_error_names_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise FileNotFoundError('not in the cache') from ConnectionError('no network')

    real = timm.create_model
    monkeypatch.setattr(
        timm, 'create_model', lambda *a, pretrained, **k: fails() if pretrained else real(*a, **k)
    )
    with pytest.raises(ConnectionError, match=r'Fetch them from timm/mobilenetv3_small_050\.lamb_in1k'):
        TimmBackbone(pretrained=True)


def test_a_failed_connection_is_told_from_other_errors() -> None:
    assert is_network_error(ConnectionError())
    assert not is_network_error(RuntimeError())
