"""`tools/export.py --to web` says what it lacks, in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = {
    'never given the engine': ([], 'npm pack onnxruntime-web@'),
    'the engine is not there': (['--web-runtime', 'nowhere.tgz'], 'nowhere.tgz is not the npm package'),
    'one size': (['--size', '3x4'], 'leave --size HxW, --batch and --raw out'),
    'raw': (['--raw'], 'leave --size HxW, --batch and --raw out'),
}


@pytest.mark.parametrize('name', RUNS)
def test_a_mistake_is_explained_and_leaves_nothing(root: Path, tmp_path: Path, name: str) -> None:
    options, message = RUNS[name]
    done = subprocess.run(
        [sys.executable, root / 'tools/export.py', 'best.pth', '--to', 'web', *options],
        cwd=tmp_path,
        env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path / 'cache')},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not [*tmp_path.glob('*_web'), *tmp_path.glob('cache/kestrel')]
