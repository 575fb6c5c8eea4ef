"""INT8: which operators, which ranges, which pictures; the answers stay near, and what was lost is said."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

import falconet.deploy.export
from falconet.checkpoints.external_weights import load_weights
from falconet.checkpoints.file import describe as content_of
from falconet.checkpoints.file import write_checkpoint
from falconet.core.errors import UserError
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import CARD, describe, description_for, export
from falconet.deploy.formats import FORMATS, Traced, trace
from falconet.deploy.int8 import prepare as preparing
from falconet.deploy.int8.calibration import Int8, choose
from falconet.deploy.int8.inside import Step, last_of, network_of
from falconet.deploy.int8.prepare import edges, prepare
from falconet.deploy.int8.ranges import Ranges, best_range
from falconet.deploy.int8.score import check_drop
from falconet.deploy.parity import expected_answer, generated_pictures, relative
from falconet.deploy.program import Program
from falconet.tasks.build import build_dataset, build_model, load_config
from falconet.tasks.model import VisionModel


def needs(name: str) -> pytest.MarkDecorator:
    modules = (*FORMATS[name].needs, *(FORMATS[name].int8 or ()))
    missing = [each for each in modules if importlib.util.find_spec(each) is None]
    return pytest.mark.skipif(bool(missing), reason=f'{missing} not installed')


@pytest.fixture
def checkpoint(small_model: Callable[..., VisionModel], folders: Path, tmp_path: Path) -> Path:
    """A classifier of three hues whose config names the pictures of `folders`."""
    model = small_model('classification')
    loader = {'batch_size': 8, 'num_workers': 0}
    dataset = {'type': 'ImageFolder', 'augment': list(model.preprocess)}
    config = Config(
        {
            'model': model.spec,
            'data_root': str(folders),
            'train_dataloader': {**loader, 'dataset': {**dataset, 'split': 'train'}},
            'val_dataloader': {**loader, 'dataset': {**dataset, 'split': 'test'}},
        }
    )
    content = {**content_of(model, config), 'state_dict': model.state_dict(), 'metrics': {}}
    write_checkpoint(content, tmp_path / 'best.pth')
    return tmp_path / 'best.pth'


# The graph.


def test_the_network_begins_with_a_convolution_and_ends_with_the_last_product() -> None:
    steps = [
        Step('resize', 'product', ['picture'], ['small']),
        Step('normalise', '', ['small'], ['image']),
        Step('first', 'convolution', ['image'], ['a']),
        Step('size', '', ['image'], ['shape']),
        Step('activation', '', ['a'], ['b']),
        Step('boxes', 'convolution', ['b'], ['offsets']),
        Step('mean', '', ['b', 'shape'], ['pooled']),
        Step('classes', 'product', ['pooled'], ['logits']),
        Step('decode', '', ['offsets', 'logits'], ['answer']),
    ]
    assert network_of(steps) == ['first', 'activation', 'boxes', 'mean', 'classes']
    assert last_of(steps[1:]) == {'boxes', 'classes'}


# Ranges.


def test_a_range_leaves_out_what_few_values_have() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    whole = (float(values.min()) * 3, float(values.max()) * 3)
    low, high = best_range(values, *whole)
    assert whole[0] / 2 < low < -3
    assert 3 < high < whole[1] / 2


def test_a_range_of_evenly_spread_values_is_all_of_it() -> None:
    assert best_range(np.linspace(0, 6, 5000), 0, 6) == (0, 6)


def test_zeros_alone_have_a_range_and_zero_is_always_within() -> None:
    ranges = Ranges()
    ranges.see({'zeros': np.zeros((2, 3)), 'above': np.full((4,), 2.0), 'below': np.full((4,), -2.0)})
    found = ranges.best()
    assert found['zeros'] == (0, 1)
    assert found['above'][0] == 0 < found['above'][1]
    assert found['below'][1] == 0 > found['below'][0]


# Weights.


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
def test_equalised_channels_compute_the_same_and_fill_their_range(
    small_model: Callable[..., VisionModel], padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, '_correct', lambda *_: None)
    program = Program(small_model('classification', padding), raw=True)
    pictures = generated_pictures(program.picture or (0, 0), seed=3)
    traced = trace(program, '{}', batch=4)
    module = traced.program.module()
    assert len(edges(module)) == 17  # every depthwise convolution of MobileNetV2 follows another
    before = module(torch.from_numpy(pictures))['outputs'].detach()
    spread = narrowest(module, pictures)
    prepare(traced, [pictures])
    after = traced.program.module()(torch.from_numpy(pictures))['outputs'].detach()
    np.testing.assert_allclose(after, before, atol=1e-4 * float(before.abs().max()))
    assert narrowest(traced.program.module(), pictures) > 1.5 * spread


def narrowest(module: torch.fx.GraphModule, pictures: np.ndarray) -> float:
    """Return how much of its map's range a channel fills, of those an edge begins with: the mean of all."""
    seen = preparing._Seen(module)
    with torch.no_grad():
        seen.run(torch.from_numpy(pictures))
    filled = [seen.largest[edge.first.name].clamp(0, edge.cap) for edge in edges(module)]
    return float(torch.cat([each / each.max() for each in filled]).mean())


