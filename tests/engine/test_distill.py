"""A teacher adds to the losses and to nothing else; what it says is a reference's KL divergence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import Interrupted, UserError
from falconet.engine.distill import Teacher, build_teacher
from falconet.engine.distill_losses import COMPARISONS, binary_divergence, of_boxes, of_images, of_pixels
from falconet.engine.loops import TrainLoop
from falconet.engine.train import train
from falconet.heads import LinearHead
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel

WriteConfig = Callable[..., Path]
CLASSES = ('blue', 'green', 'red')
BACKBONE = {'type': 'MobileNetV2', 'width': 0.35}
MODELS = {
    'classification': (BACKBONE, {'type': 'LinearHead'}),
    'detection': ({**BACKBONE, 'taps': ('stage6_expand', 'last')}, {'type': 'SSDLiteHead'}),
    'segmentation': ({**BACKBONE, 'taps': ('stage7',)}, {'type': 'DeepLabV3Head', 'hidden_channels': 16}),
}
BOXES = [{'boxes_unit': torch.tensor([[0.1, 0.1, 0.6, 0.7]]), 'labels': torch.tensor([1])}] * 2
TARGETS: dict[str, Any] = {
    'classification': torch.tensor([0, 2]),
    'detection': BOXES,
    'segmentation': torch.ones(2, 64, 64, dtype=torch.uint8),
}


def network(task: str, seed: int = 0) -> VisionModel:
    torch.manual_seed(seed)
    backbone, head = MODELS[task]
    return VisionModel(backbone, head, classes=CLASSES)


def teacher_of(model: VisionModel, **options: Any) -> Teacher:
    compare: Any = COMPARISONS[model.task.name]
    if model.task.name == 'detection':
        return Teacher(model, lambda *each: compare(*each, scores='sigmoid'), **options)
    return Teacher(model, compare, **options)


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_the_loss_is_the_kl_divergence_of_torch(temperature: float) -> None:
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    expected = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction='batchmean'
    )
    found = of_images(student, teacher, None, temperature)['loss_distill']
    torch.testing.assert_close(found, expected)


def test_classes_of_their_own_are_compared_as_bernoulli_distributions() -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 6)
    distribution = torch.distributions.Bernoulli
    expected = torch.distributions.kl_divergence(
        distribution(logits=teacher / 2), distribution(logits=student / 2)
    )
    torch.testing.assert_close(binary_divergence(student, teacher, 2.0), 4 * expected.sum(1))


def test_pixels_without_a_label_and_the_teachers_stride_do_not_matter() -> None:
    logits, targets = torch.randn(1, 3, 4, 4), torch.ones(1, 32, 32, dtype=torch.uint8)
    fine = F.interpolate(logits, (7, 7), mode='bilinear', align_corners=True)
    assert of_pixels(logits, fine, targets, 1.0)['loss_distill'] < 1e-6  # corners on corners: the same map
    targets[:, :, 16:] = 255
    other = logits.clone()
    other[..., 2:] += torch.randn(1, 3, 4, 2)
    assert of_pixels(other, logits, targets, 1.0)['loss_distill'] < 1e-6
    assert of_pixels(other, logits, torch.ones_like(targets), 1.0)['loss_distill'] > 1e-3


@pytest.mark.parametrize('task', list(MODELS))
def test_the_gradient_goes_to_the_student_only_and_the_teacher_stays_as_it_is(task: str) -> None:
    student, model = network(task), network(task, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    teacher = teacher_of(model, weight=0.7, temperature=2.0)
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    state = torch.get_rng_state()
    student.train()
    alone = student(images, TARGETS[task], mode='loss')
    random_after = torch.get_rng_state()
    torch.set_rng_state(state)
    losses = student(images, TARGETS[task], teacher=teacher, mode='loss')
    assert torch.equal(torch.get_rng_state(), random_after)  # it draws no random numbers
    for key, value in alone.items():
        share = 0.3 if key.startswith('loss_') else 1.0
        torch.testing.assert_close(losses[key], share * value)
    sum(value for key, value in losses.items() if key.startswith('loss_distill')).backward()  # type: ignore[union-attr]
    assert all(each.grad is not None and each.grad.isfinite().all() for each in student.head.parameters())
    assert all(each.grad is None for each in model.parameters())
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('task', list(MODELS))
def test_a_student_that_says_what_its_teacher_says_has_no_loss(task: str) -> None:
    model = network(task).eval()
    with torch.no_grad():
        outputs = model(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8))
    said = teacher_of(model).compare(outputs, outputs, TARGETS[task], 2.0)
    assert all(abs(float(value)) < 1e-4 for value in said.values()), said


def test_the_teacher_sees_the_same_mixed_pictures_in_its_own_normalisation_and_size() -> None:
    seen: list[Tensor] = []

    class Watching(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.new_zeros(len(images), 3)

    images = torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8)
    student = network('classification')
    half = images.float().mean(0, keepdim=True).expand(2, -1, -1, -1)

    def mix(batch: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return batch.mean(0, keepdim=True).expand(2, -1, -1, -1), targets

    teacher = Teacher(Watching(), of_images)
    student(images, TARGETS['classification'], batch_augment=mix, teacher=teacher, mode='loss')
    torch.testing.assert_close(seen[0], half, atol=1e-3, rtol=0)
    larger = Teacher(Watching(), of_images, size=80)
    student(images, TARGETS['classification'], teacher=larger, mode='loss')
    assert seen[1].shape == (2, 3, 80, 80)


def test_other_default_boxes_are_refused() -> None:
    small, large = (
        network('detection').eval()(torch.zeros(1, 3, side, side, dtype=torch.uint8)) for side in (64, 96)
    )
    with pytest.raises(UserError, match='default boxes'):
        of_boxes(small, large, None, 1.0, scores='sigmoid')


EXTRA = """
    ema = dict(decay=0.9)
    train_cfg = dict(max_epochs=2, val_begin=2)
    log_interval = 100
    optim_wrapper['accumulative_counts'] = 2
    train_dataloader['batch_augment'] = [dict(type='MixUp', alpha=0.2)]
    distill = dict(teacher={teacher!r}, weight=0.9, temperature=2.0)
