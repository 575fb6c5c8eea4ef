"""A run: trains, saves, names what is wrong with its data and options, and keeps to its settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falconet import load_model
from falconet.checkpoints.file import read_checkpoint
from falconet.core.errors import UserError
from falconet.engine import loops
from falconet.engine.evaluate import evaluate
from falconet.engine.train import train
from falconet.tasks.build import load_config
from falconet.tasks.model import VisionModel
from falconet.tasks.predictor import Predictor

WriteConfig = Callable[..., Path]


def run(config: Path, work_dir: Path, *options: str, **keywords: Any) -> dict[str, Any]:
    return train(load_config(config, options), work_dir=str(work_dir), **keywords)


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


def test_a_cpu_evaluates_a_few_pictures_at_a_time_to_the_same_scores(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(write_config('train_cfg = dict(max_epochs=1)'), tmp_path / 'run')
    counts: list[int] = []
    answer = Predictor.answer

    def counting(self: Predictor, images: torch.Tensor, *arguments: Any, **keywords: Any) -> list[Any]:
        counts.append(len(images))
        return answer(self, images, *arguments, **keywords)

    monkeypatch.setattr(Predictor, 'answer', counting)
    reports = []
    for pixels, expected in ((16 * 224**2, [4] * 3), (3 * 32**2, [3, 1] * 3), (1, [1] * 12)):
        monkeypatch.setattr(loops, 'PIXELS', pixels)
        reports.append(evaluate(None, checkpoint=str(tmp_path / 'run/last.pth')))
        assert counts == expected
        counts.clear()
    assert reports[0]['images'] == 12
    assert reports[0]['confusion_matrix'] == reports[1]['confusion_matrix'] == reports[2]['confusion_matrix']


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
    assert read_checkpoint(tmp_path / 'run/last.pth')['epoch'] == 3


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
    assert 'square_avg' in read_checkpoint(tmp_path / 'run/last.pth')['training']['optimizer']['state'][0]


def test_parameters_of_equal_settings_share_a_group(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config(
        """
        train_cfg = dict(max_epochs=1)
        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.01),
            paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.5))))
        """
    )
    run(config, tmp_path / 'run')
    groups = read_checkpoint(tmp_path / 'run/last.pth')['training']['optimizer']['param_groups']
    settings = [(group['lr'], group['weight_decay']) for group in groups]
    assert len(settings) == len(set(settings)) == 3  # the backbone's norms, its other parameters, the head


def test_autocast_trains_in_bfloat16_and_keeps_float32_weights(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import falconet.engine.device as device

    monkeypatch.setattr(device, 'has_fast_bf16', lambda _: True)
    # As if the weights were no new ones; see tests/tasks/training/test_precision.py.
    monkeypatch.setattr('falconet.engine.hooks.precision.agreement', lambda *_: 1.0)
    seen = set()
    from falconet.heads import LinearHead

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
    weights = read_checkpoint(tmp_path / 'run/last.pth')['state_dict'].values()
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
