"""Plans written into `.tflite` files: the same answers in LiteRT, in the planned bytes."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falconet.core.errors import UserError
from falconet.deploy.description import read_description
from falconet.deploy.engines import ExportedModel
from falconet.deploy.export import CARD, describe, description_for, export
from falconet.deploy.formats import FORMATS, trace
from falconet.deploy.memory.flatbuffer import File, arena_of
from falconet.deploy.memory.program import fitted, search_for
from falconet.deploy.memory.rewrite import rewrite
from falconet.deploy.parity import differences, generated_pictures, too_large
from falconet.deploy.program import Program
from falconet.tasks.model import VisionModel

NEEDED = {*FORMATS['litert'].needs, *(FORMATS['litert'].int8 or ())}
MISSING = [each for each in NEEDED if importlib.util.find_spec(each) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f'{MISSING} not installed; make test-export does'),
    pytest.mark.filterwarnings('ignore'),  # of the converter
]
TASKS = ('classification', 'detection', 'segmentation')
FLOAT32, INT8, FULLY_CONNECTED = 0, 9, 9  # of schema.fbs: TensorType twice, BuiltinOperator
PICTURES = generated_pictures((96, 96), count=3, seed=5)


@pytest.fixture(scope='module')
def kept() -> dict[tuple[str, str, bool], tuple[VisionModel, Path]]:
    """What `written` made."""
    return {}


@pytest.fixture
def written(
    kept: dict[tuple[str, str, bool], tuple[VisionModel, Path]],
    small_model: Callable[..., VisionModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[VisionModel, Path]]:
    """Return a small model and its file without a plan, ending at the head's outputs."""

    def get(task: str, padding: str = 'symmetric', *, int8: bool = False) -> tuple[VisionModel, Path]:
        key = (task, padding, int8)
        if key not in kept:
            model, folder = small_model(task, padding), tmp_path_factory.mktemp('_'.join(map(str, key)))
            program, form = Program(model, raw=True), FORMATS['litert']
            (folder / 'best.pth').write_bytes(b'')
            content = {'config': {}, 'versions': {}, 'metrics': {}}
            about = describe(program, model, content, folder / 'best.pth', batch=None)
            about = description_for(about, batch=None, fixed=True)
            traced = trace(program, about.model_dump_json(), batch=1)
            path, module = folder / 'plain.tflite', form.module(writing=True)
            if int8:
                module.write_int8(traced, path, [each[None] for each in PICTURES], all_maps=True)
            else:
                module.write(traced, path)
            kept[key] = (model, path)
        return kept[key]

    return get


def answers(content: bytes, path: Path) -> list[dict[str, np.ndarray]]:
    path.write_bytes(content)
    program = ExportedModel(path)
    return [program.run(each[None]) for each in PICTURES]


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize('task', TASKS)
def test_float32_answers_stay_within_rounding(written: Any, task: str, padding: str, tmp_path: Path) -> None:
    model, path = written(task, padding)
    before = path.read_bytes()
    budget = int(0.3 * arena_of(before).size)
    after, plan, arena = fitted(before, model, budget, int8=False, raw=True)
    assert plan.needs <= arena == arena_of(after).size <= budget
    for one, other in zip(*(answers(each, tmp_path / 'a.tflite') for each in (before, after)), strict=True):
        assert not too_large(differences(one, other, task=None))
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=1e-4 * max(1, np.abs(one[name]).max()))


