"""Weights load from names and files, are reported, and never run code."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import mobilenet_v2

from backbones import MobileNetV2
from backbones.convert import split_weights
from backbones.pretrained import _download, load_pretrained, read_state_dict


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
        ValueError, match=r'(?s)another width.*skipped features\.0\.0\.weight: file \(32, 3, 3, 3\)'
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
    with pytest.raises(ValueError, match=r'features\.0\.0\.weight.*begins with conv1\.weight'):
        split_weights({'conv1.weight': torch.zeros(1)}, source='x.pth')


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


def test_without_a_network_the_error_names_the_file_to_fetch() -> None:
    def fails(**_: object) -> None:
        raise URLError('no network')

    with pytest.raises(
        ConnectionError, match=r'https://\S+mobilenet_v2-7ebf99e0\.pth by hand and put it at .*checkpoints'
    ):
        _download('torchvision', fetch=fails)


def test_the_name_torchvision_goes_through_its_enum(weight_file: Path) -> None:
    state = torch.load(weight_file, weights_only=True)
    asked = {}
    assert _download('torchvision', fetch=lambda **options: asked.update(options) or state) is state
    assert asked == {'progress': True, 'check_hash': True, 'weights_only': True}


def test_real_imagenet_weights_load(real_data: Path) -> None:
    backbone = MobileNetV2()
    report = load_pretrained(backbone, str(real_data / 'weights/mobilenetv2_100_imagenet_torchvision.pth'))
    assert not report.new
    assert not report.skipped
