"""Claims about the project as a whole: who imports whom, and what an import costs."""

import ast
import graphlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    *('core', 'layers', 'backbones', 'heads', 'report', 'datasets', 'tasks'),
    *('doctor', 'checkpoints', 'engine', 'deploy', 'tools'),
)


def modules(root: Path) -> dict[str, Path]:
    """Return every file of ours by its dotted name, as it is imported."""
    files = {'falconet': root / 'falconet/__init__.py'}
    for package in PACKAGES:
        for file in (root / package).rglob('*.py'):
            name = '.'.join(('falconet', *file.relative_to(root).with_suffix('').parts))
            files[name.removesuffix('.__init__')] = file
    return files


def imports(file: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import of ours, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f'{file}:{node.lineno}: a relative import'
            inside = [f'{node.module}.{alias.name}' for alias in node.names]
            names = [name if name in known else node.module for name in inside]
        else:
            continue
        bare = {name.split('.')[0] for name in names} & set(PACKAGES)
        assert not bare, f'{file}:{node.lineno}: {bare} is imported without falconet'
        yield from ((node.lineno, name) for name in names if name in known)


def drawn_arrows(root: Path) -> dict[str, set[str]]:
    """Return the list of CONTRIBUTING.md: room -> rooms it may import, in its order."""
    text = (root / 'CONTRIBUTING.md').read_text()
    lines = re.findall(r'^([a-z]+) +<-(.*)$', text, re.M)
    return {room: {name.strip() for name in allowed.split(',') if name.strip()} for room, allowed in lines}


def room_of(module: str, rooms: Iterable[str]) -> str:
    """Return the room a module lies in: the folder, or the package of the public names."""
    room = (module.split('.') + ['falconet'])[1]
    assert room in rooms, f'{module} belongs to no room of CONTRIBUTING.md'
    return room


def test_every_import_is_an_arrow_of_the_drawing_and_every_arrow_is_used(root: Path) -> None:
    known, drawn = modules(root), drawn_arrows(root)
    used: dict[str, set[str]] = {room: set() for room in drawn}
    wrong = []
    for module, file in known.items():
        room = room_of(module, drawn)
        for line, name in imports(file, known):
            other = room_of(name, drawn)
            used[room] |= {other} - {room}
            if other not in drawn[room] | {room}:
                wrong.append(f'{file.relative_to(root)}:{line}: {room} may not import {other} ({name})')
    assert not wrong, '\n'.join(wrong)
    assert used == drawn, {room: drawn[room] - used[room] for room in drawn if drawn[room] - used[room]}


def test_no_arrow_of_the_drawing_points_down(root: Path) -> None:
    above: set[str] = set()
    for room, allowed in drawn_arrows(root).items():
        assert allowed <= above, f'{room} imports {allowed - above}, which stand below it'
        above.add(room)


def test_no_files_import_each_other(root: Path) -> None:
    known = modules(root)
    graph = {module: {name for _, name in imports(file, known)} for module, file in known.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_what_contributing_says_of_places_is_so(root: Path) -> None:
    rows = re.findall(r'^\| [^|`]+ \| (`.*)\|$', (root / 'CONTRIBUTING.md').read_text(), re.M)
    assert len(rows) > 6
    for row in rows:
        *files, name = [each for each in re.findall(r'`([^`]+)`', row) if each != 'configs/']
        for file in files:
            text = (root / file).read_text()
            assert re.search(rf'^ *(def|class) {name}\b|^{name}\b', text, re.M), f'{name} is not in {file}'
            assert len(Path(file).parts) <= 4


def test_a_room_holds_a_quarter_of_the_house_at_most(root: Path) -> None:
    lines = dict.fromkeys(PACKAGES, 0)
    for name, file in modules(root).items():
        if name != 'falconet':
            lines[room_of(name, PACKAGES)] += len(file.read_text().splitlines())
    assert max(lines.values()) < 0.25 * sum(lines.values()), lines


def test_no_file_is_long(root: Path) -> None:
    exempt = {'make_demo_data.py'}  # one generator, drawn from top to bottom
    counts = {file: len(file.read_text().splitlines()) for file in modules(root).values()}
    assert not {file: count for file, count in counts.items() if count > 500 and file.name not in exempt}


@pytest.mark.parametrize('package', [name for name in PACKAGES if name != 'tools'])
def test_a_package_is_refused_under_its_bare_name(package: str) -> None:
    """A second copy would have registries of its own."""
    done = subprocess.run(
        [sys.executable, '-c', f'import {package}'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f'ImportError: import falconet.{package}:' in done.stderr


def test_every_package_has_its_link(root: Path) -> None:
    links = {link.name: link.resolve() for link in (root / 'falconet').iterdir() if link.is_symlink()}
    assert links == {name: root / name for name in (*PACKAGES, 'configs')}


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_what_is_registered_does_not_depend_on_what_was_used_before(
    fresh_process: Callable[[str], str], task: str
) -> None:
    """A fresh process that has only touched one task knows what the others offer."""
    printed = fresh_process(f"""
        from mmengine.registry import DATASETS, METRICS, TRANSFORMS
        from falconet.tasks.task import find_task, load_tasks
        find_task({task!r})
        from falconet.datasets.transforms.augment import Augment
        for name in ('ResizePad', 'ResizeCenterCrop', 'RandomIoUCrop', 'RandomScaleCrop'):
            Augment([dict(type=name)])
        load_tasks()
        print(*sorted({{*DATASETS.module_dict, *METRICS.module_dict, *TRANSFORMS.module_dict}}))
    """)
    known = set(printed.split())
    assert {'ImageFolder', 'CocoDetection', 'MaskFolder', 'SegmentationMetric', 'DetectionMetric'} <= known


@pytest.mark.parametrize('tool', sorted(each.stem for each in (ROOT / 'tools').glob('*.py')))
def test_help_answers_without_importing_torch(fresh_process: Callable[[str], str], tool: str) -> None:
    assert 'usage' in fresh_process(f"""
        import runpy
        sys.argv = ['{tool}.py', '--help']
        try:
            runpy.run_path({str(ROOT / 'tools' / tool)!r} + '.py', run_name='__main__')
        except SystemExit as stop:
            assert stop.code == 0, stop.code
        heavy = {{'torch', 'mmengine', 'cv2', 'numpy', 'albumentations', 'onnx'}} & set(sys.modules)
        assert not heavy, heavy
    """)


def test_a_first_picture_waits_for_nothing_that_it_does_not_need(
    fresh_process: Callable[[str], str], tmp_path: Path
) -> None:
    """mmengine's model, torchvision and random numbers on 'meta' bring torch's compiler along: seconds."""
    fresh_process(f"""
        from pathlib import Path
        import numpy as np
        from mmengine.config import Config
        from falconet import VisionModel, load_model
        from falconet.checkpoints.file import describe, write_checkpoint
        from falconet.datasets.classification.dataset import imagenet_classes
        imagenet_classes()
        path, preprocess = Path({str(tmp_path)!r}) / 'a.pth', [dict(type='Resize', height=64, width=64)]
        for head, *taps in (
            ('LinearHead', 'last'), ('SSDLiteHead', 'stage6_expand', 'last'), ('DeepLabV3Head', 'stage7')
        ):
            backbone = dict(type='MobileNetV2', width=0.1, taps=taps)
            model = VisionModel(backbone, dict(type=head), classes=['a', 'b'], preprocess=preprocess)
            content = {{**describe(model, Config({{}})), 'state_dict': model.state_dict()}}
            write_checkpoint(content, path)
            load_model(path).predict(np.zeros((40, 50, 3), np.uint8)).draw()
        heavy = {{'torchvision', 'torch._dynamo', 'sympy', 'mmengine.model', 'mmengine.runner', 'timm'}}
        heavy |= {{'matplotlib', 'pycocotools', 'pandas', 'openvino', 'onnx'}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """)


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
    from falconet.tasks.build import load_config

    files = [file for file in (root / 'configs').rglob('*.py') if '_base_' not in file.parts]
    assert len(files) > 10
    for file in files:
        assert {'backbone', 'head'} <= set(load_config(file).model), file