def test_a_corrected_bias_takes_back_what_rounded_weights_move() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(6, 8, 3, groups=2)

        def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            return {'out': self.layer(pictures)}

    def mean_of(weight: torch.Tensor) -> torch.Tensor:
        """Return the mean of each channel with these weights and the present bias."""
        found = torch.nn.functional.conv2d(pictures, weight, model.layer.bias, groups=2)
        return found.mean(dim=(0, 2, 3))

    torch.manual_seed(0)
    model, pictures = Layer().eval(), torch.rand(4, 6, 12, 12) + 0.5
    weight = model.layer.weight
    with torch.no_grad():
        weight[:, :, 0, 0] *= 40  # coarse steps
        step = weight.abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1) / 127
        rounded = (weight / step).round() * step
        expected, before = mean_of(weight), mean_of(rounded)
        traced = Traced(torch.export.export(model, (pictures,)), ('out',), '{}', (4,))
        prepare(traced, [pictures.numpy()])
        after = mean_of(rounded)  # the trace and the layer share their bias
    assert (after - expected).abs().max() < 0.2 * (before - expected).abs().max()


# Programs.


@pytest.mark.filterwarnings('ignore')  # of the converters
@pytest.mark.parametrize(
    ('name', 'task'),
    [
        pytest.param('onnx', 'segmentation', marks=[needs('onnx'), pytest.mark.slow]),
        *(
            pytest.param('litert', task, marks=needs('litert'))
            for task in ('classification', 'detection', 'segmentation')
        ),
    ],
)
def test_what_the_network_computes_stays_near(
    name: str, task: str, small_model: Callable[..., VisionModel], tmp_path: Path
) -> None:
    model, form = small_model(task, 'same'), FORMATS[name]
    program = Program(model, raw=True)
    pictures = generated_pictures(program.picture or (0, 0), count=4, seed=5)
    content = {'config': {}, 'versions': {}, 'metrics': {}}
    (tmp_path / 'best.pth').write_bytes(b'')
    about = describe(program, model, content, tmp_path / 'best.pth', batch=None)
    about = description_for(about, batch=None, fixed=form.fixed)
    traced = trace(program, about.model_dump_json(), batch=about.batch)
    expected = expected_answer(model, program, pictures)
    prepare(traced, [picture[None] for picture in pictures])
    path = tmp_path / f'program{form.ending}'
    form.module(writing=True, int8=True).write_int8(traced, path, [each[None] for each in pictures])
    found = ExportedModel(path).run(pictures)
    each_picture = [key for key in expected if key != 'defaults']  # which depend on none
    errors = {key: relative(expected[key], found[key]) for key in each_picture}
    assert max(errors.values()) < 0.25, errors
    assert min(errors.values()) < 0.1, errors


