"""Programs within an amount of memory answer as the model does, and say how they keep to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from falconet.core.errors import UserError
from falconet.deploy.description import read_description
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import CARD, export
from falconet.deploy.memory import program as programs
from falconet.deploy.memory.flatbuffer import Arena
from falconet.deploy.memory.program import fitted, planned_program, search_for
from falconet.deploy.parity import differences, expected_answer, generated_pictures, relative, too_large
from falconet.deploy.program import Program
from falconet.tasks.model import VisionModel

# The search takes less time the smaller the picture.
SMALL = {'type': 'ResizeCenterCrop', 'resize': 48, 'crop': 48}


@pytest.mark.parametrize(
    ('task', 'padding'),
    [('classification', 'symmetric'), ('detection', 'same'), ('segmentation', 'symmetric')],
    ids=['symmetric', 'an expanded map', 'dilated stages'],
)
def test_every_task_is_answered_within_the_memory(
    task: str, padding: str, small_model: Callable[..., VisionModel]
) -> None:
    model = small_model(task, padding)
    budget = 400_000
    program = planned_program(model, budget, raw=True)
    plan = program.plan
    assert plan is not None
    assert plan.needs <= budget < plan.plain_arena
    pictures = generated_pictures(program.picture or (0, 0), count=2, seed=3)
    expected = expected_answer(model, Program(model, raw=True), pictures)
    with torch.no_grad():
        found = {name: each.numpy() for name, each in program(torch.from_numpy(pictures)).items()}
    assert not too_large(differences(expected, found, task=None))


def test_a_budget_is_shared_by_the_pictures_of_a_batch(small_model: Callable[..., VisionModel]) -> None:
    model = small_model('classification', preprocess=SMALL)
    program = planned_program(model, 3 * 150_000, batch=3, raw=True)
    assert program.plan is not None
    assert program.plan.needs <= 150_000 < program.plan.plain_arena
    pictures = generated_pictures((48, 48), count=3, seed=3)
    with torch.no_grad():
        found = program(torch.from_numpy(pictures))['outputs'].numpy()
    expected = expected_answer(model, Program(model, raw=True), pictures)['outputs']
    assert relative(expected, found) < 1e-4


def test_too_little_memory_names_the_least_which_is_enough(small_model: Callable[..., VisionModel]) -> None:
    model = small_model('classification', preprocess=SMALL)
    search = search_for(model, int8=False)
    least = search.fitting_least()
    message = r'5\.0 kB for each of 4 pictures are too few .* at 48x48 in 32 bits\. The least is'
    with pytest.raises(UserError, match=message) as caught:
        planned_program(model, 20_000, batch=4)
    assert f'The least is {least.describe()}' in str(caught.value)
    found = search.fitting(least.needs)
    assert found is not None
    assert found.needs <= least.needs


def test_another_backbone_is_refused_by_name(small_model: Callable[..., VisionModel]) -> None:
    backbone = {'type': 'TimmBackbone', 'model': 'mobilenetv2_035'}
    model = small_model('classification', backbone=backbone)
    with pytest.raises(UserError, match='for MobileNetV2, got the backbone TimmBackbone: leave --memory out'):
        planned_program(model, 300_000)


def test_int8_is_never_sliced(small_model: Callable[..., VisionModel]) -> None:
    search = search_for(small_model('classification', preprocess=SMALL), int8=True)
    plan = search.least()
    assert plan.rules.value_bytes == 1
    assert {count for each in plan.segments for count in each.slices} == {1}
    assert max(each.patches for each in plan.segments) > 1


def test_the_card_and_the_file_say_the_plan(small_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = small_checkpoint(preprocess=SMALL)
    (written,) = export(checkpoint, ['torch'], out=tmp_path / 'out', memory=120_000)
    facts = ExportedModel(written.path).description.memory
    assert facts is not None
    assert facts['asked'] == 120_000 >= facts['planned']
    card = (tmp_path / 'out' / CARD).read_text()
    assert (
        f'Asked for: 120,000 bytes of activations for a picture. The backbone takes {facts["planned"]:,} '
        in card
    )
    assert f'instead of {facts["plain"]:,}, with ' in card
    cut = [each for each in facts['segments'] if each['grid'] != [1, 1] or max(each['slices']) > 1]
    assert cut
    for each in cut:
        (first, last), (rows, columns), slices = each['layers'], each['grid'], each['slices']
        text = ', '.join(map(str, slices))
        assert f'| `features[{first}]` to `[{last}]` | {rows} x {columns} | {text} |' in card
    assert [each['layers'][0] for each in facts['segments'][1:]] == [
        each['layers'][1] + 1 for each in facts['segments'][:-1]
    ]


def test_files_without_a_plan_say_nothing_of_memory_nor_do_older_ones(
    small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    (written,) = export(small_checkpoint(), ['torch'], out=tmp_path / 'out')
    description = ExportedModel(written.path).description
    assert description.memory is None
    assert '## Memory' not in (tmp_path / 'out' / CARD).read_text()
    older = description.model_dump_json(exclude={'memory'})
    assert read_description(older, written.path) == description


@pytest.mark.parametrize(
    ('arena', 'message'),
    [
        (
            Arena(900_000, 800_000, 700_000),
            r'what follows the backbone \(the head and its decoding\) needs 700\.0 kB by',
        ),
        (
            Arena(600_000, 500_000, 200_000),
            r'300\.0 kB are too few for this network at 48x48 .* The least is',
        ),
    ],
    ids=['head', 'backbone'],
)
def test_a_file_that_stays_too_large_says_what_of_it_is(
    arena: Arena, message: str, small_model: Callable[..., VisionModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, 'rewrite', lambda content, *_: content)
    monkeypatch.setattr(programs, 'arena_of', lambda _: arena)
    with pytest.raises(UserError, match=message):
        fitted(b'', small_model('classification', preprocess=SMALL), 300_000, int8=True)
