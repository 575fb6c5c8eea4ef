"""tools/export.py as a user types it, and the other tools on what it wrote."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import falconet.deploy.export
from falconet.deploy.card import Written
from falconet.deploy.int8.calibration import Int8
from falconet.engine.train import train
from falconet.tasks.build import load_config


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run a tool in an empty folder, with a cache of its own."""

    def call(name: str, *arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(root / 'tools' / f'{name}.py'), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'XDG_CACHE_HOME': str(tmp_path / 'cache')},
            check=False,
        )

    return call


@pytest.fixture
def trained(write_config: Callable[..., Path], tmp_path: Path) -> Path:
    train(load_config(write_config('train_cfg = dict(max_epochs=1)')), work_dir=str(tmp_path / 'run'))
    return tmp_path / 'run/best.pth'


def test_a_checkpoint_is_exported_scored_and_used_like_a_checkpoint(
    run: Callable, trained: Path, folders: Path, tmp_path: Path
) -> None:
    pictures = folders / 'test/red'
    options = ['--to', 'onnx,openvino', '--check', pictures, '--data-root', folders]
    done = run('export', trained, *options)
    assert done.returncode == 0, done.stderr
    assert all(f'best{ending}' in done.stdout for ending in ('.onnx', '.xml'))
    card = (trained.parent / 'model_card.md').read_text()
    assert 'Measured on 4 pictures of yours' in card
    assert '| best.onnx |' in card.partition('## Scores')[2]
    assert '+0.0000' in card

    scores = []
    for file in ('best.pth', 'best.onnx'):
        path = trained.parent / file
        done = run('test', path, '--data-root', folders, '--out', f'{file}.json')
        assert done.returncode == 0, done.stderr
        scores.append(json.loads((tmp_path / f'{file}.json').read_text()))
    assert scores[0]['top1'] == scores[1]['top1']
    assert scores[0]['confusion_matrix'] == scores[1]['confusion_matrix']

    done = run('predict', trained.parent / 'best.xml', pictures)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / 'predictions/predictions.json').read_text())['predictions']) == 4


@pytest.mark.slow
def test_an_engine_converts_once_and_again_when_the_checkpoint_changed(
    run: Callable, trained: Path, folders: Path, tmp_path: Path
) -> None:
    def files() -> list[Path]:
        return sorted((tmp_path / 'cache').rglob('*.onnx'))

    for _ in range(2):
        done = run('test', trained, '--engine', 'onnx', '--data-root', folders)
        assert done.returncode == 0, done.stderr
        assert 'engine onnx' in done.stdout
        assert 'top-1' in done.stdout
        (written,) = files()
    content = torch.load(trained, weights_only=True)
    torch.save({**content, 'epoch': 99}, trained)
    before = written.stat().st_mtime_ns
    assert run('test', trained, '--engine', 'onnx', '--data-root', folders).returncode == 0
    assert len(files()) == 2
    assert written.stat().st_mtime_ns == before


