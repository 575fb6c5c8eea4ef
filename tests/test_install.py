"""The wheel beside other people's code. `make test-install` builds it and names it in FALCONET_WHEEL."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

WHEEL = os.environ.get('FALCONET_WHEEL')
pytestmark = pytest.mark.skipif(WHEEL is None, reason='FALCONET_WHEEL names no wheel: make test-install')
SMALL = [
    *('model.backbone.pretrained=None', 'model.backbone.width=0.35'),
    *('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0'),
]


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel and, by a path, its dependencies."""
    folder = tmp_path_factory.mktemp('environment')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    python = folder / 'bin/python'
    where = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    packages = subprocess.run(
        [python, '-c', where], capture_output=True, text=True, check=True
    ).stdout.strip()
    # Files of paths there are not read: what this checkout put into its own environment is not found.
    (Path(packages) / 'dependencies.pth').write_text(sysconfig.get_path('purelib') + '\n')
    install = [
        sys.executable,
        '-m',
        'pip',
        '--python',
        python,
        'install',
        '--quiet',
        '--no-deps',
        '--no-index',
    ]
    subprocess.run([*install, str(WHEEL)], check=True)
    return folder / 'bin'


def test_the_wheel_has_one_name() -> None:
    assert WHEEL is not None
    names = zipfile.ZipFile(WHEEL).namelist()
    version = Path(WHEEL).name.split('-')[1]
    assert {name.split('/')[0] for name in names} == {'falconet', f'falconet-{version}.dist-info'}
    for name in (
        'py.typed',
        'configs/linear_folder.py',
        'configs/_base_/runtime.py',
        'deploy/web/index.html',
    ):
        assert f'falconet/{name}' in names


def test_it_trains_and_predicts_beside_a_users_own_modules(
    installed: Path, folders: Path, tmp_path: Path
) -> None:
    (tmp_path / 'tasks.py').write_text('MINE = True\n')
    for name in ('tools', 'heads', 'core'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('MINE = True\n')
    (tmp_path / 'configs').mkdir()
    picture = next((folders / 'train').rglob('*.*'))
    (tmp_path / 'use.py').write_text(
        'import core, heads, tasks, tools\n'
        'import falconet\n'
        'assert tasks.MINE and tools.MINE and heads.MINE and core.MINE\n'
        "model = falconet.load_model('work_dirs/linear_folder/best.pth')\n"
        f'print(model.predict({str(picture)!r}).label)\n'
    )
    data = ['--data-root', folders / 'train', '--epochs', '1', '--batch-size', '8', '--no-check']
    for command in (
        [installed / 'falconet', 'train', 'linear_folder', *data, '--cfg-options', *SMALL],
        [installed / 'python', 'use.py'],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().isdigit()
