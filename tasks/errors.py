"""The error of everything a user can do wrong, and what a command line does with it."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn


class UserError(Exception):
    """Bad usage or bad input: the message says what was got, what was expected, and the fix."""


class Interrupted(Exception):  # noqa: N818 (a request obeyed, not an error)
    """Training was asked to stop (Ctrl-C or SIGTERM) and has saved its state.

    Attributes:
        signal_number: the signal that asked.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def listing(items: Iterable[object], limit: int = 5) -> str:
    """Return the first few items for a message, and dots where there are more."""
    shown = [str(item) for item in items]
    return ', '.join(shown[:limit]) + (', ...' if len(shown) > limit else '')


def run_command(command: Callable[[], None]) -> NoReturn:
    """Run a command line and leave with its exit code: 0 done, 2 bad usage or input, 128 + n signal n.

    `KESTREL_DEBUG=1` in the environment shows the traceback of a `UserError` as well.
    """
    try:
        command()
    except UserError as error:
        if os.environ.get('KESTREL_DEBUG'):
            raise
        sys.stdout.flush()
        print(f'error: {error}', file=sys.stderr)
        _leave(2)
    except Interrupted as stop:
        print(f'\n{stop}', file=sys.stderr)
        _leave(128 + stop.signal_number)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        _leave(130)
    _leave(0)


def _leave(code: int) -> NoReturn:
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    sys.exit(code)