@pytest.mark.parametrize('task', TASKS)
def test_int8_answers_stay_the_same_to_the_bit_in_a_third_of_the_arena(
    written: Any, task: str, tmp_path: Path
) -> None:
    model, path = written(task, int8=True)
    before = path.read_bytes()
    after, plan, arena = fitted(before, model, arena_of(before).size // 3, int8=True, raw=True)
    assert plan.extra < 0.3
    assert arena_of(after).size == arena
    one, other = (answers(each, tmp_path / 'a.tflite') for each in (before, after))
    for first, second in zip(one, other, strict=True):
        for name in first:
            np.testing.assert_array_equal(second[name], first[name], err_msg=name)


@pytest.mark.parametrize('task', TASKS)
def test_with_a_budget_only_a_vector_is_read_in_float32(written: Any, task: str) -> None:
    """What the last layers read is the largest of all in float32: four times the bytes of the map in INT8."""
    _, path = written(task, int8=True)
    file = File(path.read_bytes())
    maps = [file.tensor(each.inputs[0]) for each in file.convolutions()]
    assert {each.type for each in maps if [*each.shape[1:3]] != [1, 1]} == {INT8}
    products = [each for each in file.graph.operators if file.kind(each) == FULLY_CONNECTED]
    assert {file.tensor(each.inputs[0]).type for each in products} <= {FLOAT32}
    assert len(products) == (task == 'classification')
    outputs = {file.tensor(each).type for each in file.graph.outputs}
    assert outputs == {FLOAT32}


def test_slices_too_are_written_into_a_file(written: Any, tmp_path: Path) -> None:
    model, path = written('classification')
    before = path.read_bytes()
    search = search_for(model, int8=False)
    plan = min(
        (found for budget in range(150_000, 800_000, 25_000) if (found := search.cheapest(budget))),
        key=lambda each: -sum(count > 1 for segment in each.segments for count in segment.slices),
    )
    assert any(count > 1 for segment in plan.segments for count in segment.slices)
    after = rewrite(before, search.units, plan)
    assert arena_of(after).size < arena_of(before).size
    for one, other in zip(*(answers(each, tmp_path / 'a.tflite') for each in (before, after)), strict=True):
        np.testing.assert_allclose(other['outputs'], one['outputs'], atol=1e-4)


def test_too_little_for_the_backbone_names_the_least(written: Any) -> None:
    model, path = written('classification')
    with pytest.raises(UserError, match=r'50\.0 kB are too few .* in 32 bits\. The least is .* patches'):
        fitted(path.read_bytes(), model, 50_000, int8=False, raw=True)


def test_the_file_of_another_network_is_refused(
    written: Any, small_model: Callable[..., VisionModel]
) -> None:
    _, path = written('classification')
    wider = small_model('classification', backbone={'type': 'MobileNetV2', 'width': 0.5})
    with pytest.raises(UserError, match='it is the program of another checkpoint'):
        fitted(path.read_bytes(), wider, 400_000, int8=False)


def test_a_file_with_too_few_convolutions_is_refused(written: Any) -> None:
    model, path = written('classification')
    file = File(path.read_bytes())
    last = file.convolutions()[-1]
    file.graph.operators = file.graph.operators[: file.graph.operators.index(last)]
    file.graph.outputs = [int(last.inputs[0])]
    file.model.signatureDefs = None
    search = search_for(model, int8=False)
    with pytest.raises(UserError, match='the file has 51 convolutions, the network 52'):
        rewrite(file.pack(), search.units, search.fitting(400_000))  # type: ignore[arg-type]  # there is one


def test_the_file_and_the_card_say_the_plan_and_the_arena(
    small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = small_checkpoint('segmentation')
    (found,) = export(checkpoint, ['litert'], out=tmp_path / 'out', memory=450_000, raw=True)
    content = found.path.read_bytes()
    program = ExportedModel(found.path)
    facts = program.description.memory
    assert facts is not None
    assert facts['planned'] <= facts['arena'] == arena_of(content).size <= facts['asked'] == 450_000
    entries = [each.name.decode() for each in File(content).model.metadata]
    assert entries.count('falconet') == 1
    assert read_description(FORMATS['litert'].module().read(found.path), found.path) == program.description
    text = (tmp_path / 'out' / CARD).read_text()
    assert f'All tensors of the file fit into {facts["arena"]:,} bytes.' in text
