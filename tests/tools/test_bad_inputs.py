"""Options, resumed runs and checkpoints of every bad kind through the real command lines.

`test_bad_configs.py` goes through every key of configs and checkpoints; pictures, annotations and names have
files of their own beside it.
"""

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Command = Callable[..., Any]
OPTIONS = {
    'early_stopping.patience=abc': "early_stopping.patience must be a whole number of at least 1, got 'abc'",
    'ema.decay=abc': 'ema.decay must be a number above 0 and below 1',
    'optim_wrapper.clip_grad.max_norm=abc': 'max_norm must be a number above 0',
    'param_scheduler=5': 'param_scheduler must be',
    'load_from=5': 'load_from must be a text, got 5',
    'load_from=nowhere.pth': 'nowhere.pth',
    'model.backbone.width=abc': 'width must be a number above 0 and at most 8',
    'model.backbone.width=nan': 'width must be a number above 0 and at most 8',
    'model.backbone.pretrained=nowhere.pth': 'nowhere.pth',
    'model.head.label_smoothing=-2': 'label_smoothing must be a number of at least 0 and at most 1',
    'model.head.class_weights=[1,-1,1]': 'class_weights must be a list of numbers of at least 0',
    'model.hed=1': 'Did you mean head',
    'ema=dict(decay=0.9)': 'one by one, ema.name=value',
    'nothing': "--cfg-options takes key=value, got 'nothing'",
    'model.backbone=_delete_': 'model.backbone is missing',
    'train_cfg.nothing=_delete_': 'the config has no train_cfg.nothing',
    'train_dataloader.batch_size=0': 'batch_size must be a whole number of at least 1, got 0',
    'val_dataloader.batch_size=-1': 'batch_size must be a whole number of at least 1, got -1',
    'train_dataloader.num_workers=300': 'num_workers must be a whole number of at least 0 and at most 128',
    'train_dataloader.dataset.type=os.system': "no dataset is called 'os.system'",
    'train_dataloader.dataset.split=trian': 'trian does not exist',
    'custom_hooks=5': 'custom_hooks must be a list of dict',
    'sync_bn=5': 'sync_bn must be True or False, got 5',
}
ARGUMENTS: list[tuple[list[object], str]] = [
    (['--seed', 2**32], 'seed must be a whole number of at least 0 and at most 4294967295'),
    (['--seed', -1], 'seed must be a whole number of at least 0'),
    (['--seed', 'abc'], 'invalid int value'),
    (['--threads', '0'], '--threads takes a whole number from 1 to 1024'),
    (['--threads', 'many'], '--threads takes a whole number from 1 to 1024'),
    (['--launcher', 'pytorch'], 'torchrun --nproc_per_node'),
    (['--amp', 'sometimes'], 'invalid choice'),
    (['--data-root', 'nowhere'], 'data root nowhere does not exist'),
    (['--data-root', ''], '--data-root is empty'),
    (['--work-dir', ''], '--work-dir is empty'),
    (['--init='], '--init is empty'),
    (['--resume', 'nowhere.pth'], 'nowhere.pth'),
]


@pytest.mark.parametrize('option', OPTIONS)
def test_an_option_that_makes_no_sense_ends_before_the_training_begins(
    command: Command, write_config: Callable, option: str
) -> None:
    done = command('train', write_config(), '--work-dir', 'run', '--cfg-options', option)
    assert done.code == 2, done.output
    assert OPTIONS[option] in done.output
    assert not Path('run').exists()


@pytest.mark.parametrize(('arguments', 'message'), ARGUMENTS)
def test_an_argument_that_makes_no_sense_ends_before_the_training_begins(
    command: Command, write_config: Callable, arguments: list[object], message: str
) -> None:
    done = command('train', write_config(), '--work-dir', 'run', *arguments)
    assert done.code == 2, done.output
    assert message in done.output
    assert not Path('run').exists()


REFUSED_TO_RESUME = {
    'model.backbone.shortcut=none': "model.backbone.shortcut='bottleneck', this one has 'none'",
    'model.backbone.linear_bottleneck=False': 'model.backbone.linear_bottleneck=True, this one has False',
    'model.backbone.norm_eps=0.001': 'model.backbone.norm_eps=1e-05, this one has 0.001',
    'model.backbone.padding=same': "model.backbone.padding='symmetric', this one has 'same'",
    'model.backbone.width=0.5': 'model.backbone.width=0.35, this one has 0.5',
    'model.normalise=tensorflow': 'model.normalise.mean=',
    'param_scheduler=[]': 'types of param_scheduler',
}


def test_a_run_does_not_go_on_as_another(command: Command, write_config: Callable, folders: Path) -> None:
    arguments = [write_config('train_cfg = dict(max_epochs=1)'), '--work-dir', 'run']
    assert command('train', *arguments).code == 0

    def logs() -> list[Path]:
        return [path for path in Path('run').absolute().rglob('*') if path.suffix != '.pth']

    done = command('train', *arguments)
    assert done.code == 2
    assert 'run already holds a run. Go on with --resume' in done.output
    for option, message in REFUSED_TO_RESUME.items():
        done = command('train', *arguments, '--resume', '--cfg-options', option, but=logs())
        assert done.code == 2, option
        assert message in done.output, option
    last = Path('run/last.pth').read_bytes()
    for content, message in ((last[:2000], 'last.pth'), (b'', 'last.pth')):
        Path('run/last.pth').write_bytes(content)
        done = command('train', *arguments, '--resume', but=logs())
        assert done.code == 2
        assert message in done.output