"""


@pytest.fixture
def taught(write_config: WriteConfig, tmp_path: Path) -> Path:
    """A config with a teacher, which has been trained for an epoch."""
    config = load_config(write_config('train_cfg = dict(max_epochs=1)'))
    train(config, work_dir=str(tmp_path / 'teacher'))
    return write_config(EXTRA.format(teacher=str(tmp_path / 'teacher/best.pth')))


def test_a_taught_run_resumes_to_the_bit_and_its_checkpoint_holds_no_teacher(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(load_config(taught), work_dir=str(tmp_path / 'whole'))
    original = TrainLoop.stop_if_asked

    def stop(loop: TrainLoop) -> None:
        if loop.iter == 4:
            loop.runner.saver.write(loop.runner, 'last.pth')
            raise Interrupted('enough', signal_number=15)
        original(loop)

    monkeypatch.setattr(TrainLoop, 'stop_if_asked', stop)
    with pytest.raises(Interrupted):
        train(load_config(taught), work_dir=str(tmp_path / 'parts'))
    monkeypatch.undo()
    train(load_config(taught), work_dir=str(tmp_path / 'parts'), resume=True)
    whole, parts = (read_checkpoint(tmp_path / name / 'last.pth') for name in ('whole', 'parts'))
    plain = read_checkpoint(tmp_path / 'teacher/last.pth')
    assert list(whole['state_dict']) == list(plain['state_dict'])
    for part in ('state_dict', 'weights'):
        one, other = ((each if part == 'state_dict' else each['training'])[part] for each in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one)

    other = tmp_path / 'another.pth'
    content = read_checkpoint(tmp_path / 'teacher/best.pth')
    content['state_dict']['head.fc.bias'] += 1
    torch.save(content, other)
    (tmp_path / 'teacher/best.pth').write_bytes(other.read_bytes())
    with pytest.raises(UserError, match='taught by other weights'):
        train(load_config(taught, ['train_cfg.max_epochs=3']), work_dir=str(tmp_path / 'parts'), resume=True)


PARTED = """
    amp = 'off'
    model['norm_eval'] = True
    model['head'] = dict(type='LinearHead', dropout=0.0)
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05))
    param_scheduler = []
    distill = dict(teacher={teacher!r}, weight=0.9, temperature=2.0)
