"""Checkpoints of three tasks and both paddings, small and untrained but with norms that do something."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from falconet.checkpoints.file import describe, write_checkpoint
from falconet.core.errors import UserError
from falconet.deploy.export import export
from falconet.deploy.parity import generated_pictures
from falconet.deploy.web_format import export_page
from falconet.deploy.web_runtime import read_runtime
from falconet.tasks.model import VisionModel

CASES = [
    (task, padding)
    for task in ('classification', 'detection', 'segmentation')
    for padding in ('symmetric', 'same')
]
FORMATS = ('torch', 'onnx', 'openvino')
SIZE = 96
# A .tgz of `npm pack onnxruntime-web@1.30.0`; without it, what --web-runtime was given before.
RUNTIME = os.environ.get('FALCONET_WEB_RUNTIME')
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    'classification': (
        {},
        {'type': 'LinearHead'},
        {'type': 'ResizeCenterCrop', 'resize': SIZE + 8, 'crop': SIZE},
    ),
    'detection': (
        {'taps': ('stage6_expand', 'last')},
        {'type': 'SSDLiteHead', 'limit': 20},
        {'type': 'Resize', 'height': SIZE, 'width': SIZE},
    ),
    'segmentation': (
        {'taps': ('stage7',), 'output_stride': 16},
        {'type': 'DeepLabV3Head', 'hidden_channels': 32},
        {'type': 'ResizePad', 'size': SIZE},
    ),
}


def make_model(task: str, padding: str = 'symmetric', **parts: Mapping[str, Any]) -> VisionModel:
    """Return a model in evaluation mode whose answers depend on the picture."""
    backbone, head, preprocess = PARTS[task]
    torch.manual_seed(0)
    model = VisionModel(
        parts.get('backbone', {'type': 'MobileNetV2', 'width': 0.35, 'padding': padding, **backbone}),
        parts.get('head', head),
        classes=('blue', 'green', 'red'),
        preprocess=[parts.get('preprocess', preprocess)],
    )
    pictures = torch.from_numpy(generated_pictures((SIZE, SIZE), seed=1)).permute(0, 3, 1, 2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
                module.momentum = 0.5
        for _ in range(4):
            model.train()(pictures)
        if task == 'detection':  # an untrained one scores every box alike
            for predictor in model.head.class_predictors:  # type: ignore[union-attr]
                list(predictor.parameters())[-2].mul_(10)
    return model.eval()


def save(model: VisionModel, path: Path) -> Path:
    """Write a model as a checkpoint."""
    content = describe(model, Config({}))
    write_checkpoint({**content, 'state_dict': model.state_dict(), 'metrics': {'top1': 0.5}}, path)
    return path


@pytest.fixture
def small_model() -> Callable[..., VisionModel]:
    """The function above."""
    return make_model


@pytest.fixture(scope='session', params=CASES, ids='-'.join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A task and a padding."""
    return request.param


@pytest.fixture
def small_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write a small model as a checkpoint and return its path."""

    def write(task: str = 'classification', **parts: Any) -> Path:
        return save(make_model(task, **parts), tmp_path / 'best.pth')

    return write


Shared = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope='session')
def exported(shared: Shared) -> Callable[[str, str], Path]:
    """Return a folder with best.pth of a task and padding, and the files of every format beside it."""

    def get(task: str, padding: str) -> Path:
        def fill(folder: Path) -> None:
            save(make_model(task, padding), folder / 'best.pth')
            export(folder / 'best.pth', FORMATS, out=folder)

        return shared(f'{task}_{padding}', fill)

    return get


@pytest.fixture(scope='session')
def resizing(shared: Shared) -> Callable[[str], Path]:
    """Return a folder with best.pth of a task, and a best.onnx that resizes pictures of (72, 140) itself."""

    def get(task: str) -> Path:
        def fill(folder: Path) -> None:
            save(make_model(task), folder / 'best.pth')
            export(folder / 'best.pth', ['onnx'], out=folder, size=(72, 140))

        return shared(f'{task}_resizing', fill)

    return get


@pytest.fixture(scope='session')
def runtime() -> str | None:
    """ONNX Runtime Web, or the test is skipped."""
    try:
        read_runtime(RUNTIME)
    except UserError as error:
        pytest.skip(f'FALCONET_WEB_RUNTIME: {error}')
    return RUNTIME


@pytest.fixture(scope='session')
def page(tmp_path_factory: pytest.TempPathFactory, runtime: str | None) -> Callable[[str], Path]:
    """Return the page of a small model of a task, beside `best.pth`."""
    folders: dict[str, Path] = {}

    def get(task: str) -> Path:
        if task not in folders:
            folder = tmp_path_factory.mktemp(f'{task}_page')
            save(make_model(task, 'same'), folder / 'best.pth')
            folders[task] = export_page(folder / 'best.pth', out=folder, runtime=runtime).path
        return folders[task]

    return get
