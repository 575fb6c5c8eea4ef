"""A work dir belongs to one run at a time, and a run replaces only what runs have made."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from falconet import load_config, train
from falconet.core.errors import UserError
from falconet.engine.work_dir import claimed


def test_a_second_training_in_the_same_folder_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    code = (
        f'import sys; sys.path.insert(0, {str(root)!r})\n'
        'from pathlib import Path\n'
        'from falconet.engine.work_dir import claimed\n'
        'from falconet.core.errors import UserError\n'
        'try:\n'
        f'    with claimed(Path({str(tmp_path)!r})): print("went in")\n'
        'except UserError as error: print(error)\n'
    )

    def attempt() -> str:
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with claimed(tmp_path):
        said = attempt()
        assert 'is being trained into by process' in said
        assert 'give another --work-dir' in said
    assert 'went in' in attempt()


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / '.last.pth.abc123.tmp').write_bytes(b'half')
    (tmp_path / 'notes.tmp').write_bytes(b'mine')
    with claimed(tmp_path):
        pass
    assert not (tmp_path / '.last.pth.abc123.tmp').exists()
    assert (tmp_path / 'notes.tmp').exists()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('best.pth', r'best.pth would be replaced, and there is no last.pth'),
        ('metrics.json', r'1 files that Falconet did not make would be overwritten: .*metrics.json'),
        ('confusion_matrix.png', r'confusion_matrix.png'),
        ('tiny.py', r'tiny.py'),
    ],
)
@pytest.mark.parametrize('resume', [False, True])
def test_a_users_file_in_the_work_dir_is_kept(
    write_config: Callable[..., Path], tmp_path: Path, name: str, message: str, resume: bool
) -> None:
    config = load_config(write_config())
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / name).write_bytes(b'mine')
    with pytest.raises(UserError, match=message):
        train(config, work_dir=str(folder), resume=resume)
    assert (folder / name).read_bytes() == b'mine'


def test_the_configs_own_folder_is_no_work_dir(write_config: Callable[..., Path]) -> None:
    file = write_config()
    before = file.read_bytes()
    with pytest.raises(UserError, match=r'is the folder of tiny.py itself'):
        train(load_config(file), work_dir=str(file.parent))
    assert file.read_bytes() == before