STRANGERS = [
    ('model/backbone/pretrained', 'torchvision', "pretrained='torchvision' is not taken from a checkpoint"),
    ('model/backbone/pretrained', '/etc/passwd', "pretrained='/etc/passwd' is not taken from a checkpoint"),
    ('model/backbone/width', 400, 'width must be a number above 0 and at most 8, got 400'),
    ('model/head/checkpoint_path', '/etc/passwd', 'is not taken from a checkpoint'),
    ('model/head/type', 'os.system', "no head is called 'os.system'"),
    ('preprocess/transforms/0/type', 'TextImage', "'TextImage' is not taken from a checkpoint"),
    ('config/val_dataloader/num_workers', 300, 'num_workers must be a whole number of at least 0'),
    ('config/val_dataloader/batch_size', 10**6, 'batch_size 1000000 is more than is taken from a checkpoint'),
    ('config/val_dataloader/dataset/type', 'os.system', "no dataset is called 'os.system'"),
    ('config', ..., 'does not say what data it is scored on'),
    ('state_dict/head.fc.weight', torch.full((3, 1280), torch.nan), 'head.fc.weight'),
    ('state_dict', ..., 'is no Falconet checkpoint'),
    ('classes', ..., 'classes is missing'),
    ('format', 99, 'newer Falconet'),
]


@pytest.mark.parametrize(('place', 'value', 'message'), STRANGERS)
def test_a_checkpoint_that_asks_for_what_it_may_not_is_refused(
    command: Command,
    untrained: Callable,
    folders: Path,
    altered: Callable,
    place: str,
    value: Any,
    message: str,
) -> None:
    path = untrained('classification', folders)
    torch.save(altered(torch.load(path, weights_only=True), place, value), path)
    done = command('test', path)
    assert done.code == 2, done.output
    assert message in done.output


class Trap:
    """A pickle that would write a file when opened."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path('was_here'),))


def trap(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(), protocol=2))


def trap_in_an_archive(path: Path) -> None:
    torch.save({'state_dict': Trap()}, path)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda each: each.file_size)
    data[part.header_offset + 2000] ^= 1
    path.write_bytes(data)


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (trap, 'refused'),
        (trap_in_an_archive, 'refused'),
        (flipped, 'have changed since it was written; copy it again'),
        (compressed, 'compressed'),
        (half, 'classification.pth'),
        (folder, 'is a folder'),
        (lambda path: path.write_bytes(b''), 'classification.pth'),
        (lambda path: path.write_text('text'), 'not a'),
        (lambda path: path.unlink(), 'classification.pth'),
        (lambda path: torch.save({'a': torch.zeros(3)}, path), 'no Falconet checkpoint'),
        (lambda path: torch.save(torch.zeros(3), path), 'classification.pth'),
    ],
)
@pytest.mark.parametrize('tool', ['predict', 'test'])
def test_a_file_that_is_no_checkpoint_is_refused_and_runs_nothing(
    command: Command, untrained: Callable, folders: Path, spoil: Callable, message: str, tool: str
) -> None:
    path = untrained('classification', folders)
    spoil(path)
    done = command(tool, path, *([folders] if tool == 'predict' else []))
    assert done.code == 2, done.output
    assert message in done.output
    assert not Path('was_here').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere.py'], 'there is no config nowhere.py'),
        (['CONFIG'], 'add --checkpoint CKPT'),
        (['CHECKPOINT', '--checkpoint', 'CHECKPOINT'], '--checkpoint goes with a config'),
        (['CHECKPOINT', '--cfg-options', 'seed=1'], '--cfg-options goes with a config'),
        (['CHECKPOINT', '--multi-scale'], '--multi-scale: classification is scored at one scale only'),
        (['CHECKPOINT', '--engine', 'tensorrt'], 'invalid choice'),
    ],
)
def test_arguments_that_do_not_go_together_are_said(
    command: Command,
    untrained: Callable,
    write_config: Callable,
    folders: Path,
    arguments: list[str],
    message: str,
) -> None:
    stands_for = {'CONFIG': write_config(), 'CHECKPOINT': untrained('classification', folders)}
    done = command('test', *(stands_for.get(each, each) for each in arguments))
    assert done.code == 2, done.output
    assert message in done.output


@pytest.mark.parametrize('threshold', ['2', '-1', 'nan', 'abc'])
def test_a_score_threshold_lies_between_0_and_1(
    command: Command, untrained: Callable, coco_folder: Path, threshold: str
) -> None:
    checkpoint = untrained('detection', coco_folder)
    done = command('predict', checkpoint, coco_folder, f'--score-threshold={threshold}')
    assert done.code == 2, done.output
    assert '--score-threshold' in done.output


@pytest.mark.parametrize('tool', ['test', 'predict', 'export'])
def test_an_empty_out_is_not_the_current_folder(
    command: Command, untrained: Callable, folders: Path, tool: str
) -> None:
    checkpoint = untrained('classification', folders)
    rest = {'test': ['--data-root', folders], 'predict': [folders], 'export': ['--to', 'torch']}[tool]
    done = command(tool, checkpoint, *rest, '--out', '')
    assert done.code == 2, done.output
    assert '--out is empty' in done.output


def test_processes_of_their_own_end_with_the_same_code_and_words(
    root: Path, untrained: Callable, write_config: Callable, folders: Path, tmp_path: Path
) -> None:
    """What runs in this process above, through the shell."""
    checkpoint, config = untrained('classification', folders), write_config()
    for arguments, message in (
        (['train.py', config, '--seed', 2**32], 'seed must be a whole number'),
        (['predict.py', checkpoint, ''], "there is no file or folder ''"),
    ):
        done = subprocess.run(
            [sys.executable, str(root / 'tools' / arguments[0]), *map(str, arguments[1:])],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith('error: ')
        assert message in done.stderr
        assert 'Traceback' not in done.stderr
