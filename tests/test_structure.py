"""Claims about the project as a whole: who imports whom, and what an import costs."""

import ast
import graphlib
import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('layers', 'backbones', 'heads', 'tasks', 'deploy', 'tools')
LEAVES = ('tasks',)  # rooms that are their __init__ only: a new file beside it needs a room


def modules(root: Path) -> dict[str, Path]:
    """Return every file of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for file in (root / package).rglob('*.py'):
            name = '.'.join(file.relative_to(root).with_suffix('').parts)
            found[name.removesuffix('.__init__')] = file
    return found


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
        yield from ((node.lineno, name) for name in names if name in known)


def drawn_arrows(root: Path) -> dict[str, set[str]]:
    """Return the list of CONTRIBUTING.md: room -> rooms it may import, in its order."""
    text = (root / 'CONTRIBUTING.md').read_text()
    lines = re.findall(r'^([a-z.0-9_]+) +<-(.*)$', text, re.M)
    return {room: {each.strip() for each in allowed.split(',') if each.strip()} for room, allowed in lines}


def room_of(module: str, rooms: Iterable[str]) -> str:
    """Return the innermost room a module lies in."""
    inside = [room for room in rooms if module == room or module.startswith(f'{room}.')]
    assert inside, f'{module} belongs to no room of CONTRIBUTING.md'
    room = max(inside, key=len)
    assert room not in LEAVES or module == room, f'{module} belongs to no room of CONTRIBUTING.md'
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


def test_no_file_is_long(root: Path) -> None:
    # One generator, drawn from top to bottom; one page, table by table.
    exempt = {'make_demo_data.py', 'paper_tables.py'}
    counts = {file: len(file.read_text().splitlines()) for file in modules(root).values()}
    assert not {file: count for file, count in counts.items() if count > 350 and file.name not in exempt}


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_what_is_registered_does_not_depend_on_what_was_used_before(
    fresh_process: Callable[[str], str], task: str
) -> None:
    """A fresh process that has only touched one task knows what the others offer."""
    printed = fresh_process(f"""
        from mmengine.registry import DATASETS, METRICS, TRANSFORMS
        from falconet.tasks.task import find_task
        find_task({task!r})
        from falconet.datasets.transforms.augment import Augment
        for name in ('ResizePad', 'ResizeCenterCrop', 'RandomIoUCrop', 'RandomScaleCrop'):
            Augment([dict(type=name)])
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
