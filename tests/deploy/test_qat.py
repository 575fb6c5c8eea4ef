"""Fine-tuning in eight bits: torch rounds as the files do, learns there, and says what it cost."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from mmengine.config import Config

from falconet.checkpoints.file import describe as content_of
from falconet.checkpoints.file import read_checkpoint, write_checkpoint
from falconet.core.errors import UserError
from falconet.deploy.export import CARD, export
from falconet.deploy.formats import trace
from falconet.deploy.int8.calibration import Int8, choose
from falconet.deploy.int8.onnx_int8 import quantised
from falconet.deploy.int8.qat import RATE, check_augment, fine_tuned, training_config
from falconet.deploy.int8.rounding import WEIGHTS, Rounding, rounded_weight, snap
from falconet.deploy.onnx_format import translated
from falconet.deploy.parity import generated_pictures, relative
from falconet.deploy.program import Program
from falconet.tasks.model import VisionModel

OPTIMISER = {'optimizer': {'type': 'AdamW', 'lr': 0.02, 'weight_decay': 0.01}}


@pytest.fixture
def checkpoint(small_model: Callable[..., VisionModel], folders: Path, tmp_path: Path) -> Path:
    """A classifier of three hues with an untrained head, whose config names data and optimiser."""
    model = small_model('classification')
    loader = {'batch_size': 8, 'num_workers': 0}
    dataset = {'type': 'ImageFolder', 'augment': list(model.preprocess)}
    config = Config(
        {
            'model': model.spec,
            'data_root': str(folders),
            'train_dataloader': {**loader, 'dataset': {**dataset, 'split': 'train'}},
            'val_dataloader': {**loader, 'dataset': {**dataset, 'split': 'test'}},
            'optim_wrapper': OPTIMISER,
        }
    )
    content = {**content_of(model, config), 'state_dict': model.state_dict(), 'metrics': {}}
    write_checkpoint(content, tmp_path / 'best.pth')
    return tmp_path / 'best.pth'


# The grid.


def test_a_weight_has_255_levels_in_each_output_channel() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3) * torch.logspace(-3, 2, 6).view(-1, 1, 1, 1)
    rounded = rounded_weight(weight)
    step = weight.abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1) / WEIGHTS
    levels = rounded / step
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert ((rounded - weight).abs() <= 0.5001 * step).all()


def test_weights_that_were_rounded_stay_and_so_do_scaled_channels() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 6, 3)
    snap(layer)
    weight = layer.weight.detach()
    torch.testing.assert_close(rounded_weight(weight), weight)
    factors = torch.logspace(-2, 2, 6).view(-1, 1, 1, 1)
    torch.testing.assert_close(rounded_weight(weight * factors), weight * factors)


def test_gradients_pass_the_rounding() -> None:
    weight = torch.randn(5, 3, requires_grad=True)
    (rounded_weight(weight) * torch.arange(3.0)).sum().backward()
    torch.testing.assert_close(weight.grad, torch.arange(3.0).expand(5, 3))


@pytest.mark.filterwarnings('ignore')  # of the converters
def test_the_rounded_network_says_what_its_int8_file_says(small_model: Callable[..., VisionModel]) -> None:
    # In a deep one, what is rounded up here and down there by chance is soon as much as all the rounding.
    model = small_model(
        'classification', backbone={'type': 'MobileNetV2', 'width': 0.35, 'taps': ('stage2',)}
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d) and module.groups == 1:
                module.weight[:, 0] *= 8  # coarse steps
    program = Program(model, raw=True)
    pictures = generated_pictures(program.picture or (0, 0), count=6, seed=5)
    batches = [picture[None] for picture in pictures]
    file = quantised(translated(trace(program, about(program), batch=None)), batches)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    (in_file,) = map(np.asarray, session.run(['outputs'], {'pictures': pictures}))
    check_in_openvino(file.SerializeToString(), in_file, pictures)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    with torch.no_grad():
        plain = model(images).numpy()
        rounding = Rounding(model)
        rounding.measure(image[None] for image in images)
        rounded = model(images).numpy()
    assert np.linalg.norm(in_file - rounded) < 0.3 * np.linalg.norm(in_file - plain)
    # The same maps are rounded, and what the last layer says is none of them.
    assert len({*rounding._names.values()}) == sum(
        node.op_type == 'QuantizeLinear' for node in file.graph.node
    )


def check_in_openvino(content: bytes, expected: np.ndarray, pictures: np.ndarray) -> None:
    """Assert that OpenVINO says what ONNX Runtime does where the shape is fixed (open, 2026.4 does not)."""
    core = openvino.Core()
    model = core.read_model(content)
    model.reshape(list(pictures.shape))
    found = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})([pictures])
    assert relative(expected, found['outputs']) < 0.1


def about(program: Program) -> str:
    """Return what of a description the translation reads."""
    shapes = {name: shape for name, (_, shape) in program.shapes('batch').items()}
    given = {'name': 'pictures', 'shape': ['batch', *(program.picture or ()), 3]}
    return json.dumps(
        {'input': given, 'outputs': [{'name': name, 'shape': list(shape)} for name, shape in shapes.items()]}
    )


def test_nothing_is_rounded_before_pictures_were_seen_nor_behind_the_last_layers(
    small_model: Callable[..., VisionModel],
) -> None:
    model = small_model('detection')
    images = torch.from_numpy(generated_pictures((96, 96), count=2, seed=1)).permute(0, 3, 1, 2)
    with torch.no_grad():
        rounding = Rounding(model)
        rounding.measure([images])
        outputs = model(images)['logits']
    assert outputs.unique().numel() > 1000  # not some of 255 levels
    assert max(place for place, _ in rounding._names) < rounding._place  # what joins the predictions is left


# Learning.


def test_a_rounded_network_has_the_gradients_of_the_plain_one(
    small_model: Callable[..., VisionModel],
) -> None:
    backbone = {'type': 'MobileNetV2', 'width': 0.35, 'taps': ('stage2',)}
    model = small_model('classification', backbone=backbone)
    images = torch.from_numpy(generated_pictures((96, 96), count=6, seed=2)).permute(0, 3, 1, 2)
    targets = torch.tensor([0, 1, 2, 0, 1, 2])

    def gradients() -> torch.Tensor:
        model.zero_grad()
        model(images, targets, mode='loss')['loss_class'].backward()
        return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])

    plain = gradients()
    Rounding(model).measure([images])
    rounded = gradients()
    assert len(rounded) == len(plain)
    assert not torch.equal(rounded, plain)
    assert float(torch.cosine_similarity(plain, rounded, dim=0)) > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_the_card_says_what_fine_tuning_gave(checkpoint: Path, tmp_path: Path) -> None:
    wanted = Int8(pictures=12, max_drop=100, epochs=1)
    (written,) = export(checkpoint, ['onnx'], out=tmp_path / 'out', int8=wanted)
    card = (tmp_path / 'out' / CARD).read_text()
    line = next(line for line in card.splitlines() if 'of the rounded network was' in line)
    words = line.split()
    before, after = float(words[words.index('was') + 1]), float(words[words.index('after.') - 1])
    assert ('The best epoch was taken' if after > before else 'the weights stayed') in line
    assert written.scores['top1'] == pytest.approx(after, abs=0.17)  # two pictures of twelve


def test_the_same_seed_gives_the_same_weights_and_they_lie_on_the_grid(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    chosen = choose(Int8(pictures=4), content, source='best.pth', root=None)
    one, two = (
        fine_tuned(checkpoint, content, chosen, epochs=1, root=None, primary='top1') for _ in range(2)
    )
    for (name, each), other in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        assert torch.equal(each, other), name
    weight = one.model.head.fc.weight.detach()  # type: ignore[union-attr]
    torch.testing.assert_close(rounded_weight(weight), weight)


# What can be wrong.


def test_the_recipe_is_the_checkpoints_own(checkpoint: Path) -> None:
    config = training_config(read_checkpoint(checkpoint), checkpoint, epochs=2)
    assert config.optim_wrapper.optimizer.lr == pytest.approx(RATE * OPTIMISER['optimizer']['lr'])
    assert config.train_cfg.max_epochs == 2
    assert config.model.norm_eval


def test_without_a_recipe_there_is_no_fine_tuning(checkpoint: Path) -> None:
    content = copy.deepcopy(read_checkpoint(checkpoint))
    del content['config']['optim_wrapper']
    with pytest.raises(UserError, match=r'its config has no optim_wrapper: leave --qat out'):
        training_config(content, checkpoint, epochs=1)


@pytest.mark.parametrize(
    'entry',
    [{'type': 'TemplateTransform', 'templates': 'x'}, {'type': 'RandomCrop', 'height': '/etc/passwd'}],
)
def test_a_strangers_transforms_are_not_taken(entry: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r'best\.pth'):
        check_augment([entry], source='best.pth')


def test_data_of_other_classes_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / 'data/train/red').rename(tmp_path / 'data/train/rot')
    content = read_checkpoint(checkpoint)
    chosen = choose(
        Int8(pictures=2, inputs=[tmp_path / 'data/train/blue']), content, source='best.pth', root=None
    )
    with pytest.raises(UserError, match=r'whose classes are blue, green, red, but .* rot'):
        fine_tuned(checkpoint, content, chosen, epochs=1, root=None, primary='top1')


def test_less_than_no_epoch_is_refused() -> None:
    with pytest.raises(UserError, match='0 or more'):
        Int8(epochs=-1)
