"""The error of everything a user can do wrong, and what a command line does with it."""

import difflib
import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

LONGEST_NAME = 200  # letters of a path in a message


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


def closest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return a sentence with the names most like `name`, or with all of them when few."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    near = [folded[key] for key in difflib.get_close_matches(name.lower(), folded, limit, 0.5)]
    if near:
        return f'Did you mean {" or ".join(near)}?'
    return f'Known: {", ".join(known)}.'


def run_command(command: Callable[[], None]) -> NoReturn:
    """Run a command line and leave with its exit code: 0 done, 2 bad usage or input, 128 + n signal n.

    `FALCONET_DEBUG=1` in the environment shows the traceback of a `UserError` as well.
    """
    code = _exit_code(command)
    _close_process_groups()
    sys.exit(code)


def _exit_code(command: Callable[[], None]) -> int:
    try:
        _refuse_other_checkout()
        _refuse_empty(sys.argv[1:])
        command()
    except UserError as error:
        if os.environ.get('FALCONET_DEBUG'):
            raise
        sys.stdout.flush()
        print(f'error: {error}', file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f'\n{stop}', file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has enough; Python would flush into it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError) as error:
        if os.environ.get('FALCONET_DEBUG'):
            raise
        print(f'error: {_of_the_machine(error)}', file=sys.stderr)
        return 2
    return 0


def _of_the_machine(error: OSError | MemoryError) -> str:
    """Return a message for what no code expected of a disk, a name or the memory."""
    if isinstance(error, MemoryError):
        return f'not enough memory ({error or "no more is said"}): take less at a time, or smaller pictures'
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ''
    where = name if len(name) <= LONGEST_NAME else f'{name[:LONGEST_NAME]}...'
    return (
        f'{where or "a file"} cannot be used: {error.strerror or error}. Is the name right, is there room, '
        'and may one read and write there? FALCONET_DEBUG=1 shows where it happened'
    )


def _refuse_other_checkout() -> None:
    """Raise UserError where a checkout's tool would run the code of another one that is installed."""
    tool = getattr(sys.modules['__main__'], '__file__', None)
    own = Path(tool or '').resolve().parent.parent / 'falconet'
    used = Path(__file__).resolve().parents[1] / 'falconet'  # of a wheel there is none
    if (own / '__init__.py').is_file() and own != used:
        raise UserError(
            f'{tool} would run the code in {used.parent}, which is installed, not its own: use the command '
            f'falconet, or install {own.parent} (pip install -e)'
        )


def _refuse_empty(arguments: list[str]) -> None:
    """Raise UserError for an option without a value: what a shell makes of a variable that is not set."""
    for option, value in itertools.zip_longest(arguments, arguments[1:]):
        name, equals, given = option.partition('=')
        if name.startswith('--') and ((value == '' and not equals) or (equals and not given)):
            raise UserError(f'{name} is empty: name what it should be, or leave it out')


def _close_process_groups() -> None:
    """End the threads of torch's process groups; they abort a process that ends around them.

    A thread of gloo's may still hold the last tensor it sent. To give it up it needs the interpreter, and if
    that is closing, C++ calls it "terminate called without an active exception" (SIGABRT). The threads are
    joined when a group's last reference goes; the command's frames are gone by now, circles are not.
    """
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()
