"""A program for any size says, of each picture, what one made for that size says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falconet import load_model
from falconet.core.errors import UserError
from falconet.deploy.answers import LONGEST, Geometry, mask_size
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import export
from falconet.deploy.parity import differences, generated_pictures, too_large
from falconet.deploy.program import Program
from falconet.tasks.model import VisionModel

from .test_engines import check_same

Models = Callable[..., VisionModel]
TASKS = ('classification', 'detection', 'segmentation')
SIZES = [(96, 96), (60, 140), (200, 130), (40, 30), (480, 640), (1, 300)]


@pytest.mark.parametrize('task', TASKS)
def test_one_program_says_what_those_of_single_sizes_say(small_model: Models, task: str) -> None:
    model = small_model(task, 'same')
    program = Program(model, size='any')
    assert (program.picture, program.network) == (None, (96, 96))
    for size in SIZES:
        pictures = torch.from_numpy(generated_pictures(size, count=1))
        with torch.no_grad():
            found, expected = program(pictures), Program(model, size=size)(pictures)
        arrays = [{name: each.numpy() for name, each in side.items()} for side in (expected, found)]
        # Now and then a pixel of the resized picture is a grey level off.
        measured = differences(*arrays, task=task)
        assert measured.get('boxes', 0) < 0.5, size
        assert measured.get('scores', 0) < 0.02, size
        assert measured.get('mask', 0) < 0.02, size


@pytest.mark.parametrize('task', TASKS)
def test_files_take_pictures_of_any_size(
    small_checkpoint: Callable[..., Path], tmp_path: Path, task: str
) -> None:
    checkpoint = small_checkpoint(task)
    model = load_model(checkpoint)
    files = export(checkpoint, ['onnx', 'openvino'], out=tmp_path, size='any')
    assert [each.path.suffix for each in files] == ['.onnx', '.xml']
    assert 'of any size' in (tmp_path / 'model_card.md').read_text()
    for written in files:
        assert written.measured
        assert not too_large(written.measured)
        check_any_size(ExportedModel(written.path), model)


def check_any_size(program: ExportedModel, model: VisionModel) -> None:
    about = program.description
    assert about.input.shape == (1, 'height', 'width', 3)
    assert (about.picture, about.network, about.batch) == (None, (96, 96), 1)
    pictures = [generated_pictures(size, count=1, seed=seed)[0] for seed, size in enumerate(SIZES[:4])]
    if model.task.name == 'segmentation':
        for one, other in zip(model.predict(pictures), program.predict(pictures), strict=True):
            assert (one.mask == other.mask).mean() > 0.98
    elif model.task.name == 'classification':
        for one, other in zip(model.predict(pictures), program.predict(pictures), strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=0.02)
    # Alone, together, and of equal sizes: the same.
    check_same([program.predict(each) for each in pictures], program.predict(pictures))
    check_same(program.predict(pictures[:1] * 3), [program.predict(pictures[0])] * 3)
    with pytest.raises(UserError, match=r'\(batch, height, width, 3\), got float32'):
        program.run(pictures[0][None].astype(np.float32))
    with pytest.raises(UserError, match=r'height, width, 3\), got uint8 \(1, 0, 4, 3\)'):
        program.run(np.zeros((1, 0, 4, 3), np.uint8))


def test_masks_of_large_pictures_are_smaller_than_these(small_model: Models) -> None:
    program = Program(small_model('segmentation'), size='any')
    with torch.no_grad():
        mask = program(torch.zeros(1, 600, 2 * LONGEST, 3, dtype=torch.uint8))['mask']
    assert mask.shape == (1, 300, LONGEST)
    for picture, limit, expected in (
        ((600, 2048), LONGEST, (300, 1024)),
        ((1, 5000), LONGEST, (1, 1024)),
        ((900, 1000), LONGEST, (900, 1000)),
        ((600, 2048), None, (600, 2048)),
    ):
        assert mask_size(Geometry(picture, (96, 96), None, limit)) == expected


def test_the_heads_own_outputs_come_out_too(small_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    (written,) = export(small_checkpoint('classification'), ['onnx'], out=tmp_path, size='any', raw=True)
    program = ExportedModel(written.path)
    assert program.predict(generated_pictures((50, 90), count=1)[0]).scores.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'formats': ['onnx'], 'batch': 4}, 'pictures of any size come one at a time, not 4'),
        ({'formats': ['torch']}, 'the format torch takes pictures of one size'),
    ],
)
def test_what_cannot_be_had_is_said(
    small_checkpoint: Callable[..., Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(small_checkpoint(), out=tmp_path, size='any', **options)


def test_transforms_that_keep_sizes_cannot_take_any(small_model: Models) -> None:
    model = small_model('classification', preprocess={'type': 'HorizontalFlip', 'p': 0.0})
    with pytest.raises(UserError, match='HorizontalFlip cannot be done to tensors'):
        Program(model, size='any')
