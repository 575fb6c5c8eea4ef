"""What goes together with an amount of memory, and what does not."""

import pytest

from falconet.core.errors import UserError
from falconet.deploy.memory.options import formats_of_memory


@pytest.mark.parametrize('batch', [None, 1])
def test_litert_gets_its_plan_in_the_file(batch: int | None) -> None:
    assert formats_of_memory(['litert'], size=None, batch=batch) == 'litert'


@pytest.mark.parametrize('batch', [None, 1, 4])
def test_other_formats_get_theirs_in_the_trace(batch: int | None) -> None:
    assert formats_of_memory(['onnx', 'torch'], size=None, batch=batch) is None


@pytest.mark.parametrize('size', ['any', (224, 224)])
def test_pictures_are_those_of_the_transforms(size: object) -> None:
    with pytest.raises(UserError, match='leave --size out, or --memory'):
        formats_of_memory(['onnx'], size=size, batch=None)


def test_litert_is_exported_by_itself() -> None:
    with pytest.raises(UserError, match=r'got onnx, litert: export litert by itself'):
        formats_of_memory(['onnx', 'litert'], size=None, batch=None)


def test_litert_takes_one_picture_at_a_time() -> None:
    with pytest.raises(UserError, match='one picture at a time, not 2: leave --batch out'):
        formats_of_memory(['litert'], size=None, batch=2)
