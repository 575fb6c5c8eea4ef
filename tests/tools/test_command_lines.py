"""The command lines as a user types them: what works, and what a mistake says (exit code 2, no traceback)."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falconet.engine.train import train
from falconet.tasks.build import load_config


def tool(root: Path, name: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(root / 'tools' / f'{name}.py'), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        check=False,
    )


@pytest.fixture
def trained(write_config: Callable[..., Path], tmp_path: Path) -> Path:
    train(load_config(write_config('train_cfg = dict(max_epochs=1)')), work_dir=str(tmp_path / 'run'))
    return tmp_path / 'run/best.pth'


def test_a_checkpoint_is_tested_and_predicts_from_any_folder(
    root: Path, trained: Path, folders: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    done = tool(root, 'test', trained, '--data-root', folders, '--out', 'scores/m.json', cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert 'top-1' in done.stdout
    assert json.loads((elsewhere / 'scores/m.json').read_text())['images'] == 12
    assert (elsewhere / 'scores/confusion_matrix.png').exists()

    done = tool(root, 'predict', trained, folders / 'test/red', folders / 'test/blue/0.png', cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((elsewhere / 'predictions/predictions.json').read_text())['predictions']) == 5
    assert (elsewhere / 'predictions/contact_sheet.png').exists()


class Trap:
    """A pickle that would write a file when opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def mistakes(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    """Name -> (tool and arguments, what the message must hold)."""
    (tmp_path / 'text.pth').write_text('no checkpoint')
    (tmp_path / 'trap.pth').write_bytes(pickle.dumps(Trap(tmp_path / 'was_here'), protocol=2))
    torch.save({'features.0.0.weight': torch.zeros(32, 3, 3, 3)}, tmp_path / 'weights.pth')
    config = 'configs/linear_folder.py'
    return {
        'missing data': (
            ['train', config, '--data-root', 'nowhere', '--work-dir', tmp_path / 'w'],
            'nowhere does not exist',
        ),
        'missing config': (['train', 'configs/linear_intle.py'], 'Did you mean configs/linear_intel.py'),
        'unknown option': (['train', config, '--cfg-options', 'model.hed=1'], 'Did you mean head'),
        'no torchrun': (['train', config, '--launcher', 'pytorch'], 'torchrun --nproc_per_node'),
        'text as checkpoint': (['predict', tmp_path / 'text.pth', tmp_path / 'text.pth'], 'not a'),
        'code as checkpoint': (['predict', tmp_path / 'trap.pth', tmp_path / 'text.pth'], 'refused'),
        'bare weights': (
            ['predict', tmp_path / 'weights.pth', tmp_path / 'text.pth'],
            'no Falconet checkpoint',
        ),
        'missing input': (
            ['predict', tmp_path / 'weights.pth', 'nothing.jpg'],
            'no file or folder nothing.jpg',
        ),
        'unknown weights': (
            ['convert_weights', 'timm/mobilenetv2_105', 'x.pth'],
            'did you mean timm/mobilenetv2_',
        ),
        'untrained config': (['test', config], 'add --checkpoint'),
    }


@pytest.mark.parametrize(
    'name', ['missing data', 'code as checkpoint', 'unknown weights', 'untrained config']
)
def test_a_mistake_ends_with_code_2_and_one_message(root: Path, tmp_path: Path, name: str) -> None:
    arguments, message = mistakes(tmp_path)[name]
    done = tool(root, str(arguments[0]), *arguments[1:], cwd=root)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'was_here').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'missing config',
        'unknown option',
        'no torchrun',
        'text as checkpoint',
        'bare weights',
        'missing input',
    ],
)
def test_more_mistakes_end_with_code_2(root: Path, tmp_path: Path, name: str) -> None:
    test_a_mistake_ends_with_code_2_and_one_message(root, tmp_path, name)


def test_a_tool_of_one_checkout_never_runs_the_code_of_another(root: Path, tmp_path: Path) -> None:
    for name in ('tools', 'falconet'):
        (tmp_path / name).mkdir()
    (tmp_path / 'falconet/__init__.py').touch()
    (tmp_path / 'tools/train.py').write_text((root / 'tools/train.py').read_text())
    done = subprocess.run(
        [sys.executable, tmp_path / 'tools/train.py', 'linear_folder'],
        env={**os.environ, 'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f'would run the code in {root}' in done.stderr
