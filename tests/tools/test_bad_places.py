"""Places that cannot be written to or waited for: each is said with its name, and nothing there changes."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falconet.core.errors import UserError, run_command
from falconet.datasets.layouts import writers

Command = Callable[..., Any]


def link_loop(path: Path) -> Path:
    path.symlink_to(path.with_name('other'))
    path.with_name('other').symlink_to(path)
    return path


def listing_is_a_folder(path: Path) -> Path:
    (path / 'predictions.json').mkdir(parents=True)
    return path


def listing_is_a_pipe(path: Path) -> Path:
    path.mkdir()
    os.mkfifo(path / 'predictions.json')
    return path


PLACES: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    'a name of 300 letters': (lambda path: path.with_name('x' * 300), [], 'File name too long'),
    'a loop of links': (link_loop, [], 'Too many levels of symbolic links'),
    'a folder as list': (listing_is_a_folder, ['--overwrite'], 'predictions.json: there is no regular file'),
    'a pipe as list': (listing_is_a_pipe, ['--overwrite'], 'predictions.json: there is no regular file'),
}


@pytest.mark.parametrize('name', PLACES)
def test_a_place_that_takes_no_results_is_named(
    command: Command, untrained: Callable[..., Path], folders: Path, name: str
) -> None:
    make, options, message = PLACES[name]
    out = make(folders.parent / 'out')
    done = command('predict', untrained('classification', folders), folders, '--out', out, *options)
    assert done.code == 2, done.output
    assert message in done.output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['CHECKPOINT', 'x' * 5000], 'there is no file or folder|File name too long'),
        (['CHECKPOINT', 'camera:99999999999999'], 'a camera is camera:NUMBER'),
        (['CHECKPOINT', 'DATA', '--device', 'meta'], "device='meta' cannot be used"),
        (['CHECKPOINT', 'DATA', '--seconds', '3'], '--seconds is for videos and cameras'),
        (['CONFIG', 'DATA'], 'is a config, whose model is untrained'),
        (['PIPE.onnx', 'DATA'], 'there is no exported program'),
        (['PIPE.pth', 'DATA'], 'there is no checkpoint'),
    ],
)
def test_what_nothing_can_be_predicted_with_is_said(
    command: Command,
    untrained: Callable[..., Path],
    write_config: Callable[..., Path],
    folders: Path,
    arguments: list[str],
    message: str,
) -> None:
    pipes = {name: folders.parent / name for name in ('PIPE.onnx', 'PIPE.pth')}
    for each in pipes.values():
        os.mkfifo(each)
    stands_for = {
        'CHECKPOINT': untrained('classification', folders),
        'DATA': folders,
        'CONFIG': write_config(),
    }
    done = command('predict', *({**stands_for, **pipes}.get(each, each) for each in arguments))
    assert done.code == 2, done.output
    assert any(each in done.output for each in message.split('|')), done.output
    assert len(done.output) < 700


def test_a_bin_beside_no_program_of_ours_is_not_replaced(
    command: Command, untrained: Callable[..., Path], folders: Path
) -> None:
    checkpoint = untrained('classification', folders)
    checkpoint.with_suffix('.bin').write_text('mine')
    done = command('export', checkpoint, '--to', 'openvino')
    assert done.code == 2, done.output
    assert 'classification.bin' in done.output


@pytest.mark.parametrize('option', [['--size', '100000x100000'], ['--batch', '100000000']])
def test_more_pixels_than_any_picture_has_are_not_exported(
    command: Command, untrained: Callable[..., Path], folders: Path, option: list[str]
) -> None:
    done = command('export', untrained('classification', folders), '--to', 'torch', *option)
    assert done.code == 2, done.output
    assert 'take a smaller --size or --batch' in done.output


def test_weights_are_written_over_others_only_when_told_to(
    command: Command, untrained: Callable[..., Path], folders: Path
) -> None:
    checkpoint = untrained('classification', folders)
    mine = checkpoint.with_name('mine.pth')
    mine.write_text('three days of training')
    done = command('convert_weights', checkpoint, mine)
    assert done.code == 2, done.output
    assert 'mine.pth is there already: choose another name, or add --overwrite' in done.output
    assert command('convert_weights', checkpoint, mine, '--overwrite', but=[mine]).code == 0
    done = command('convert_weights', checkpoint, checkpoint, '--overwrite')
    assert (done.code, 'would overwrite its own source' in done.output) == (2, True)


def test_tables_are_written_over_their_own_page_only(command: Command, tmp_path: Path) -> None:
    from falconet.tools import paper_tables

    (tmp_path / 'notes.md').write_text('mine')
    with pytest.raises(UserError, match=r'notes\.md was not written by this command'):
        paper_tables.write_page(tmp_path / 'notes.md', 'tables')
    paper_tables.write_page(tmp_path / 'new.md', f'{paper_tables.SIGN}; one')
    paper_tables.write_page(tmp_path / 'new.md', f'{paper_tables.SIGN}; two')
    assert (tmp_path / 'notes.md').read_text() == 'mine'
    assert 'two' in (tmp_path / 'new.md').read_text()


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(errno.ENOSPC, 'No space left on device')])
def test_a_conversion_that_ends_early_leaves_no_part_that_looks_like_all(
    command: Command, coco_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    placed: list[Path] = []

    def place(path: str, target: Path) -> None:
        placed.append(target)
        if len(placed) > 2:
            raise error
        shutil.copyfile(path, target)

    monkeypatch.setattr(writers, 'copied', place)
    done = command('convert_data', coco_folder, 'new', '--to', 'yolo')
    assert done.code == (130 if error is KeyboardInterrupt else 2), done.output
    assert len(placed) == 3
    assert not list(Path('new').iterdir())
    monkeypatch.undo()
    os.chdir(coco_folder.parent)
    (Path('new') / writers.UNFINISHED).mkdir()  # as a kill leaves it
    assert command('convert_data', coco_folder, 'new', '--to', 'yolo').code == 0
    assert not (Path('new') / writers.UNFINISHED).exists()


@pytest.mark.parametrize('tool', ['train', 'test', 'predict', 'export', 'convert_data', 'compare'])
def test_a_command_without_arguments_shows_how_it_is_used(command: Command, tool: str) -> None:
    done = command(tool)
    assert done.code == 2
    assert done.output.startswith('usage: ')


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (OSError(errno.ENOSPC, 'No space left on device', 'some/file'), 'some/file cannot be used: No space'),
        (PermissionError(errno.EACCES, 'Permission denied', 'x' * 999), 'x... cannot be used: Permission'),
        (OSError('no number'), 'a file cannot be used: no number'),
        (MemoryError('900 GB'), 'not enough memory (900 GB)'),
    ],
)
def test_what_the_machine_refuses_is_an_error_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr('sys.argv', ['tool'])

    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(fail)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count('\n') == 1
