"""`tools/export.py --to web` says what it lacks, in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

RUNS = {
    'never given the engine': ([], 'npm pack onnxruntime-web@'),
    'the engine is not there': (['--web-runtime', 'nowhere.tgz'], 'nowhere.tgz is not the npm package'),
    'one size': (['--size', '3x4'], 'leave --size HxW, --batch and --raw out'),
    'raw': (['--raw'], 'leave --size HxW, --batch and --raw out'),
}


@pytest.mark.parametrize('name', RUNS)
def test_a_mistake_is_explained_and_leaves_nothing(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    options, message = RUNS[name]
    done = command('export', 'best.pth', '--to', 'web', *options)
    assert done.code == 2
    assert message in done.output
    assert not [*tmp_path.glob('*_web'), *tmp_path.glob('cache/falconet')]
