"""Weights load from names and files, are reported, and never run code."""

import hashlib
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2

from falconet.backbones import MobileNetV2
from falconet.backbones.weights.files import read_state_dict, write_npz
from falconet.backbones.weights.load import load_pretrained
from falconet.backbones.weights.published import NAMED
from falconet.backbones.weights.split import join_weights, split_weights


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weight_file(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / 'weights.pth'
    torch.save(mobilenet_v2(num_classes=7).state_dict(), path)
    return path


def test_a_file_in_torchvisions_layout_loads_whole(weight_file: Path) -> None:
    backbone = MobileNetV2(pretrained=str(weight_file))
    state = torch.load(weight_file, weights_only=True)
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())
    assert not backbone.load_report.new
    assert not backbone.load_report.skipped


@pytest.mark.parametrize(
    'wrap', [lambda s: {'state_dict': s}, lambda s: {f'module.{k}': v for k, v in s.items()}]
)
def test_usual_containers_are_unwrapped(tmp_path: Path, weight_file: Path, wrap) -> None:
    state = torch.load(weight_file, weights_only=True)
    torch.save(wrap(state), tmp_path / 'wrapped.pth')
    assert set(read_state_dict(tmp_path / 'wrapped.pth')) == set(state)


def test_lower_taps_take_their_part_and_name_the_rest(weight_file: Path) -> None:
    backbone = MobileNetV2(taps=('stage3',), pretrained=str(weight_file))
    assert not backbone.load_report.new
    assert any(key.startswith('features.18') for key in backbone.load_report.unused)


def test_weights_of_another_width_are_refused_with_shapes(weight_file: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r'(?s)another width or depth: MobileNetV2\(width=1\).*features\.0\.0\.weight: file \(32,',
    ):
        MobileNetV2(width=0.5, pretrained=str(weight_file))


def test_missing_tensors_are_refused_by_name(tmp_path: Path, weight_file: Path) -> None:
    state = torch.load(weight_file, weights_only=True)
    del state['features.5.conv.0.0.weight']
    torch.save(state, tmp_path / 'holes.pth')
    with pytest.raises(ValueError, match=r'new features\.5\.conv\.0\.0\.weight'):
        MobileNetV2(pretrained=str(tmp_path / 'holes.pth'))


def test_a_missing_file_names_the_known_names() -> None:
    with pytest.raises(FileNotFoundError, match='torchvision_v1'):
        MobileNetV2(pretrained='no/such/file.pth')


def test_an_unknown_layout_says_what_was_looked_for() -> None:
    with pytest.raises(
        ValueError, match=r'features\.0\.0\.weight \(torchvision\).*begins with conv1\.weight'
    ):
        split_weights({'conv1.weight': torch.zeros(1)}, source='x.pth')