MISTAKES: dict[str, tuple[list[str], str]] = {
    'no such format': (['--to', 'onyx'], "no format is called 'onyx'. Did you mean onnx"),
    'no such checkpoint': (['nowhere.pth', '--to', 'onnx'], 'there is no checkpoint nowhere.pth'),
    'a size that is none': (['--to', 'onnx', '--size', '0x4'], 'must be HEIGHTxWIDTH'),
    'a batch that is none': (['--to', 'onnx', '--batch', 'many'], "must be 'dynamic' or a whole number"),
    'no pictures to check on': (['--to', 'onnx', '--check', 'nowhere'], 'nowhere'),
    'a file of somebody else': (['--to', 'torch', '--out', 'theirs'], '--overwrite'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_explained_and_leaves_nothing(
    command: Callable, untrained: Callable, tmp_path: Path, name: str
) -> None:
    arguments, message = MISTAKES[name]
    checkpoint = untrained('classification', tmp_path)
    (tmp_path / 'theirs').mkdir()
    (tmp_path / f'theirs/{checkpoint.stem}.pt2').write_text('their own')
    before = sorted(tmp_path.rglob('*'))
    source = [] if arguments[0].endswith('.pth') else [checkpoint]
    done = command('export', *source, *arguments)  # which sees to it that no file has changed
    assert done.code == 2, done.output
    assert message in done.output
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.slow
def test_a_program_of_another_task_or_other_classes_or_at_several_scales_is_not_scored(
    run: Callable, trained: Path, folders: Path, root: Path, coco_folder: Path
) -> None:
    assert run('export', trained, '--to', 'torch').returncode == 0
    program = trained.parent / 'best.pt2'
    options = ['--checkpoint', program, '--data-root', coco_folder]
    places = ['annotations=annotations/test.json', 'images=test', "categories=['red','green']"]
    changes = [f'test_dataloader.dataset.{each}' for each in places]
    done = run('test', root / 'configs/ssdlite_tf_person.py', *options, '--cfg-options', *changes)
    assert done.returncode == 2, done.stderr
    assert 'program of classification' in done.stderr
    done = run('test', program, '--multi-scale', '--data-root', folders)
    assert done.returncode == 2
    assert 'give a checkpoint' in done.stderr
    (folders / 'test/red').rename(folders / 'test/pink')
    (folders / 'train/red').rename(folders / 'train/pink')
    done = run('test', program, '--data-root', folders)
    assert done.returncode == 2, done.stderr
    assert 'red' in done.stderr


def test_help_answers_without_importing_torch(root: Path) -> None:
    code = (
        'import runpy, sys\n'
        'sys.argv = ["export.py", "--help"]\n'
        'try:\n'
        f'    runpy.run_path({str(root / "tools/export.py")!r}, run_name="__main__")\n'
        'except SystemExit as stop:\n'
        '    assert stop.code == 0, stop.code\n'
        'assert not {"torch", "onnx", "numpy", "openvino"} & set(sys.modules)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'usage' in done.stdout


def test_training_and_loading_know_nothing_of_engines(root: Path) -> None:
    code = (
        f'import sys; sys.path.insert(0, {str(root)!r})\n'
        'from falconet import evaluate, load_model, train\n'
        'import falconet.engine.train, falconet.engine.evaluate\n'
        'heavy = {"onnx", "onnxruntime", "onnxscript", "openvino", "falconet.deploy"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_int8_is_asked_for_and_what_it_cost_is_said(
    command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def export(checkpoint: str, formats: list[str], **options: object) -> list[Written]:
        asked.update(options)
        return [Written(Path('o/best_int8.onnx'), 3_900_000, scores={'top1': 0.85}, lost=0.5)]

    monkeypatch.setattr(falconet.deploy.export, 'export', export)
    options = ['--int8', '--calibration', 8, '--max-drop', 2, '--calibrate-on', 'a', 'b']
    done = command('export', 'best.pth', '--to', 'onnx', *options)
    assert 'best_int8.onnx  3.9 MB; top1 0.8500, 0.50 points lost' in done.output
    assert asked['int8'] == Int8(pictures=8, max_drop=2, inputs=['a', 'b'])
    assert command('export', 'best.pth', '--to', 'onnx', '--int8').code == 0
    assert asked['int8'] == Int8(pictures=300, max_drop=1.0, inputs=())


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (['--int8', '--max-drop', 'much'], '0 to 100'),
        (['--int8', '--max-drop', 'nan'], '0 to 100'),
        (['--int8', '--calibration', '0'], 'above 0'),
        (['--calibration', '5'], 'add it'),
        (['--int8', '--to', 'web'], 'web has no INT8'),
        (['--int8', '--to', 'torch'], 'torch has no INT8'),
    ],
)
def test_what_int8_cannot_mean_is_said(command: Callable, options: list[str], word: str) -> None:
    done = command('export', 'best.pth', *([] if '--to' in options else ['--to', 'onnx']), *options)
    assert done.code == 2
    assert word in done.output
