"""Values of options are checked as they are, and a wrong one is said in a sentence."""

from typing import Any

import pytest

from falconet.core.options import (
    CLASS_WEIGHTS,
    SWITCH,
    TEXT,
    check_options,
    mapping_of,
    number,
    one_of,
    sequence,
    whole,
)


@pytest.mark.parametrize(
    ('kind', 'wrong', 'message'),
    [
        (number(above=0, most=8), 9, 'x must be a number above 0 and at most 8, got 9'),
        (number(), float('nan'), 'x must be a number, got nan'),
        (number(), True, 'x must be a number, got True'),
        (number(), '1', "x must be a number, got '1'"),
        (whole(least=1), 1.0, 'x must be a whole number of at least 1, got 1.0'),
        (whole(least=1) | None, 0, 'x must be a whole number of at least 1, got 0'),
        (one_of('a', 'b'), 'c', "x must be 'a' or 'b', got 'c'"),
        (one_of(8, 16, 32), [], r'x must be one of \(8, 16, 32\), got \[\]'),
        (SWITCH, 1, 'x must be True or False, got 1'),
        (TEXT, 'a' * 5000, r"x must be a text, got 'a{79}\.\.\."),
        (sequence(whole(), 'a few numbers', most=2), (1, 2, 3), r'x must be a few numbers, got \(1, 2, 3\)'),
        (CLASS_WEIGHTS, 'ab', 'x must be a list of numbers of at least 0'),
        (mapping_of({'a': SWITCH}), {'b': 1}, "x may hold a and nothing else, not 'b'"),
        (mapping_of({'a': SWITCH}), {'a': 1}, 'x a must be True or False, got 1'),
    ],
)
def test_a_wrong_value_is_said_with_what_is_expected(kind: Any, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f'^{message}'):
        check_options({'x': kind}, {'x': wrong})


def test_right_values_and_what_has_no_type_pass() -> None:
    kinds = {'a': number(least=1), 'b': sequence(whole(), ''), 'c': CLASS_WEIGHTS, 'd': one_of(1, None)}
    check_options(kinds, {'a': 1, 'b': (1, 2), 'c': None, 'd': None, 'else': object()})
    check_options({**kinds, 'absent': SWITCH}, {'a': 1.5, 'b': [], 'c': [0, 1.5], 'd': 1})
    check_options(None, {'a': object()})