@needs('openvino')
@pytest.mark.filterwarnings('ignore')
def test_files_are_written_scored_and_described(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    broken = sorted((tmp_path / 'data/train/blue').iterdir())[0]
    broken.write_bytes(b'no picture')
    files = export(checkpoint, ['onnx', 'openvino'], out=out, int8=Int8(pictures=24, max_drop=100))
    assert [each.path.name for each in files] == ['best_int8.onnx', 'best_int8.xml']
    float32 = sum(each.numel() * 4 for each in torch.load(checkpoint)['state_dict'].values())
    assert all(0 < each.size < float32 for each in files)
    card = (out / CARD).read_text()
    assert '23 pictures of the training data, drawn with seed 0' in card
    assert 'train/red/0.png' in card
    assert 'left out, not readable: 0.png' in card
    for each in files:
        assert f'| {each.path.name} | {each.size:,} | {each.scores["top1"]:.4f} | {each.lost:.2f} |' in card
        assert ExportedModel(each.path).predict(str(tmp_path / 'data/test/red/0.png')).class_names


def test_one_that_lost_too_much_is_refused_and_nothing_is_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([{'top1': 0.9}, {'top1': 0.88}])
    monkeypatch.setattr(falconet.deploy.export, 'scores_of', lambda *_: next(scores))
    monkeypatch.setattr(FORMATS['onnx'].module(), 'write_int8', lambda traced, path, _: path.write_bytes(b''))
    with pytest.raises(
        UserError, match=r'0\.8800, 2\.00 points below .* at most 1 may be lost.*more pictures'
    ):
        export(checkpoint, ['onnx'], out=tmp_path / 'out', int8=Int8(pictures=4))
    assert not list((tmp_path / 'out').iterdir())


def test_a_score_that_is_no_number_is_too_low() -> None:
    with pytest.raises(UserError, match='points below'):
        check_drop(Path('x.onnx'), {'ap': 0.5}, {'ap': float('nan')}, most=100, pictures=1)
    assert check_drop(Path('x.onnx'), {'top1': 0.85}, {'top1': 0.84}, most=1, pictures=1) == 1
    assert check_drop(Path('x.onnx'), {'ap': 0.5}, {'ap': 0.51}, most=0, pictures=1) == pytest.approx(-1)


# Pictures, and what can be wrong.


def test_pictures_are_drawn_by_the_seed(folders: Path) -> None:
    def names(seed: int) -> list[str]:
        wanted = Int8(pictures=5, inputs=[folders / 'train'], seed=seed)
        return choose(wanted, {}, source='best.pth', root=None).names

    assert names(0) == names(0) != names(1)
    assert len(set(names(0))) == 5


def test_the_last_pictures_come_again_to_fill_a_batch(
    folders: Path, small_model: Callable[..., VisionModel]
) -> None:
    model = small_model('classification')
    chosen = choose(Int8(pictures=5, inputs=[folders / 'train']), {}, source='', root=None)
    batches = list(chosen.batches(Program(model), model, batch=3))
    assert [each.shape for each in batches] == [(3, 96, 96, 3)] * 2
    assert (batches[1][2] == batches[1][0]).all()


def test_a_folder_without_a_readable_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_bytes(b'no picture')
    with pytest.raises(UserError, match=r'no picture to calibrate on: .* has 1, none can be read .*a\.png'):
        choose(Int8(inputs=[tmp_path]), {}, source='best.pth', root=None)
    (tmp_path / 'a.png').unlink()
    with pytest.raises(UserError, match='no pictures'):
        choose(Int8(inputs=[tmp_path]), {}, source='best.pth', root=None)


def test_data_that_is_not_there_asks_for_its_place(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'does not exist .*--data-root'):
        export(checkpoint, ['onnx'], out=tmp_path / 'out', int8=Int8(), data_root=str(tmp_path / 'none'))
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_that_names_no_training_data_asks_for_pictures(
    small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match='--calibrate-on'):
        export(small_checkpoint(), ['onnx'], out=tmp_path / 'out', int8=Int8())


@pytest.mark.parametrize('name', ['torch', 'executorch'])
def test_a_format_without_int8_is_named_with_those_that_have_it(name: str) -> None:
    with pytest.raises(UserError, match=f'{name} has no INT8 here; those that have: onnx, openvino, litert'):
        FORMATS[name].module(int8=True)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(UserError, match=r'openvino needs nncf, not installed here: .*\[int8\]'):
        FORMATS['openvino'].module(writing=True, int8=True)


@pytest.mark.parametrize('options', [{'pictures': 0}, {'max_drop': -1}, {'max_drop': float('nan')}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match='got'):
        Int8(**options)  # type: ignore[arg-type]


def test_pictures_of_a_fixed_size_cannot_be_scored(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='--size any'):
        export(checkpoint, ['onnx'], out=tmp_path / 'out', int8=Int8(), size=(50, 60))


# Real photographs and weights.


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'name', [pytest.param(each, marks=needs(each)) for each in ('onnx', 'openvino', 'litert')]
)
def test_an_imagenet_classifier_loses_at_most_one_photograph_of_a_hundred(
    name: str, real_data: Path, tmp_path: Path
) -> None:
    config = load_config('linear_imagenet')
    config.data_root = str(real_data / 'imagenet')
    weights = real_data / 'weights/mobilenetv2_100_imagenet_torchvision.pth'
    data = build_dataset(config, 'val_dataloader', root=real_data / 'imagenet', classes=None, seed=0)
    model = build_model(config, classes=data.classes)
    load_weights(model, weights)
    content = {**content_of(model, config), 'state_dict': model.state_dict(), 'metrics': {}}
    write_checkpoint(content, tmp_path / 'imagenet.pth')
    wanted = Int8(pictures=100, inputs=[real_data / 'coco/train2017'], max_drop=1.0)
    (written,) = export(tmp_path / 'imagenet.pth', [name], out=tmp_path / 'out', int8=wanted)
    assert written.lost <= 1.0
    assert written.size <= 4.2e6
