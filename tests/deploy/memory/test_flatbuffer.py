"""`.tflite` files opened, changed and closed again: LiteRT runs what comes out, in the bytes said before."""

from typing import Any

import numpy as np
import pytest

from falconet.deploy.memory.flatbuffer import TRANSPOSE, File, arena_of

SHAPE = (1, 6, 5, 3)
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=4).astype(np.float32)
PICTURE = RANDOM.normal(size=SHAPE).astype(np.float32)


def interpreter_of(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-not-found]

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = Interpreter(model_content=content, experimental_op_resolver_type=plain, num_threads=1)
    found.allocate_tensors()
    return found


def answer(content: bytes, picture: np.ndarray = PICTURE) -> np.ndarray:
    interpreter = interpreter_of(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]['index'], picture)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]['index'])


def arena_of_litert(content: bytes) -> int:
    """Return the bytes from the first to the last of all tensors that are not constant."""
    interpreter, file, spans = interpreter_of(content), File(content), []
    for number in range(len(file.graph.tensors)):
        if not file.is_constant(number):
            values = interpreter.tensor(number)()
            start = values.__array_interface__['data'][0]
            spans += [start, start + values.nbytes]
    return max(spans) - min(spans)


@pytest.fixture
def graph(small: Any) -> Any:
    """A convolution and an addition of its output to itself."""
    made = small(SHAPE)
    made.convolve((1, 6, 5, 4), WEIGHT, BIAS)
    made.add(0, 'Add', (1, 6, 5, 4), made.last)
    return made


def test_a_file_that_nobody_changed_answers_as_before(graph: Any) -> None:
    content = graph.pack()
    np.testing.assert_array_equal(answer(File(content).pack()), answer(content))


def test_values_behind_the_flatbuffer_come_into_it(graph: Any) -> None:
    """Files above 2 GB, and all of ai-edge-quantizer's, hold an offset and a size where values would be."""
    expected = answer(graph.pack())
    buffer = graph.model.buffers[1]
    values, buffer.data = bytes(buffer.data), None
    assert len(values) == WEIGHT.nbytes
    buffer.offset, buffer.size = 10**6, len(values)
    buffer.offset = -(-len(graph.pack()) // 16) * 16
    content = graph.pack()
    content += bytes(buffer.offset - len(content)) + values
    np.testing.assert_array_equal(File(content).values(1), WEIGHT)
    np.testing.assert_array_equal(answer(File(content).pack()), expected)


def test_a_constant_is_cut_with_its_scales_and_turned(graph: Any) -> None:
    scales = graph.schema.QuantizationParametersT()
    scales.scale, scales.zeroPoint = np.arange(1, 5, dtype=np.float32), np.zeros(4, np.int64)
    graph.graph.tensors[1].quantization = scales
    file = File(graph.pack())
    cut = file.changed(1, cut=(0, 1, 3))
    np.testing.assert_array_equal(file.values(cut), WEIGHT[1:3])
    assert [*file.tensor(cut).quantization.scale] == [2, 3]
    assert [*file.tensor(1).quantization.scale] == [1, 2, 3, 4]
    other = file.changed(1, cut=(3, 0, 2))  # the inputs, which have no scales of their own
    np.testing.assert_array_equal(file.values(other), WEIGHT[..., :2])
    assert [*file.tensor(other).quantization.scale] == [1, 2, 3, 4]
    np.testing.assert_array_equal(file.values(file.changed(1, turned=(1, 2))), WEIGHT[:, ::-1, ::-1])
    assert not file.values(file.changed(2, zero=True)).any()


def test_a_turned_kernel_is_what_the_file_then_computes_with(graph: Any) -> None:
    content = graph.pack()
    file = File(content)
    (convolution,) = file.convolutions()
    convolution.inputs = [0, file.changed(1, turned=(1, 2)), 2]
    turned = file.pack()
    assert not np.allclose(answer(turned), answer(content))
    found = answer(turned, PICTURE[:, ::-1, ::-1].copy())
    np.testing.assert_allclose(found[:, ::-1, ::-1], answer(content), atol=1e-5)


def test_what_nothing_reads_leaves_the_file(graph: Any) -> None:
    content = graph.pack()
    file = File(content)
    for _ in range(20):
        file.changed(1, zero=True)
    packed = File(content)
    assert len(file.pack()) < len(packed.pack()) + 20 * WEIGHT.nbytes / 4
    assert len(File(file.pack()).graph.tensors) == len(packed.graph.tensors)


def test_equal_numbers_are_held_once(graph: Any) -> None:
    file = File(graph.pack())
    assert file.numbers([1, 2]) == file.numbers([1, 2])
    assert file.numbers([1, 2, 3, 4]) != file.numbers([1, 2, 3, 4], shape=(2, 2))
    assert file.values(file.numbers([1, 2, 3, 4], shape=(2, 2))).tolist() == [[1, 2], [3, 4]]


def test_no_tensor_is_a_constant_and_an_input_is_none(graph: Any) -> None:
    file = File(graph.pack())
    assert [file.is_constant(each) for each in (-1, 0, 1, 2, 3)] == [True, False, True, True, False]


@pytest.mark.parametrize(('back', 'left'), [([0, 2, 3, 1], 1), ([0, 3, 1, 2], 3)])
def test_transpositions_that_undo_each_other_go(small: Any, back: list[int], left: int) -> None:
    made = small(SHAPE)
    there = [0, 3, 1, 2]
    made.add(TRANSPOSE, 'Transpose', [SHAPE[each] for each in there], np.array(there, np.int32))
    shape = [[SHAPE[each] for each in there][each] for each in back]
    made.add(TRANSPOSE, 'Transpose', shape, np.array(back, np.int32))
    made.add(0, 'Add', shape, made.last)
    content = made.pack()
    file = File(content)
    file.simplify()
    assert len(file.graph.operators) == left
    np.testing.assert_array_equal(answer(file.pack()), answer(content))


def test_the_arena_is_litert_s_to_the_byte(small: Any) -> None:
    """Maps of several sizes, one of which waits for the end."""
    made = small(SHAPE)
    first = made.convolve((1, 6, 5, 4), WEIGHT, BIAS)
    for channels in (24, 8, 16, 4):
        given = made.graph.tensors[made.last].shape[-1]
        weight = RANDOM.normal(size=(channels, 1, 1, given)).astype(np.float32)
        made.convolve((1, 6, 5, channels), weight, np.zeros(channels, np.float32))
    made.add(0, 'Add', (1, 6, 5, 4), first)
    content = made.pack()
    found = arena_of(content)
    assert found.size == arena_of_litert(content)
    cells = 4 * 6 * 5
    assert found.alive == cells * (3 + 4 + 24 + 8 + 0) == found.rest
    assert arena_of(content, holds_input=False).alive == cells * (4 + 24 + 8)
