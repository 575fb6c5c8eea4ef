"""The tools run in this process as a shell would run them: arguments in, exit code and words out."""

import contextlib
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from falconet.checkpoints.file import describe, write_checkpoint
from falconet.core.errors import run_command
from falconet.tasks.model import VisionModel

SIDE = 64
PARTS: dict[str, dict[str, Any]] = {
    'classification': {
        'backbone': {},
        'head': {'type': 'LinearHead'},
        'classes': ('blue', 'green', 'red'),
        'transform': {'type': 'ResizeCenterCrop', 'resize': SIDE, 'crop': SIDE},
        'dataset': {'type': 'ImageFolder', 'split': 'test'},
    },
    'detection': {
        'backbone': {'taps': ('stage6_expand', 'last')},
        'head': {'type': 'SSDLiteHead', 'limit': 5},
        'classes': ('red', 'green'),
        'transform': {'type': 'Resize', 'height': SIDE, 'width': SIDE},
        'dataset': {'type': 'CocoDetection', 'annotations': 'annotations/test.json', 'images': 'test'},
    },
    'segmentation': {
        'backbone': {'taps': ('stage7',), 'output_stride': 16},
        'head': {'type': 'DeepLabV3Head', 'hidden_channels': 16},
        'classes': ('background', 'square'),
        'transform': {'type': 'ResizePad', 'size': SIDE},
        'dataset': {'type': 'MaskFolder'},
    },
}


class Done(NamedTuple):
    """How a command ended."""

    code: int
    output: str  # of stdout and stderr, in this order


@pytest.fixture
def command(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Run a tool. Files below `tmp_path` that were there before must be there unchanged, `but` some."""
    threads = torch.get_num_threads()

    def run(tool: str, *arguments: object, but: Sequence[Path] = ()) -> Done:
        before = contents(tmp_path)
        monkeypatch.setattr(sys, 'argv', [f'tools/{tool}.py', *map(str, arguments)])
        capfd.readouterr()
        code: Any = None
        main = runpy.run_path(str(root / 'tools' / f'{tool}.py'))['main']
        with contextlib.suppress(SystemExit):
            try:
                run_command(main)
            except SystemExit as end:
                code = end.code
                raise
        done = Done(code, ''.join(capfd.readouterr()))
        after = contents(tmp_path)
        changed = [path for path, content in before.items() if after.get(path) != content]
        assert set(changed) <= set(but), done.output
        assert 'Traceback' not in done.output
        return done

    monkeypatch.chdir(tmp_path)
    yield run
    torch.set_num_threads(threads)


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of every regular file."""
    files = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    return {path: path.read_bytes() for path in files if path.is_file()}


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint of a small untrained model of a task, which names the data it is scored on."""

    def write(task: str, data: Path, **parts: Any) -> Path:
        about = {**PARTS[task], **parts}
        torch.manual_seed(0)
        model = VisionModel(
            {'type': 'MobileNetV2', 'width': 0.1, **about['backbone']},
            about['head'],
            classes=about['classes'],
            preprocess=[about['transform']],
        )
        loader = {'num_workers': 0, 'dataset': {**about['dataset'], 'augment': [about['transform']]}}
        config = Config({'model': model.spec, 'data_root': str(data), 'val_dataloader': loader})
        content = {**describe(model, config), 'state_dict': model.state_dict(), 'metrics': {}}
        path = tmp_path / f'{task}.pth'
        write_checkpoint({**content, 'epoch': 1, 'iter': 3}, path)
        return path

    return write


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A folder of three pictures, one of their masks (0 and 1) and a list of classes."""
    base = tmp_path / 'masks_data'
    for name in ('images', 'masks'):
        (base / name).mkdir(parents=True)
    for index in range(3):
        mask = np.zeros((48, 60), np.uint8)
        mask[10:30, 10 + index : 40] = 1
        picture = np.random.default_rng(index).integers(0, 255, (48, 60, 3), dtype=np.uint8)
        assert cv2.imwrite(str(base / 'masks' / f'{index}.png'), mask)
        assert cv2.imwrite(str(base / 'images' / f'{index}.png'), picture)
    (base / 'classes.txt').write_text('background\nsquare\n')
    return base


@pytest.fixture
def altered() -> Callable[[Mapping[str, Any], str, Any], dict[str, Any]]:
    """Return a copy of nested dicts with the value at 'key/inner' another; `...` takes it away."""
    from copy import deepcopy

    def alter(content: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
        content = deepcopy(dict(content))
        *parents, last = place.split('/')
        inner: Any = content
        for key in parents:
            inner = inner[int(key) if isinstance(inner, list) else key]
        key = int(last) if isinstance(inner, list) else last
        if value is ...:
            del inner[key]
        else:
            inner[key] = value
        return content

    return alter


@pytest.fixture(scope='module')
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkpoint of a small model holds."""
    torch.manual_seed(0)
    model = VisionModel(
        {'type': 'MobileNetV2', 'width': 0.1, 'taps': ('stage2',)},
        {'type': 'LinearHead'},
        classes=('a', 'b'),
        preprocess=[{'type': 'ResizeCenterCrop', 'resize': 32, 'crop': 32}],
    )
    dataset = {'type': 'ImageFolder', 'split': 'test', 'augment': list(model.preprocess)}
    config = Config({'model': model.spec, 'data_root': 'data', 'val_dataloader': {'dataset': dataset}})
    path = tmp_path_factory.mktemp('template') / 'x.pth'
    content = {
        **describe(model, config),
        'state_dict': model.state_dict(),
        'metrics': {},
        'epoch': 1,
        'iter': 3,
    }
    write_checkpoint(content, path)
    return torch.load(path, weights_only=True)
