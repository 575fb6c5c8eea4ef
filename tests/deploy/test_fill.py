"""An exported program is scored on pictures that are padded as its checkpoint's are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falconet.checkpoints.load import load_model
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import export


@pytest.mark.parametrize('normalise', ['imagenet', 'tensorflow'])
def test_a_program_says_which_pixel_is_the_mean(
    small_model: Callable[..., Any], tmp_path: Path, normalise: str
) -> None:
    from mmengine.config import Config

    from falconet.checkpoints.file import describe, write_checkpoint
    from falconet.tasks.model import VisionModel

    model = small_model('segmentation')
    spec = {**model.spec, 'normalise': normalise}
    other = VisionModel(**spec, classes=model.classes, preprocess=[{'type': 'ResizePad', 'size': 96}])
    other.load_state_dict(
        {key: value for key, value in model.state_dict().items() if not key.startswith('normalise')},
        strict=False,
    )
    content = {**describe(other, Config({})), 'state_dict': other.state_dict(), 'metrics': {}}
    write_checkpoint(content, tmp_path / 'best.pth')
    export(tmp_path / 'best.pth', ['torch'], out=tmp_path)
    program = ExportedModel(tmp_path / 'best.pt2')
    assert program.mean_pixel == load_model(tmp_path / 'best.pth').normalise.mean_pixel
    assert program.mean_pixel == {'imagenet': (124, 116, 104), 'tensorflow': (128, 128, 128)}[normalise]


def test_a_program_that_does_not_say_keeps_the_default(
    small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    export(small_checkpoint(), ['torch'], out=tmp_path)
    program = ExportedModel(tmp_path / 'best.pt2')
    for spec in ({}, {'normalise': 5}, {'normalise': {'mean': 'abc'}}, {'normalise': {'mean': [1e400]}}):
        program.description.model = spec
        assert program.mean_pixel is None
