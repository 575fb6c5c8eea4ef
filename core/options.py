"""What an option may be: its type and its range, and the sentence about a value that is neither.

Backbones and heads describe their options with these, configs and checkpoints are described by them as well.
pydantic does the checking; nothing is converted: '3' is no 3, and True is no number.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

SHOWN = 80  # characters of a wrong value in a message


def stated(kind: Any, text: str) -> Any:
    """Return the type `kind` whose values 'must be {text}'."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise PydanticCustomError('stated', 'must be {text}', {'text': text}) from error

    return Annotated[kind, WrapValidator(check)]


def _bounds(**bounds: float | None) -> str:
    words = {'above': 'above', 'least': 'of at least', 'below': 'below', 'most': 'at most'}
    given = [f'{words[key]} {value}' for key, value in bounds.items() if value is not None]
    return ''.join(f' {each}' if place == 0 else f' and {each}' for place, each in enumerate(given))


def number(
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Any:
    """A finite number within these bounds."""
    field = Field(gt=above, ge=least, lt=below, le=most, allow_inf_nan=False, strict=True)
    return stated(
        Annotated[float, field], 'a number' + _bounds(above=above, least=least, below=below, most=most)
    )


def whole(*, least: int | None = None, most: int | None = None) -> Any:
    """A whole number within these bounds."""
    field = Field(ge=least, le=most, strict=True)
    return stated(Annotated[int, field], 'a whole number' + _bounds(least=least, most=most))


def one_of(*values: Any) -> Any:
    """One of these values."""
    text = f'{values[0]!r} or {values[1]!r}' if len(values) == 2 else f'one of {values}'
    return stated(Literal[values], text)


def sequence(of: Any, text: str, *, least: int = 0, most: int | None = None) -> Any:
    """A list or tuple of so many `of`."""
    field = Field(min_length=least, max_length=most)
    as_list: Any = Annotated[list[of], field]
    return stated(as_list | Annotated[tuple[of, ...], field], text)


SWITCH = stated(Annotated[bool, Field(strict=True)], 'True or False')
TEXT = stated(Annotated[str, Field(strict=True, max_length=4096)], 'a text')
SHARE = number(least=0, most=1)
CLASS_WEIGHTS = sequence(number(least=0), 'a list of numbers of at least 0, one a class') | None
MAPPING = stated(Mapping[str, Any], 'dict(...)')
NORM_OPTIONS = {'norm_eps': number(above=0, most=1), 'norm_momentum': SHARE}


def mapping_of(values: Mapping[str, Any]) -> Any:
    """A dict with these options, each of its type, and no others."""

    def check(given: Mapping[str, Any]) -> Mapping[str, Any]:
        if unknown := [key for key in given if key not in values]:
            raise ValueError(f'may hold {", ".join(values)} and nothing else, not {unknown[0]!r}')
        check_options(values, given)
        return given

    return Annotated[MAPPING, AfterValidator(check)]


def check_options(values: Mapping[str, Any] | None, given: Mapping[str, Any]) -> None:
    """Raise ValueError for the first of the given options that is not what `values` says it must be.

    Args:
        values: the type of each option, made of the functions above.
        given: options by name, for example `locals()` at the beginning of a constructor; those without a
            type are left alone.
    """
    for name, kind in (values or {}).items():
        if name in given:
            try:
                TypeAdapter(kind).validate_python(given[name], strict=True)
            except ValidationError as error:
                raise ValueError(
                    sentence(error.errors(include_url=False)[0], name=name, got=given[name])
                ) from None


def sentence(problem: Mapping[str, Any], *, name: str, got: Any = None) -> str:
    """Return 'width must be a number above 0, got -1' for one of pydantic's errors."""
    said = problem['msg']
    if problem['type'] != 'stated':
        said = said.replace('Input should', 'must', 1).removeprefix('Value error, ')
    shown = repr(problem['input'] if got is None else got)
    return f'{name} {said}, got {shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."}'
