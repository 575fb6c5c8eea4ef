"""The formats of phones: what they hold is what the checkpoint says, for all tasks and both paddings."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from falconet import load_model
from falconet.core.errors import UserError
from falconet.deploy.export import export
from falconet.deploy.formats import FORMATS
from falconet.deploy.parity import differences, expected_answer, generated_pictures, too_large
from falconet.deploy.plain_operators import suppress_plainly
from falconet.deploy.program import Program
from falconet.heads.nms_op import suppress_batch
from falconet.tasks.model import VisionModel


def needs(name: str) -> pytest.MarkDecorator:
    missing = [each for each in FORMATS[name].needs if importlib.util.find_spec(each) is None]
    return pytest.mark.skipif(bool(missing), reason=f'{missing} not installed; make test-export does')


PHONES = [pytest.param(name, marks=needs(name)) for name in ('litert', 'executorch')]
TASKS = ('classification', 'detection', 'segmentation')


@pytest.mark.filterwarnings('ignore')  # of the converters
@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('name', PHONES)
def test_a_file_says_what_the_checkpoint_says(
    name: str,
    task: str,
    padding: str,
    small_model: Callable[..., VisionModel],
    tmp_path: Path,
    small_checkpoint: Callable[..., Path],
) -> None:
    backbone = small_model(task, padding).spec['backbone']
    checkpoint = small_checkpoint(task, backbone=backbone)
    (written,) = export(checkpoint, [name], out=tmp_path / 'out')
    program = load_model(written.path)
    model = load_model(checkpoint)
    pictures = generated_pictures(program.description.picture, count=3, seed=5)
    expected = expected_answer(model, Program(model), pictures)
    assert not too_large(differences(expected, program.run(pictures), task=task))
    one, two = (each.predict(pictures[0]) for each in (model, program))
    assert type(one) is type(two)
    assert program.classes == model.classes


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', PHONES)
def test_a_file_cut_in_half_is_refused(
    name: str, small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    (written,) = export(small_checkpoint(), [name], out=tmp_path / 'out')
    content = written.path.read_bytes()
    written.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='damaged'):
        load_model(written.path)


@pytest.mark.parametrize('name', ['litert', 'executorch'])
def test_what_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(UserError, match=rf'not installed here: pip install .*\[{name}\]'):
        FORMATS[name].module(writing=True)


@pytest.mark.parametrize('classes', [1, 3])
def test_plain_suppression_is_the_operator(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    corners = torch.rand(2, 200, 2, generator=generator)
    boxes = torch.cat([corners, corners + 0.05 + 0.4 * torch.rand(2, 200, 2, generator=generator)], dim=2)
    scores = torch.rand(2, 200, classes, generator=generator).pow(3)
    scores[1] *= 0.052  # of the second picture few are above the threshold
    options = {'score_threshold': 0.05, 'iou_threshold': 0.5, 'per_class': 30, 'limit': 30}
    expected = suppress_batch(boxes, scores, **options)
    found = suppress_plainly(boxes, scores, *options.values())
    assert 0 < int(expected['count'][1]) < options['limit'] == int(expected['count'][0])
    for name, each in zip(('boxes', 'scores', 'labels', 'count'), found, strict=True):
        np.testing.assert_allclose(each.numpy(), expected[name].numpy(), atol=1e-6, err_msg=name)


def test_plain_suppression_says_where_it_cannot_count() -> None:
    with pytest.raises(ValueError, match='per_class=5 is below limit=10'):
        suppress_plainly(torch.rand(1, 20, 4), torch.rand(1, 20, 2), 0.1, 0.5, 5, 10)
