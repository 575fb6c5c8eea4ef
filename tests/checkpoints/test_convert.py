"""Conversion of whole files: any layout to a Falconet checkpoint that predicts, and back."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torchvision.models import mobilenet_v2

from falconet import load_model
from falconet.backbones.weights.files import write_h5, write_npz, write_state_dict
from falconet.backbones.weights.layouts import LAYOUTS
from falconet.backbones.weights.split import join_weights, split_weights
from falconet.checkpoints.convert import class_names, convert, write_layout
from falconet.core.errors import UserError
from falconet.datasets.segmentation.dataset import VOC_CLASSES
from falconet.engine.evaluate import evaluate
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel

TORCH_LAYOUTS = [name for name, layout in LAYOUTS.items() if layout.stored == 'torch']


@pytest.fixture
def torchvision_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(mobilenet_v2(width_mult=0.35).state_dict(), tmp_path / 'tv.pth')
    return tmp_path / 'tv.pth'


@pytest.fixture
def slim_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    weights = split_weights(mobilenet_v2(num_classes=1001, width_mult=0.35).state_dict(), source='x')
    write_npz(join_weights(weights, 'slim'), tmp_path / 'slim.npz')
    return tmp_path / 'slim.npz'


@pytest.mark.parametrize('layout', ['falconet', *TORCH_LAYOUTS])
def test_a_file_goes_to_every_layout_and_back_unchanged(
    torchvision_file: Path, tmp_path: Path, layout: str
) -> None:
    convert(str(torchvision_file), tmp_path / 'there.pth', layout=layout)
    convert(str(tmp_path / 'there.pth'), tmp_path / 'back.pth', layout='torchvision')
    first, last = (torch.load(path, weights_only=True) for path in (torchvision_file, tmp_path / 'back.pth'))
    assert set(first) == set(last)
    assert all(torch.equal(first[key], last[key]) for key in first)


@pytest.mark.parametrize(('layout', 'ending'), [('slim', 'npz'), ('keras', 'h5')])
def test_tensorflows_weights_go_there_and_back_unchanged(
    slim_file: Path, tmp_path: Path, layout: str, ending: str
) -> None:
    if layout == 'keras':
        pytest.importorskip('h5py', reason="pip install -e '.[keras]'")
    convert(str(slim_file), tmp_path / 'tv.pth', layout='torchvision')
    convert(str(tmp_path / 'tv.pth'), tmp_path / f'x.{ending}', layout=layout)
    convert(str(tmp_path / f'x.{ending}'), tmp_path / 'back.npz', layout='slim')
    first, last = np.load(slim_file), np.load(tmp_path / 'back.npz')
    assert set(first.files) == set(last.files)
    assert all(np.array_equal(first[key], last[key]) for key in first.files)


def test_a_converted_checkpoint_predicts_imagenets_classes(torchvision_file: Path, tmp_path: Path) -> None:
    convert(str(torchvision_file), tmp_path / 'k.pth', resolution=64)
    model = load_model(tmp_path / 'k.pth')
    assert model.preprocess == ({'type': 'ResizeCenterCrop', 'resize': 73, 'crop': 64},)
    assert model.classes[1] == 'goldfish'
    picture = np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)
    scores = model.predict(picture).scores
    theirs = mobilenet_v2(width_mult=0.35).eval()
    theirs.load_state_dict(torch.load(torchvision_file, weights_only=True))
    pixels = torch.from_numpy(model.to_input(picture)).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    with torch.no_grad():
        expected = theirs((pixels - mean) / std).softmax(1)[0].numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_the_background_is_kept_or_dropped(slim_file: Path, tmp_path: Path) -> None:
    convert(str(slim_file), tmp_path / '1001.pth')
    convert(str(slim_file), tmp_path / '1000.pth', without_background=True)
    whole, dropped = load_model(tmp_path / '1001.pth'), load_model(tmp_path / '1000.pth')
    assert whole.classes == ('background', *dropped.classes)
    assert dropped.classes == tuple(class_names(1000))
    assert torch.equal(whole.head.fc.weight[1:], dropped.head.fc.weight)
    assert dropped.spec['backbone']['padding'] == 'same'


def test_depth_multipliers_survive(tmp_path: Path) -> None:
    torch.save(timm.create_model('mobilenetv2_110d').state_dict(), tmp_path / '110d.pth')
    convert(str(tmp_path / '110d.pth'), tmp_path / 'k.pth')
    assert load_model(tmp_path / 'k.pth').spec['backbone']['depth'] == 1.2


def test_the_person_detector_becomes_a_checkpoint(real_data: Path, tmp_path: Path) -> None:
    source = real_data / 'weights/ssdlite_mobilenetv2_person_tf_variables.npz'
    convert(str(source), tmp_path / 'person.pth', classes=['person'])
    model = load_model(tmp_path / 'person.pth')
    assert model.classes == ('person',)
    reference = np.load(real_data / 'known_answers/ssdlite_tf_reference.npz')
    name = next(key.split('/')[0] for key in reference.files)
    images = torch.from_numpy(reference[f'{name}/input']).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model.head(model.backbone(images))['logits']
    assert np.abs(logits.numpy() - reference[f'{name}/class_logits']).max() < 1e-3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'layout': 'timn'}, 'known are falconet, torchvision, timm'),
        ({'layout': 'keras'}, r'should end in \.h5'),
        ({'classes': ['a', 'b']}, 'knows 1,000 classes, 2 names are given'),
        ({'source': 'timm/mobilenetv2_55'}, r'did you mean timm/mobilenetv2_050'),
    ],
)
def test_a_mistake_is_explained(torchvision_file: Path, tmp_path: Path, options: dict, message: str) -> None:
    source = options.pop('source', str(torchvision_file))
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / 'out.pth', **options)
    assert not (tmp_path / 'out.pth').exists()


def test_a_layout_that_cannot_note_the_padding_is_refused(torchvision_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"slim always means padding 'same'.*only right with padding 'symmetric'"
    ):
        convert(str(torchvision_file), tmp_path / 'out.npz', layout='slim')
    note = convert(str(torchvision_file), tmp_path / 'out.pth', layout='transformers')
    assert "padding 'symmetric'" in note


def test_files_without_all_of_a_model_are_refused(torchvision_file: Path, tmp_path: Path) -> None:
    state = torch.load(torchvision_file, weights_only=True)
    bare = {key: value for key, value in state.items() if not key.startswith('classifier')}
    torch.save(bare, tmp_path / 'bare.pth')
    with pytest.raises(UserError, match=r'no classifier.*model\.backbone\.pretrained=FILE'):
        convert(str(tmp_path / 'bare.pth'), tmp_path / 'out.pth')
    del state['features.5.conv.0.0.weight']
    torch.save(state, tmp_path / 'holes.pth')
    with pytest.raises(UserError, match=r'1 tensors are missing: .*features\.5\.conv\.0\.0\.weight'):
        convert(str(tmp_path / 'holes.pth'), tmp_path / 'out.pth')


def test_a_file_never_overwrites_its_source(torchvision_file: Path) -> None:
    with pytest.raises(UserError, match='overwrite its own source'):
        convert(str(torchvision_file), torchvision_file)


def test_classes_need_names(tmp_path: Path) -> None:
    torch.save(mobilenet_v2(num_classes=7, width_mult=0.35).state_dict(), tmp_path / '7.pth')
    with pytest.raises(UserError, match='does not name its 7 classes: give them with --classes'):
        convert(str(tmp_path / '7.pth'), tmp_path / 'out.pth')


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['falconet', *TORCH_LAYOUTS])
def test_real_weights_keep_their_accuracy_through_every_layout(
    real_data: Path, tmp_path: Path, layout: str
) -> None:
    """Every layout that can hold them: Keras' and slim's files always mean another padding."""
    source = real_data / 'weights/mobilenetv2_100_imagenet_torchvision.pth'
    convert(str(source), tmp_path / 'there.pth', layout=layout)
    convert(str(tmp_path / 'there.pth'), tmp_path / 'back.pth')
    report = evaluate(None, checkpoint=str(tmp_path / 'back.pth'), root=str(real_data / 'imagenet'))
    assert report['images'] == 100
    assert report['top1'] >= 0.80


def test_writers_of_every_kind_are_used() -> None:
    from falconet.checkpoints.convert import WRITERS

    assert {layout.stored for layout in LAYOUTS.values()} == set(WRITERS)
    assert {write for _, write in WRITERS.values()} == {write_state_dict, write_h5, write_npz}


def test_torchvisions_default_weights_are_scored_with_their_own_resize(
    torchvision_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from torchvision.models import MobileNet_V2_Weights

    from falconet.backbones.weights import load

    for name, official in (
        ('torchvision', MobileNet_V2_Weights.IMAGENET1K_V2),
        ('torchvision_v1', MobileNet_V2_Weights.IMAGENET1K_V1),
    ):
        monkeypatch.setitem(load.NAMED, name, replace(load.NAMED[name], sha256=None))
        monkeypatch.setattr(load, 'locate', lambda source: torchvision_file)
        monkeypatch.setattr('falconet.checkpoints.convert.locate', lambda source: torchvision_file)
        convert(name, tmp_path / f'{name}.pth')
        (crop,) = load_model(tmp_path / f'{name}.pth').preprocess
        expected = official.transforms()
        assert (crop['resize'], crop['crop']) == (expected.resize_size[0], expected.crop_size[0])


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        ({'taps': ('stage7',)}, 'holds the whole network'),
        ({'shortcut': 'none'}, 'holds the whole network'),
        ({'linear_bottleneck': False}, 'holds the whole network'),
    ],
)
def test_only_the_papers_whole_network_goes_into_other_layouts(
    tmp_path: Path, backbone: dict, message: str
) -> None:
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.35, **backbone}, {'type': 'LinearHead'}, classes=('a', 'b')
    )
    with pytest.raises(UserError, match=message):
        write_layout(model, 'torchvision', tmp_path / 'x.pth')


def test_arguments_that_would_do_nothing_are_refused(
    torchvision_file: Path, tmp_path: Path, root: Path
) -> None:
    convert(str(torchvision_file), tmp_path / 'k.pth')
    with pytest.raises(UserError, match='knows its model, classes and size'):
        convert(str(tmp_path / 'k.pth'), tmp_path / 'x.pth', resolution=96)
    with pytest.raises(UserError, match='leave --config out'):
        convert(
            str(torchvision_file), tmp_path / 'x.pth', config=load_config(root / 'configs/linear_folder.py')
        )


def test_a_deeplab_file_becomes_a_checkpoint_under_a_shipped_config(
    real_data: Path, tmp_path: Path, root: Path
) -> None:
    """Its padding, epsilon and normalisation are TensorFlow's, which the config leaves open."""
    options = ['model.backbone.width=0.5', 'model.backbone.channel_divisor=1']
    convert(
        str(real_data / 'weights/deeplabv3_mobilenetv2_050_voc_tf_folded.npz'),
        tmp_path / 'd.pth',
        classes=VOC_CLASSES,
        config=load_config(root / 'configs/deeplabv3_voc.py', options),
    )
    spec = load_model(tmp_path / 'd.pth').spec
    assert spec['backbone']['padding'] == 'same'
    assert tuple(spec['normalise']['mean']) == (0.5, 0.5, 0.5)
