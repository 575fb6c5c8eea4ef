"""Files of weights of every kind: the same tensors, and what is wrong with one is said."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

from falconet.backbones import MobileNetV2
from falconet.backbones.weights.files import (
    read_state_dict,
    read_weight_file,
    write_h5,
    write_npz,
    write_state_dict,
)
from falconet.backbones.weights.layouts import PYTORCH_BORN, TENSORFLOW_BORN
from falconet.backbones.weights.load import read_weights
from falconet.backbones.weights.split import (
    SplitWeights,
    join_weights,
    split_weights,
)


def random_weights(width: float = 0.35, classes: int = 5) -> SplitWeights:
    torch.manual_seed(1)
    model = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)
    return split_weights(model.state_dict(), source='random')


@pytest.mark.parametrize('name', ['whole.npz', 'whole.pth', 'whole.h5'])
def test_files_of_every_kind_hold_the_same_tensors(tmp_path: Path, name: str) -> None:
    weights = random_weights()
    path = tmp_path / name
    layout = {'.npz': 'slim', '.pth': 'timm', '.h5': 'keras'}[path.suffix]
    write = {'.npz': write_npz, '.pth': write_state_dict, '.h5': write_h5}[path.suffix]
    if path.suffix == '.h5':
        pytest.importorskip('h5py', reason="pip install -e '.[keras]'")
    write(join_weights(weights, layout), path)
    back = read_weights(str(path))
    assert back.layout == layout
    for key, value in back.backbone.items():
        assert torch.equal(value, weights.backbone[key])
    assert torch.equal(back.classifier['weight'], weights.classifier['weight'])


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = random_weights()
    save_file(join_weights(weights, 'transformers'), tmp_path / 'model.safetensors')
    assert read_weights(str(tmp_path / 'model.safetensors')).layout == 'transformers'
    (tmp_path / 'cut.safetensors').write_bytes((tmp_path / 'model.safetensors').read_bytes()[:1000])
    with pytest.raises(ValueError, match=r'cut\.safetensors: not a readable .safetensors file, or truncated'):
        read_weights(str(tmp_path / 'cut.safetensors'))


def test_a_converted_file_keeps_what_its_weights_are_right_with(tmp_path: Path) -> None:
    """torchvision's keys hold TensorFlow's weights too; padding travels in metadata that torch ignores."""
    weights = random_weights()
    write_state_dict(join_weights(weights, 'torchvision'), tmp_path / 'x.pth', TENSORFLOW_BORN)
    assert MobileNetV2(width=0.35, pretrained=str(tmp_path / 'x.pth')).settled == {
        'padding': 'same',
        'norm_eps': 1e-3,
    }
    theirs = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.35)
    theirs.load_state_dict(torch.load(tmp_path / 'x.pth', weights_only=True))
    assert read_weights(str(tmp_path / 'x.pth')).facts != PYTORCH_BORN


def test_missing_variables_are_named_as_the_file_names_them(tmp_path: Path) -> None:
    state = join_weights(random_weights(), 'slim')
    del state['MobilenetV2/expanded_conv_3/depthwise/depthwise_weights']
    del state['MobilenetV2/expanded_conv_7/project/BatchNorm/gamma']
    write_npz(state, tmp_path / 'holes.npz')
    with pytest.raises(
        ValueError,
        match=r'(?s)2 of .* tensors are missing.*Under its slim names the file lacks '
        r'MobilenetV2/expanded_conv_3/depthwise/depthwise_weights, MobilenetV2/expanded_conv_7/project/',
    ):
        MobileNetV2(width=0.35, pretrained=str(tmp_path / 'holes.npz'))


def test_a_file_of_another_width_or_depth_says_which(tmp_path: Path) -> None:
    torch.save(timm.create_model('mobilenetv2_120d').state_dict(), tmp_path / '120d.pth')
    with pytest.raises(
        ValueError, match=r'MobileNetV2\(width=1\.2, depth=1\.4, stem_channels=32, last_channels=1280\)'
    ):
        MobileNetV2(pretrained=str(tmp_path / '120d.pth'))
    odd = torchvision.models.mobilenet_v2(width_mult=0.6)
    torch.save(odd.state_dict(), tmp_path / 'odd.pth')
    with pytest.raises(ValueError, match='another width, none of the usual ones'):
        MobileNetV2(pretrained=str(tmp_path / 'odd.pth'))


@pytest.mark.parametrize('keep', [0, 10, 100_000])
@pytest.mark.parametrize('ending', ['npz', 'h5'])
def test_a_truncated_file_of_any_kind_is_called_so(tmp_path: Path, ending: str, keep: int) -> None:
    if ending == 'h5':
        pytest.importorskip('h5py', reason="pip install -e '.[keras]'")
    path = tmp_path / f'whole.{ending}'
    weights = random_weights()
    if ending == 'npz':
        write_npz(join_weights(weights, 'slim'), path)
    else:
        write_h5(join_weights(weights, 'keras'), path)
    cut = tmp_path / f'cut.{ending}'
    cut.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf'cut\.{ending}: not a readable .*truncated \({keep:,} bytes\)'):
        read_weight_file(cut)


@pytest.mark.parametrize('ending', ['npz', 'pth', 'h5'])
def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f'small.{ending}'
    zeros = np.zeros(200_000_000, np.uint8)
    if ending == 'h5':
        h5py = pytest.importorskip('h5py', reason="pip install -e '.[keras]'")
        with h5py.File(path, 'w') as file:
            file.create_dataset('layer/kernel', shape=zeros.shape, dtype=zeros.dtype, chunks=(10**6,))
    elif ending == 'npz':
        np.savez_compressed(path, variable=zeros)
    else:
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('archive/data/0', zeros.tobytes())
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ValueError, match=r'small\..* stand for 200,000,.*refused'):
        read_weight_file(path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'h5py', None)
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    (tmp_path / 'x.h5').write_bytes(b'x')
    with pytest.raises(ValueError, match=r"needs the extra: pip install -e '\.\[keras\]'"):
        MobileNetV2(pretrained=str(tmp_path / 'x.h5'))
    (tmp_path / 'model.ckpt-1.index').write_bytes(b'x')
    for name in ('model.ckpt-1', 'model.ckpt-1.index'):
        with pytest.raises(ValueError, match=r"\.\[tensorflow\]'.*numpy\.savez"):
            MobileNetV2(pretrained=str(tmp_path / name))


def test_every_cut_of_a_file_in_torchs_old_format_is_an_error_that_names_it(tmp_path: Path) -> None:
    state = {'features.0.0.weight': torch.rand(4, 3, 3, 3), 'features.0.1.bias': torch.rand(4)}
    torch.save(state, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    whole = (tmp_path / 'old.pth').read_bytes()
    for keep in range(0, len(whole), 7):
        (tmp_path / 'cut.pth').write_bytes(whole[:keep])
        # A cut inside the name of a class looks like a class of somebody's own.
        with pytest.raises(ValueError, match=r'cut\.pth: (not a (readable )?weight file|refused)'):
            read_state_dict(tmp_path / 'cut.pth')
