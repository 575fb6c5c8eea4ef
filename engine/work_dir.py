"""The folder of a run: one run at a time, and nobody else's files replaced."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.dist import is_main_process

from falconet.core.errors import UserError
from falconet.core.owned_files import check_writable
from falconet.engine.hooks.saving import BEST, LAST

LOCK, OWNER = '.lock', '.lock.owner'
REPORT = 'report.html'


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other trainings out of it until this block is left or the process ends.

    Raises:
        UserError: it cannot be made, or another process trains into it.
    """
    if not is_main_process():
        yield
        return
    is_new = not folder.exists()
    make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        owner = folder / OWNER
        name = owner.read_text(encoding='utf-8') if owner.is_file() else 'another process'
        raise UserError(
            f'{folder} is being trained into by {name}: wait for it, stop it, or give another --work-dir'
        ) from error
    except OSError as error:
        raise UserError(f'cannot write to {folder}: {error}') from error
    try:
        (folder / OWNER).write_text(f'process {os.getpid()} on {socket.gethostname()}', encoding='utf-8')
        for name in (LAST, BEST):  # of a run that was killed while it wrote
            for leftover in folder.glob(f'.{name}.*.tmp'):
                leftover.unlink(missing_ok=True)
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()
        if is_new and {each.name for each in folder.iterdir()} <= {LOCK}:  # the run never began
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def checkpoint_to_resume(folder: Path, resume: str | bool) -> Path | None:
    """Return the checkpoint to go on from, None to begin; UserError where that would replace a run."""
    last, best = folder / LAST, folder / BEST
    if isinstance(resume, str):
        if last.exists() and last.resolve() != Path(resume).resolve():
            raise UserError(f'{folder} already holds another run than {resume}: give another --work-dir')
        return Path(resume)
    if resume and last.exists():
        return last
    if last.exists():
        raise UserError(
            f'{folder} already holds a run. Go on with --resume, or give another --work-dir, or delete it.'
        )
    if best.exists():
        raise UserError(
            f'{best} would be replaced, and there is no {LAST} to go on from: move it, or give another '
            '--work-dir'
        )
    return None


def check_run_files(folder: Path, config_file: str | None, reports: Sequence[str]) -> None:
    """Raise UserError if a new run would replace a file it did not make, its own config above all."""
    names = ['metrics.json', REPORT, *reports]
    if config_file is not None:
        name = Path(config_file).name
        if (folder / name).resolve() == Path(config_file).resolve():
            raise UserError(f'{folder} is the folder of {name} itself: give another --work-dir')
        names.append(name)
    check_writable([folder / name for name in names], overwrite=False, hint='Give another --work-dir')


def make_folder(folder: Path) -> None:
    """Make a folder, or raise UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder {folder}: {error}') from error