"""


@pytest.mark.slow
def test_two_processes_that_stop_and_resume_are_taught_like_one_with_twice_the_batch(
    write_config: WriteConfig, tmp_path: Path, root: Path
) -> None:
    config = load_config(write_config('train_cfg = dict(max_epochs=1)'))
    train(config, work_dir=str(tmp_path / 'teacher'))
    file = write_config(PARTED.format(teacher=str(tmp_path / 'teacher/best.pth')))
    options = ['train_dataloader.batch_size=8', 'train_cfg.max_epochs=2']
    train(load_config(file, options), work_dir=str(tmp_path / 'one'))
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(root / 'tools/train.py'), str(file), '--launcher', 'pytorch', '--resume']
    for epochs in ('1', '2'):
        done = subprocess.run(
            [sys.executable, *command, '--work-dir', str(tmp_path / 'two'), '--epochs', epochs],
            capture_output=True,
            text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count('teacher/best.pth') >= 1
    one, two = (read_checkpoint(tmp_path / name / 'last.pth') for name in ('one', 'two'))
    assert one['iter'] == two['iter'] == 6
    for key, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][key], value, atol=1e-4, rtol=1e-4, msg=key)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'teacher': 'missing.pth'}, 'missing.pth is no file of a trained model'),
        ({'teacher': {'model': 'resnet10t'}}, 'would be untrained'),
        ({'teacher': {'model': 'resnet10t', 'checkpoint': 'missing.pth'}}, 'there is no file missing.pth'),
        ({'teacher': {'model': 'resnet10t', 'weights': 'x'}}, 'unknown option weights'),
        ({'teacher': {'model': 'resnet10t', 'num_classes': 5}}, 'unknown option num_classes'),
        ({'teacher': {'model': 'resnet10t', 'checkpoint': 5}}, r'distill.teacher.checkpoint .*, got 5'),
        ({'teacher': {'model': 'resnet10t', 'pretrained': 5}}, 'pretrained must be True or False, got 5'),
        ({'teacher': 'missing.pth', 'temperatur': 2.0}, "unknown key 'distill.temperatur'"),
        ({'teacher': 'missing.pth', 'weight': 1.5}, 'distill.weight must be'),
        ({'weight': 0.5}, 'distill.teacher is missing'),
    ],
)
def test_a_wrong_entry_is_explained(write_config: WriteConfig, entry: dict[str, Any], message: str) -> None:
    def build() -> None:
        config = load_config(write_config(f'distill = {entry!r}'))
        build_teacher(config, network('classification'), autocast=False)

    with pytest.raises(UserError, match=message):
        build()


def test_a_teacher_of_other_classes_or_another_task_is_refused(taught: Path, tmp_path: Path) -> None:
    config = load_config(taught)
    torch.manual_seed(0)
    backbone, head = MODELS['classification']
    with pytest.raises(UserError, match='3 classes, the data 2'):
        build_teacher(config, VisionModel(backbone, head, classes=('cat', 'dog')), autocast=False)
    with pytest.raises(UserError, match='is for classification, what is trained for detection'):
        build_teacher(config, network('detection'), autocast=False)


def test_a_classifier_of_timm_teaches_in_its_own_normalisation(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    import timm

    model = timm.create_model('test_vit', num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / 'vit.pth')
    entry = {'teacher': {'model': 'test_vit', 'checkpoint': str(tmp_path / 'vit.pth')}}
    config = load_config(write_config(f'distill = {entry!r}'))
    teacher = build_teacher(config, network('classification'), autocast=False)
    assert teacher is not None
    images = torch.rand(2, 3, 160, 160) * 255
    mean, std = (
        torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1)  # type: ignore[index]
        for key in ('mean', 'std')
    )
    with torch.no_grad():
        torch.testing.assert_close(teacher.network(images), model((images / 255 - mean) / std))


def test_a_teacher_that_cannot_see_pictures_of_this_size_says_which_option_helps(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    import timm

    torch.save(timm.create_model('test_vit', num_classes=3).state_dict(), tmp_path / 'vit.pth')
    entry = {'teacher': {'model': 'test_vit', 'checkpoint': str(tmp_path / 'vit.pth')}}
    config = load_config(write_config(f'distill = {entry!r}'))
    student = network('classification')
    teacher = build_teacher(config, student, autocast=False)
    images = torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8)
    with pytest.raises(UserError, match=r'cannot see pictures of 40 x 40 px .*distill\.size'):
        student(images, TARGETS['classification'], teacher=teacher, mode='loss')


class Pairs(LinearHead):
    """A user's own, whose outputs are no tensor."""

    def forward(self, features: Any) -> Any:
        return {'scores': super().forward(features)}

    def loss(self, outputs: Any, targets: Any) -> Any:
        return super().loss(outputs['scores'], targets)


def test_a_head_of_a_users_own_without_what_is_compared_is_told_so(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, images = network('classification'), torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    student.head.__class__ = Pairs
    teacher = teacher_of(network('classification', seed=1))
    with pytest.raises(UserError, match=r"\(B, classes\); the student's head returns dict. Train it without"):
        student(images, TARGETS['classification'], teacher=teacher, mode='loss')
    with pytest.raises(UserError, match="the teacher's head returns dict"):
        network('classification')(images, TARGETS['classification'], teacher=teacher_of(student), mode='loss')
    detector = network('detection')
    file = tmp_path / 'detector.pth'
    monkeypatch.setattr('falconet.engine.distill.load_model', lambda source: network('detection'))
    file.touch()
    detector.head.scores = None
    config = load_config(write_config(f'distill = dict(teacher={str(file)!r})'))
    with pytest.raises(UserError, match='for which both need an SSDLiteHead'):
        build_teacher(config, detector, autocast=False)


def test_a_run_is_not_taught_by_what_it_writes(taught: Path, tmp_path: Path) -> None:
    work_dir = str(tmp_path / 'teacher')
    options = ['train_cfg.max_epochs=2', 'train_cfg.val_begin=1', 'ema=None']
    options += ['optim_wrapper.accumulative_counts=1']
    with pytest.raises(UserError, match='is what this run writes'):
        train(load_config(taught, options), work_dir=work_dir, resume=True)
