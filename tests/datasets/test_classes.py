"""Class lists: what differs between two is said so that it can be mended."""

from pathlib import Path

import pytest

from falconet.core.errors import UserError
from falconet.datasets.classes import match_classes, read_classes, write_classes


@pytest.mark.parametrize(
    ('found', 'message'),
    [
        (
            ['cat', 'Dgo', 'eel'],
            r'/data/a has 3 classes, the model 2\. Only in a: Dgo, eel\. Only in the model: dog\.',
        ),
        (['cat', 'Dgo'], r'Is Dgo meant to be dog\? Look there\.$'),
        (['cat'], r'has 1 classes, the model 2\. Only in a: none\. Only in the model: dog\. Look'),
        (['dog', 'cat'], 'The names agree, their order does not: dog, cat and cat, dog'),
        (['cat', 'dog', 'dog'], r'has 3 classes, the model 2\. Look'),
    ],
)
def test_what_differs_between_two_lists_is_said(found: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        match_classes(found, ('cat', 'dog'), source='/data/a', hint='Look there.')


def test_names_come_back_in_the_expected_order() -> None:
    assert match_classes(['b', 'a'], ['a', 'b'], source='x', ordered=False) == ('a', 'b')
    assert match_classes(['b', 'a'], ['b', 'a'], source='x') == ('b', 'a')
    assert match_classes(['b', 'a'], None, source='x') == ('b', 'a')


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    names = ('background', 'dining table', 'chaise longue à dossier')
    write_classes(tmp_path / 'classes.txt', names)
    assert read_classes(tmp_path / 'classes.txt') == names


@pytest.mark.parametrize('start', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('end', [b'\n', b'\r\n', b'\r'])
def test_line_ends_and_byte_order_marks_are_no_part_of_a_name(
    tmp_path: Path, start: bytes, end: bytes
) -> None:
    (tmp_path / 'x.txt').write_bytes(start + end.join(['chaise à dossier'.encode(), b'', b'dog ', b'']))
    assert read_classes(tmp_path / 'x.txt') == ('chaise à dossier', 'dog')


@pytest.mark.parametrize('content', ['café'.encode('latin-1'), 'cat\ndog'.encode('utf-16')])
def test_a_list_that_is_no_utf_8_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'x.txt').write_bytes(content)
    with pytest.raises(
        UserError, match=r'x\.txt: expected class names in UTF-8, byte \d is none .* as UTF-8'
    ):
        read_classes(tmp_path / 'x.txt')
