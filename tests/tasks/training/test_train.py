"""A run: trains, saves, resumes to the bit, stops on request, and agrees with itself over processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks import load_model
from tasks.build import load_config
from tasks.checkpoints.file import read_checkpoint
from tasks.errors import UserError
from tasks.model import VisionModel
from tasks.training.evaluate import evaluate
from tasks.training.train import train

WriteConfig = Callable[..., Path]


def run(config: Path, work_dir: Path, *options: str, **keywords: Any) -> dict[str, Any]:
    return train(load_config(config, options), work_dir=str(work_dir), **keywords)


def assert_same_tensors(one: Any, other: Any, where: str = '') -> None:
    """Every tensor and number in two nests is identical to the bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same_tensors(one[key], other[key], f'{where}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same_tensors(left, right, f'{where}[{index}]')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def final_state(work_dir: Path) -> dict[str, Any]:
    """What must not depend on interruptions: weights, optimiser, schedule, EMA, scores."""
    content = read_checkpoint(work_dir / 'last.pth')
    return {key: content[key] for key in ('state_dict', 'training', 'metrics', 'epoch', 'iter')}


EXTRA = """
    ema = dict(decay=0.9)
    early_stopping = dict(patience=50)
    train_cfg = dict(max_epochs=3)
    save_every_iters = 4
    optim_wrapper = dict(
        optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.01),
        accumulative_counts=2, clip_grad=dict(max_norm=5.0),
        paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.5))))
    param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, end=1 / 3),
        dict(type='CosineAnnealingLR', begin=1 / 3)]
    train_dataloader['batch_augment'] = [dict(type='MixUp', alpha=0.2)]
"""


def test_a_run_learns_and_leaves_a_checkpoint_that_needs_no_config(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(
        """
        train_cfg = dict(max_epochs=30, val_interval=10)
        param_scheduler = [dict(type='CosineAnnealingLR', T_max=30, end=30)]
        optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01))
        model['backbone']['norm_momentum'] = 0.3  # so few steps leave the default's statistics behind
        train_dataloader['batch_size'] = 12
        """
    )
    report = run(config, tmp_path / 'run')
    assert report['images'] == 12
    written = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert written['top1'] == report['top1']
    assert (tmp_path / 'run/confusion_matrix.png').stat().st_size > 1000
    assert 'loss' in (tmp_path / 'run/train.log').read_text()
    best = read_checkpoint(tmp_path / 'run/best.pth')
    assert best['metrics']['top1'] >= 0.8
    assert 'training' not in best

    config.unlink()  # the checkpoint alone must do
    again = evaluate(None, checkpoint=str(tmp_path / 'run/best.pth'))
    assert again['top1'] == best['metrics']['top1']
    model = load_model(tmp_path / 'run/best.pth')
    assert model.classes == ('blue', 'green', 'red')
    results = model.predict(str(tmp_path / 'data/test'))
    right = [Path(each.path).parent.name == each.class_name for each in results]
    assert np.mean(right) == best['metrics']['top1']


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EMA, accumulation, warm-up, mixup, early stopping; stopped everywhere, resumed with workers."""
    config = write_config(EXTRA)
    run(config, tmp_path / 'whole')
    expected = final_state(tmp_path / 'whole')
    assert expected['iter'] == 18

    from tasks.training.loops import TrainLoop

    class Killed(BaseException):
        pass

    original = TrainLoop.run_iter
    budget = {'iterations': 0}

    def run_iter(self: TrainLoop, idx: int, data_batch: Any) -> None:
        if budget['iterations'] == 0:
            raise Killed
        budget['iterations'] -= 1
        original(self, idx, data_batch)

    monkeypatch.setattr(TrainLoop, 'run_iter', run_iter)
    rng = random.Random(0)
    for attempt in range(20):
        budget['iterations'] = rng.randint(4, 7)
        try:
            workers = 2 * (attempt % 2)
            run(config, tmp_path / 'parts', f'train_dataloader.num_workers={workers}', resume=True)
            break
        except Killed:
            torch.manual_seed(attempt)  # whatever state a new process starts from
    assert attempt >= 2
    actual = final_state(tmp_path / 'parts')
    assert_same_tensors(actual, expected)


def test_two_runs_are_identical_and_another_seed_is_not(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    states = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        run(config, tmp_path / name, f'seed={seed}')
        states.append(final_state(tmp_path / name)['state_dict'])
    assert_same_tensors(states[0], states[1])
    assert not torch.equal(states[0]['head.fc.weight'], states[2]['head.fc.weight'])


def start(config: Path, work_dir: Path, root: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(root / 'tools/train.py'), str(config), '--work-dir', str(work_dir)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


SLOWLY = """
    save_every_iters = 1
    train_cfg = dict(max_epochs=40)
    val_dataloader['dataset']['augment'] = [dict(type='ResizeCenterCrop', resize=32, crop=32)]
    param_scheduler = []  # it is compared with shorter runs
"""


def test_a_run_killed_at_any_moment_leaves_a_whole_checkpoint(
    write_config: WriteConfig, tmp_path: Path, root: Path
) -> None:
    """SIGKILL while last.pth is written after every iteration: what is there always opens and resumes."""
    config, last = write_config(SLOWLY, workers=1), tmp_path / 'run/last.pth'
    process = start(config, last.parent, root)
    wait_for(last.exists, process)
    time.sleep(random.Random(0).random())
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    reached = read_checkpoint(last)['training']['iter']
    assert 0 < reached < 240
    # Its weights are those of a run that was never touched.
    epochs = -(-reached // 6)
    run(config, tmp_path / 'whole', 'save_every_iters=0', f'train_cfg.max_epochs={epochs}')
    run(config, last.parent, 'save_every_iters=0', f'train_cfg.max_epochs={epochs}', resume=True)
    assert_same_tensors(final_state(last.parent)['state_dict'], final_state(tmp_path / 'whole')['state_dict'])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_says_how_to_go_on(
    write_config: WriteConfig, tmp_path: Path, root: Path, number: signal.Signals
) -> None:
    config, log = write_config(SLOWLY.replace('save_every_iters = 1', '')), tmp_path / 'run/train.log'
    process = start(config, log.parent, root)
    wait_for(lambda: log.exists() and 'Epoch(val)' in log.read_text(), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert 'Continue with the same command and --resume' in output
    assert 'Traceback' not in output
    assert read_checkpoint(log.parent / 'last.pth')['training']['iter'] > 0


def test_a_stop_during_validation_validates_first_after_resuming(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.errors import Interrupted
    from tasks.training.loops import EvalLoop

    config = write_config(EXTRA.replace('accumulative_counts=2', 'accumulative_counts=1'))
    run(config, tmp_path / 'whole')
    original, calls = EvalLoop.run_iter, []

    def interrupting(self: EvalLoop, idx: int, data_batch: Any) -> None:
        calls.append(idx)
        if len(calls) == 5:  # in the middle of the second validation
            os.kill(os.getpid(), signal.SIGINT)
        original(self, idx, data_batch)

    monkeypatch.setattr(EvalLoop, 'run_iter', interrupting)
    with pytest.raises(Interrupted):
        run(config, tmp_path / 'parts')
    state = read_checkpoint(tmp_path / 'parts/last.pth')['training']
    assert (state['iter'], state['validated_iter']) == (12, 6)
    run(config, tmp_path / 'parts', resume=True)
    assert_same_tensors(final_state(tmp_path / 'parts'), final_state(tmp_path / 'whole'))


DISTRIBUTED = """
    train_cfg = dict(max_epochs=2)
    model['norm_eval'] = True
    model['head'] = dict(type='LinearHead', dropout=0.0)
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05))
"""


def test_two_processes_train_like_one_with_twice_the_batch(
    write_config: WriteConfig, tmp_path: Path, root: Path
) -> None:
    """Norm statistics fixed, no dropout; an odd number of test images, each counted once."""
    (tmp_path / 'data/test/red/3.png').unlink()
    config = write_config(DISTRIBUTED)
    report = run(config, tmp_path / 'one', 'train_dataloader.batch_size=8')
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(root / 'tools/train.py'), str(config), '--launcher', 'pytorch']
    done = subprocess.run(
        [sys.executable, *command, '--work-dir', str(tmp_path / 'two')],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('best top1 so far') >= 1
    assert done.stdout.count('work dir') == 1  # one process speaks

    one, two = final_state(tmp_path / 'one'), final_state(tmp_path / 'two')
    assert one['iter'] == two['iter'] == 6
    for key, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][key], value, atol=1e-4, rtol=1e-4, msg=key)
    both = json.loads((tmp_path / 'two/metrics.json').read_text())
    assert both['images'] == report['images'] == 11
    assert both['confusion_matrix'] == report['confusion_matrix']


def test_unreadable_files_are_named_counted_and_left_out(
    write_config: WriteConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in ('train/red/0.png', 'test/blue/1.png'):
        (tmp_path / 'data' / path).write_text('no picture')
    report = run(write_config(), tmp_path / 'run')
    assert report['images'] == 11
    assert list(report['skipped']) == [str(tmp_path / 'data/test/blue/1.png')]
    log = (tmp_path / 'run/train.log').read_text()
    for path in ('train/red/0.png', 'test/blue/1.png'):
        assert log.count(f'skipped {tmp_path}/data/{path}: not a picture') == 1
    assert 'evaluation: 1 files could not be read' in log
    assert 'skipped' in capsys.readouterr().out


def test_a_batch_of_unreadable_files_does_not_stop_an_evaluation(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    for path in (tmp_path / 'data/test/blue').iterdir():
        path.write_text('no picture')  # four files: one whole batch
    assert run(write_config(), tmp_path / 'run')['images'] == 8


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_samples(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config("optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e30))")
    with pytest.raises(UserError, match=r'no longer finite \(loss (nan|inf).*iteration \d') as caught:
        run(config, tmp_path / 'run')
    assert str(caught.value).count('.png') == 4


def test_early_stopping_watches_the_tasks_own_score(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(
        'early_stopping = dict(patience=2)\ntrain_cfg = dict(max_epochs=30)\n'
        "optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.0))"
    )
    run(config, tmp_path / 'run')
    assert final_state(tmp_path / 'run')['epoch'] == 3


def test_a_work_dir_that_holds_a_run_is_not_overwritten(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'run')
    before = (tmp_path / 'run/last.pth').read_bytes()
    with pytest.raises(UserError, match=r'already holds a run\. Go on with --resume'):
        run(config, tmp_path / 'run')
    assert (tmp_path / 'run/last.pth').read_bytes() == before


def test_young_norm_statistics_are_warned_of(write_config: WriteConfig, tmp_path: Path) -> None:
    run(write_config('train_cfg = dict(max_epochs=6)'), tmp_path / 'run')
    warned = [
        line
        for line in (tmp_path / 'run/train.log').read_text().splitlines()
        if 'norm statistics are still' in line
    ]
    assert len(warned) == 4  # after 6, 12, 18 and 24 iterations: 0.9 ** 30 is below 5 %
    assert 'after 6 iterations' in warned[0]
    assert '53%' in warned[0]


def test_a_finished_run_is_left_as_it_is(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'run')
    before = (tmp_path / 'run/metrics.json').read_bytes()
    run(config, tmp_path / 'run', resume=True)
    assert (tmp_path / 'run/metrics.json').read_bytes() == before


def test_a_run_resumed_elsewhere_does_not_overwrite_another(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'one')
    run(config, tmp_path / 'two')
    with pytest.raises(UserError, match='already holds another run'):
        run(config, tmp_path / 'two', resume=str(tmp_path / 'one/last.pth'))


def test_a_changed_schedule_is_warned_of_when_resuming(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'run')
    run(config, tmp_path / 'run', 'optim_wrapper.optimizer.lr=0.5', resume=True)
    assert (
        'optim_wrapper.optimizer.lr was 0.02 and goes on as it was, 0.5 is not used'
        in (tmp_path / 'run/train.log').read_text()
    )


@pytest.mark.parametrize(
    ('options', 'source', 'message'),
    [
        (['train_dataloader.batch_size=3'], 'last.pth', r'6 iterations per epoch, this one has 8'),
        (['seed=4'], 'last.pth', r'--seed 0, not 4'),
        (['ema.decay=0.9'], 'last.pth', 'without ema'),
        ([], 'best.pth', r'no training state \(best\.pth never does\)'),
    ],
)
def test_a_resume_that_could_not_be_exact_is_refused(
    write_config: WriteConfig, tmp_path: Path, options: list[str], source: str, message: str
) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'run')
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / 'other', *options, resume=str(tmp_path / 'run' / source))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.backbone.type=MobileNetV3', 'Did you mean MobileNetV2'),
        ('model.head.type=LinearHed', 'Did you mean LinearHead'),
        ('model.backbone.widht=0.5', 'unknown option widht. Did you mean width'),
        ('model.normalise=imgnet', "'imgnet' is none of"),
        ('modle.backbone.width=1', "unknown key 'modle'. Did you mean model"),
        ('optim_wrapper.optimizer.type=Adamm', 'Did you mean Adam'),
        ('optim_wrapper.optimizer.learning_rate=1', 'unknown option learning_rate'),
        ('train_dataloader.dataset.type=ImageFolders', 'Did you mean ImageFolder'),
        ('train_dataloader.batchsize=4', 'Did you mean batch_size'),
        ('train_dataloader.dataset.split=trian', r"trian does not exist\. .* holds \['test', 'train'\]"),
        ('nonsense', 'takes key=value'),
        ('model.backbone.pretrained=no.pth', 'neither a file nor a known name'),
        ('amp=yes', "amp must be 'auto' or 'off'"),
        ('train_cfg.max_epoch=3', 'Did you mean max_epochs'),
        ('train_dataloader.batch_size=0', 'batch_size must be a whole number of at least 1, got 0'),
        ('train_dataloader.num_workers=two', "at least 0 and at most 128, got 'two'"),
        ('seed=-1', 'seed must be a whole number of at least 0 and at most 4294967295, got -1'),
        ('log_interval=0', 'log_interval must be'),
        ('optim_wrapper.optimizer.lr=fast', "lr must be a number, got 'fast'"),
        ('param_scheduler.0.T_maxx=2', 'unknown option T_maxx. Did you mean T_max'),
        ('param_scheduler.0.begin=5', 'begins at 5 epochs and ends at'),
        ('optim_wrapper.optimizer.lr=-1', 'optim_wrapper: Invalid learning rate'),
        ('ema=True', 'ema must be dict'),
        ('ema.decya=0.9', 'Did you mean decay'),
        ('model.normalise.mean=0', 'missing option std'),
        ('evaluator.type=DumpResults', 'no metric of classification'),
        ('sync_bn=True', None),  # without several processes it means nothing, and hurts nothing
    ],
)
def test_a_wrong_option_is_explained(
    write_config: WriteConfig, tmp_path: Path, option: str, message: str | None
) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    if message is None:
        run(config, tmp_path / 'run', option)
        return
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / 'run', option)


def test_an_unreadable_config_is_named(tmp_path: Path) -> None:
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(')
    with pytest.raises(UserError, match=r'cannot read .*broken\.py: SyntaxError'):
        load_config(broken)
    with pytest.raises(UserError, match='there is no config'):
        load_config(tmp_path / 'missing.py')


def test_timms_optimisers_are_known_by_name(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config('train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'run', 'optim_wrapper.optimizer.type=RMSpropTF')
    assert 'square_avg' in final_state(tmp_path / 'run')['training']['optimizer']['state'][0]


def test_parameters_of_equal_settings_share_a_group(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(EXTRA + '\n    train_cfg = dict(max_epochs=1)')
    run(config, tmp_path / 'run')
    groups = final_state(tmp_path / 'run')['training']['optimizer']['param_groups']
    settings = [(group['lr'], group['weight_decay']) for group in groups]
    assert len(settings) == len(set(settings)) == 3  # the backbone's norms, its other parameters, the head


def test_autocast_trains_in_bfloat16_and_keeps_float32_weights(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.training.device as device

    monkeypatch.setattr(device, 'has_fast_bf16', lambda _: True)
    # As if the weights were no new ones; see tests/tasks/training/test_precision.py.
    monkeypatch.setattr('tasks.training.hooks.precision.agreement', lambda *_: 1.0)
    seen = set()
    from heads import LinearHead

    original = LinearHead.loss

    def loss(self: LinearHead, outputs: torch.Tensor, targets: torch.Tensor) -> dict:
        seen.add((outputs.dtype, torch.is_autocast_enabled('cpu')))
        return original(self, outputs, targets)

    dtypes = set()
    forward = LinearHead.forward

    def spying(self: LinearHead, features: Any) -> torch.Tensor:
        dtypes.add((self.training, features[0].dtype))
        return forward(self, features)

    monkeypatch.setattr(LinearHead, 'loss', loss)
    monkeypatch.setattr(LinearHead, 'forward', spying)
    run(write_config('train_cfg = dict(max_epochs=1)'), tmp_path / 'run')
    assert dtypes == {(True, torch.bfloat16), (False, torch.float32)}  # scores are always in float32
    assert seen == {(torch.float32, False)}
    weights = final_state(tmp_path / 'run')['state_dict'].values()
    assert {each.dtype for each in weights if each.is_floating_point()} == {torch.float32}


def test_the_model_stays_channels_last(write_config: WriteConfig, tmp_path: Path) -> None:
    run(write_config('train_cfg = dict(max_epochs=1)'), tmp_path / 'run')
    model: VisionModel = load_model(tmp_path / 'run/best.pth')
    maps = model.backbone(model.normalise(torch.zeros(2, 3, 64, 64).to(memory_format=torch.channels_last)))
    assert maps[0].is_contiguous(memory_format=torch.channels_last)


def test_real_weights_score_on_real_photographs(real_data: Path, root: Path) -> None:
    """torchvision's layout through the ImageNet config: at least 0.80 of 100 photographs."""
    config = load_config(
        root / 'configs/linear_imagenet.py', ['val_dataloader.num_workers=0', 'val_dataloader.batch_size=25']
    )
    weights = real_data / 'weights/mobilenetv2_100_imagenet_torchvision.pth'
    report = evaluate(config, checkpoint=str(weights), root=str(real_data / 'imagenet'))
    assert report['images'] == 100
    assert report['top1'] >= 0.80


def test_a_task_scored_at_one_scale_says_so(write_config: WriteConfig, tmp_path: Path) -> None:
    run(write_config('train_cfg = dict(max_epochs=1)'), tmp_path / 'run')
    with pytest.raises(UserError, match='--multi-scale: classification is scored at one scale only'):
        evaluate(None, checkpoint=str(tmp_path / 'run/best.pth'), multi_scale=True)