@pytest.mark.parametrize(
    ('keys', 'closest'),
    [
        (['net/MobilenetV2/Conv/weights', 'net/MobilenetV2/expanded_conv_3/expand/weights'], 'slim'),
        (['blocks.3.0.conv_pwl.weight', 'blocks.0.0.conv_dw.weight'], r'timm: 2 of its keys are there'),
        (['encoder.mobilenet_v2.layer.3.expand_1x1.convolution.weight'], 'transformers'),
    ],
)
def test_an_unknown_layout_names_the_closest(keys: list[str], closest: str) -> None:
    with pytest.raises(ValueError, match=rf'The closest layout is {closest}'):
        split_weights({key: torch.zeros(1) for key in keys}, source='x.pth')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'padding': 'same'}, r"padding='same' contradicts .*only right with padding='symmetric'"),
        ({'norm_eps': 1e-3}, r'norm_eps=0\.001 contradicts .*only right with norm_eps=1e-05'),
    ],
)
def test_weights_decide_padding_and_eps(weight_file: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MobileNetV2(pretrained=str(weight_file), **options)
    backbone = MobileNetV2(pretrained=str(weight_file))
    assert backbone.settled == {'padding': 'symmetric', 'norm_eps': 1e-5}


def test_weights_decide_the_models_normalisation(tmp_path: Path, weight_file: Path) -> None:
    from falconet.core.errors import UserError
    from falconet.tasks.model import VisionModel

    weights = split_weights(torch.load(weight_file, weights_only=True), source='file')
    path = tmp_path / 'slim.npz'
    write_npz(join_weights(weights, 'slim'), path)
    entry = {'type': 'MobileNetV2', 'pretrained': str(path)}
    model = VisionModel(entry, {'type': 'LinearHead'}, classes=('a', 'b'))
    assert model.normalise.mean == (0.5, 0.5, 0.5)
    assert model.spec['backbone'] == {'type': 'MobileNetV2', 'padding': 'same', 'norm_eps': 1e-3}
    with pytest.raises(
        UserError, match=r'normalise \(mean \(0\.485.*contradicts .*slim\.npz.*leave normalise out'
    ):
        VisionModel(entry, {'type': 'LinearHead'}, classes=('a', 'b'), normalise='imagenet')


class Trap:
    """A pickle that would write a file when opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / 'was_here'
    for name, write in {
        'torch.pth': lambda path: torch.save({'state_dict': Trap(target)}, path),
        'plain.pth': lambda path: path.write_bytes(pickle.dumps(Trap(target))),
    }.items():
        write(tmp_path / name)
        with pytest.raises(ValueError, match=r'refused|not a'):
            read_state_dict(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize('keep', [0, 10, 1000, 500_000])
def test_a_truncated_file_is_called_so(tmp_path: Path, weight_file: Path, keep: int) -> None:
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(weight_file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'cut\.pth: not a'):
        read_state_dict(cut)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloads, and a network that nothing answers on."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))

    def fails(*_: object, **__: object) -> None:
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fails)
    return tmp_path / 'hub/checkpoints'


@pytest.mark.parametrize('name', ['torchvision', 'timm/mobilenetv2_050', 'keras/mobilenet_v2_0.35_96'])
def test_without_a_network_the_error_names_the_file_to_fetch(cache: Path, name: str) -> None:
    with pytest.raises(
        ConnectionError, match=r'Fetch https://\S+ by hand and put it at .*checkpoints'
    ) as error:
        MobileNetV2(pretrained=name)
    assert NAMED[name].url in str(error.value)
    assert str(cache / NAMED[name].file_name) in str(error.value)


def test_a_download_goes_to_the_cache_and_is_compared_with_its_hash(
    cache: Path, weight_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setitem(NAMED, 'torchvision', replace(NAMED['torchvision'], sha256=sha256(weight_file)[:8]))

    def fetch(url: str, target: str, hash_prefix: str) -> None:
        asked.append((url, hash_prefix))
        shutil.copy(weight_file, target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    for _ in range(2):  # the second time from the cache
        assert not MobileNetV2(pretrained='torchvision').load_report.new
    assert asked == [(NAMED['torchvision'].url, sha256(weight_file)[:8])]


def test_a_cached_file_with_another_hash_is_refused(cache: Path, weight_file: Path) -> None:
    """Whether it was cut off, changed or mistaken for another."""
    cache.mkdir(parents=True)
    shutil.copy(weight_file, cache / NAMED['torchvision'].file_name)
    with pytest.raises(
        ValueError, match=r'wrong sha256: expected 7ebf99e0\.\.\., got \w{8}.*delete the file'
    ):
        MobileNetV2(pretrained='torchvision')


def test_a_download_with_another_hash_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise RuntimeError('invalid hash value (expected "7ebf99e0", got "00000000...")')  # torch's words

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    with pytest.raises(ValueError, match=r'not the published file, or was cut off .*got "00000000'):
        MobileNetV2(pretrained='torchvision')


def test_an_archive_says_how_to_unpack_it() -> None:
    with pytest.raises(
        ConnectionError, match=r'archive: fetch https://\S+tgz, unpack it .* pass the checkpoint'
    ):
        MobileNetV2(pretrained='slim/mobilenet_v2_1.0_224')


def test_named_weights_say_what_they_are() -> None:
    from timm.models import get_pretrained_cfg
    from torchvision.models import MobileNet_V2_Weights

    for name, enum in (('torchvision', 'IMAGENET1K_V2'), ('torchvision_v1', 'IMAGENET1K_V1')):
        theirs = MobileNet_V2_Weights[enum]
        assert NAMED[name].url == theirs.url
        assert NAMED[name].top1 == theirs.meta['_metrics']['ImageNet-1K']['acc@1']
    for name, weights in NAMED.items():
        if name.startswith('timm/'):
            theirs = get_pretrained_cfg(name.removeprefix('timm/'))
            assert theirs is not None
            assert weights.url == theirs.url
            assert weights.facts.normalise == {'mean': theirs.mean, 'std': theirs.std}
        if weights.sha256:
            assert weights.sha256 in weights.url
        assert weights.num_classes == (1001 if name.startswith(('slim/', 'transformers/')) else 1000)
        with torch.device('meta'):
            MobileNetV2(**weights.options)
    assert len([name for name in NAMED if name.startswith('slim/')]) == 22
    assert len(NAMED) == len({weights.file_name for weights in NAMED.values()})


def test_real_imagenet_weights_load(real_data: Path) -> None:
    backbone = MobileNetV2()
    report = load_pretrained(backbone, str(real_data / 'weights/mobilenetv2_100_imagenet_torchvision.pth'))
    assert not report.new
    assert not report.skipped


def test_an_archive_of_arrays_is_read_and_never_runs_code(tmp_path: Path) -> None:
    np.savez(tmp_path / 'good.npz', a=np.ones((2, 3), np.float32))
    assert read_state_dict(tmp_path / 'good.npz')['a'].shape == (2, 3)
    target = tmp_path / 'was_here'
    np.savez(tmp_path / 'trap.npz', a=np.array([Trap(target)], dtype=object))
    (tmp_path / 'cut.npz').write_bytes((tmp_path / 'good.npz').read_bytes()[:100])
    (tmp_path / 'text.npz').write_text('no archive')
    for name in ('trap.npz', 'cut.npz', 'text.npz'):
        with pytest.raises(ValueError, match=r'not a readable \.npz, or truncated'):
            read_state_dict(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize('eps', [1e-5, 1e-3])
def test_folded_norms_add_their_bias_and_change_nothing_else(tmp_path: Path, eps: float) -> None:
    """A deeplab file of a made-up network: every norm is exactly `x + bias`, whatever its epsilon."""
    torch.manual_seed(0)
    backbone = MobileNetV2(width=0.35, taps=('stage7',), padding='same', norm_eps=eps).eval()
    shapes = [m.weight.shape for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    shapes += [(256, 112, 1, 1), (256, 112, 1, 1), (256, 512, 1, 1), (21, 256, 1, 1)]
    arrays = {}
    for number, shape in enumerate(shapes):
        kind = 'DEPTHWISE_CONV_2D' if shape[1] == 1 else 'CONV_2D'
        arrays[f'{number:03}/{kind}/weight'] = torch.randn(shape).numpy() * 0.1
        arrays[f'{number:03}/{kind}/bias'] = torch.randn(shape[0]).numpy()
    np.savez(tmp_path / 'folded.npz', **arrays)
    parts = split_weights(read_state_dict(tmp_path / 'folded.npz'), source='')
    backbone.load_state_dict(parts.backbone)
    assert parts.layout == 'deeplab'
    assert {'image_pooling/conv.weight', 'concat_projection/norm.bias', 'logits/semantic/conv.bias'} <= set(
        parts.rest
    )
    number = 0
    for name, module in backbone.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            kind = next(key for key in arrays if key.startswith(f'{number:03}/')).split('/')[1]
            bias = torch.from_numpy(arrays[f'{number:03}/{kind}/bias'])
            tensor = torch.randn(1, len(bias), 3, 3)
            torch.testing.assert_close(
                module(tensor), tensor + bias[:, None, None], atol=1e-6, rtol=0, msg=name
            )
            number += 1
    assert number == len(shapes) - 4


@pytest.mark.parametrize('text', ['classes: cat', 'garbage', '<html></html>', ''])
def test_a_text_file_is_no_weight_file(tmp_path: Path, text: str) -> None:
    (tmp_path / 'x.pth').write_text(text)
    with pytest.raises(ValueError, match=r'not a (readable )?weight file'):
        read_state_dict(tmp_path / 'x.pth')


def test_the_bare_state_dict_of_a_falconet_model_is_refused(tmp_path: Path) -> None:
    backbone = MobileNetV2(width=0.35)
    torch.save({f'backbone.{key}': value for key, value in backbone.state_dict().items()}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'bare state dict .*best\.pth'):
        MobileNetV2(width=0.35, pretrained=str(tmp_path / 'x.pth'))


def test_a_file_that_describes_an_unknown_backbone_is_refused(tmp_path: Path) -> None:
    model = {'backbone': {'type': 'Elsewhere'}, 'normalise': {'mean': (0.5,) * 3, 'std': (0.5,) * 3}}
    torch.save({'state_dict': {'backbone.x': torch.zeros(1)}, 'model': model}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r"x\.pth is of a backbone 'Elsewhere'; known are MobileNetV2"):
        MobileNetV2(pretrained=str(tmp_path / 'x.pth'))


def test_a_broken_download_without_a_hash_says_what_to_delete(cache: Path) -> None:
    name = 'tonylins/mobilenetv2_1.0-f2a8633'
    path = cache / NAMED[name].file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('<html>no such file</html>')
    with pytest.raises(ValueError, match=r'delete .*f2a8633.* and try again'):
        MobileNetV2(pretrained=name)


def test_a_connection_that_breaks_off_is_no_traceback(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.client import IncompleteRead

    def breaks(*_: object, **__: object) -> None:
        raise IncompleteRead(b'half')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', breaks)
    with pytest.raises(ConnectionError, match=r'could not be downloaded .*by hand'):
        MobileNetV2(pretrained='torchvision')


def test_what_is_beside_the_backbone_is_reported_as_unused(weight_file: Path) -> None:
    assert 'classifier weight' in MobileNetV2(pretrained=str(weight_file)).load_report.unused
