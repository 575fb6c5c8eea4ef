"""What can be asked for together with an amount of memory."""

from collections.abc import Sequence

from falconet.core.errors import UserError

LITERT = 'litert'


def formats_of_memory(formats: Sequence[str], *, size: object, batch: int | None) -> str | None:
    """Check the options beside --memory; return 'litert' where the plan is written into the file itself.

    Raises:
        UserError: they do not go together.
    """
    if size is not None:
        raise UserError(
            '--memory plans for pictures as the transforms make them, which must be of one size: leave '
            '--size out, or --memory'
        )
    if LITERT not in formats:
        return None
    if len({*formats}) > 1:
        raise UserError(
            f'--memory writes its plan into litert files and traces it for others, got {", ".join(formats)}: '
            'export litert by itself'
        )
    if batch not in (None, 1):
        raise UserError(
            f'--memory plans litert files for one picture at a time, not {batch}: leave --batch out'
        )
    return LITERT
