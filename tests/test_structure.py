"""Claims about the project as a whole: who imports whom, and what an import costs."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {
    'backbones': {'backbones'},
    'heads': {'heads'},
    'tasks': {'backbones', 'heads', 'tasks'},
}


def imported_packages(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split('.')[0])
    return names


@pytest.mark.parametrize('package', ALLOWED)
def test_imports_point_one_way(root: Path, package: str) -> None:
    ours = {'backbones', 'heads', 'tasks', 'tools', 'configs', 'tests', 'benchmarks'}
    files = list((root / package).rglob('*.py'))
    assert files
    for file in files:
        assert imported_packages(file) & ours <= ALLOWED[package], file


@pytest.mark.parametrize('tool', ['train', 'test', 'predict', 'convert_weights', 'make_demo_data'])
def test_help_answers_without_importing_torch(root: Path, tool: str) -> None:
    code = (
        'import runpy, sys\n'
        f'sys.argv = ["{tool}.py", "--help"]\n'
        'try:\n'
        f'    runpy.run_path({str(root / "tools" / (tool + ".py"))!r}, run_name="__main__")\n'
        'except SystemExit as stop:\n'
        '    assert stop.code == 0, stop.code\n'
        'heavy = {"torch", "mmengine", "cv2", "numpy", "albumentations"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'usage' in done.stdout


def test_loading_a_model_does_not_wait_for_torchvision(root: Path) -> None:
    """Its import takes longer than everything else that a checkpoint needs, torch aside."""
    code = (
        f'import sys; sys.path.insert(0, {str(root)!r})\n'
        'from tasks import load_model\n'
        'import tasks.classification, tasks.detection, tasks.segmentation\n'
        'heavy = {"torchvision", "torch._dynamo", "matplotlib", "timm", "pycocotools"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_albumentations_is_the_mit_licensed_one() -> None:
    """Its successor is AGPL and installs the same import name."""
    installed = {dist.metadata['Name'].lower() for dist in importlib.metadata.distributions()}
    assert 'albumentationsx' not in installed
    assert importlib.metadata.version('albumentations') == '2.0.8'


def test_only_one_opencv_is_installed() -> None:
    installed = [dist.metadata['Name'] for dist in importlib.metadata.distributions()]
    assert len({name for name in installed if name.lower().startswith('opencv')}) == 1


def test_constraints_satisfy_the_bounds_of_setup_cfg(root: Path) -> None:
    import configparser

    from packaging.requirements import Requirement

    pins = {}
    for line in (root / 'constraints.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            pin = Requirement(line)
            pins[pin.name.lower().replace('_', '-')] = str(pin.specifier).removeprefix('==')
    parser = configparser.ConfigParser()
    parser.read(root / 'setup.cfg')
    lines = parser['options']['install_requires'] + parser['options.extras_require']['test']
    for line in lines.splitlines():
        if line and not line.startswith('#'):
            need = Requirement(line)
            assert need.specifier.contains(pins[need.name.lower()]), line


def test_configs_have_at_most_one_base_and_say_what_they_are(root: Path) -> None:
    for file in (root / 'configs').rglob('*.py'):
        tree = ast.parse(file.read_text())
        header = ast.get_docstring(tree) or ''
        if '_base_' in file.parts:
            assert header
            continue
        for word in ('Data ', 'Command ', 'Measured' if 'folder' not in file.stem else 'Recipe'):
            assert word in header, f'{file} lacks {word!r}'
        bases = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_'
        ]
        assert len(bases) <= 1
        assert all(len(each) == 1 for each in bases)


def test_every_config_loads(root: Path) -> None:
    from tasks.build import load_config

    files = [file for file in (root / 'configs').rglob('*.py') if '_base_' not in file.parts]
    assert len(files) > 10
    for file in files:
        assert {'backbone', 'head'} <= set(load_config(file).model), file
