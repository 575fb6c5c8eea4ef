"""The page's folder holds what it says, and takes nobody's place."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falconet.core.errors import UserError
from falconet.deploy.engines import ExportedModel
from falconet.deploy.web_format import check_options, place_files
from falconet.deploy.web_runtime import FILES, read_runtime


def test_a_page_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / 'best_web'
    first = {'style.css': b'1', 'old.js': b'1', 'onnxruntime/engine.wasm': b'1'}
    second = {'style.css': b'2', 'onnxruntime/engine.wasm': b'1'}
    place_files(first, {'task': 'detection'}, target, overwrite=False)
    place_files(second, {'task': 'detection'}, target, overwrite=False)
    assert (target / 'style.css').read_bytes() == b'2'
    assert not (target / 'old.js').exists()
    for name in ('style.css', 'model.json'):
        (target / name).write_text('mine')
        with pytest.raises(UserError, match=rf'files that Falconet did not make.*{name}.*--overwrite'):
            place_files(first, {}, target, overwrite=False)
        assert (target / name).read_text() == 'mine'
        assert not (target / 'old.js').exists()
    place_files(first, {'task': 'detection'}, target, overwrite=True)
    assert (target / 'style.css').read_bytes() == b'1'


def test_an_earlier_page_cannot_name_files_outside_of_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / 'outside.txt'
    outside.write_bytes(b'1')
    place_files({'../outside.txt': b'1', 'a.js': b'1'}, {}, tmp_path / 'page', overwrite=False)
    place_files({'a.js': b'2'}, {}, tmp_path / 'page', overwrite=False)
    assert outside.exists()


def test_files_that_are_not_the_runtime_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'not the npm package .*npm pack onnxruntime-web@'):
        read_runtime(tmp_path)
    for name in ('ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm'):
        (tmp_path / name).write_text('other')
    with pytest.raises(UserError, match=r'ort\.wasm\.min\.mjs is not that of onnxruntime-web'):
        read_runtime(tmp_path)


@pytest.mark.parametrize('options', [{'size': (3, 4)}, {'batch': 2}, {'raw': True}])
def test_a_page_has_no_such_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match='leave --size HxW, --batch and --raw out'):
        check_options(**{'size': None, 'batch': None, 'raw': False, **options})


def test_the_runtime_is_read_from_an_archive_or_a_folder_and_kept(
    runtime: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = read_runtime(runtime)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    with pytest.raises(UserError, match=r'needs the files of ONNX Runtime Web.*--web-runtime'):
        read_runtime()
    dist = tmp_path / 'node_modules/onnxruntime-web/dist'
    dist.mkdir(parents=True)
    for name in FILES:
        (dist / name).write_bytes(given[name])
    with tarfile.open(tmp_path / 'package.tgz', 'w:gz', compresslevel=1) as archive:
        archive.add(dist, 'package/dist')
    assert read_runtime(tmp_path / 'package.tgz') == read_runtime(tmp_path) == read_runtime() == given


def test_the_folder_is_small_and_says_nothing_of_where_data_lies(page: Callable[[str], Path]) -> None:
    folder = page('detection')
    assert sum(path.stat().st_size for path in folder.rglob('*')) < 20e6
    about = json.loads((folder / 'model.json').read_text())
    assert (about['task'], about['classes']) == ('detection', ['blue', 'green', 'red'])
    assert about['model'] == 'model.onnx'
    assert 'config' not in about
    assert ExportedModel(folder / 'model.onnx').description.config == {}
    for name in ('LICENSE', 'ThirdPartyNotices.txt'):
        assert 'icrosoft' in (folder / 'onnxruntime' / name).read_text(encoding='utf-8')
    assert {*about['files'], 'model.json'} == {
        str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()
    }
    worker = (folder / 'sw.js').read_text()
    assert '{{' not in worker
    assert '"model.onnx"' in worker
    for path in folder.glob('*.*'):
        if path.suffix in ('.html', '.js', '.css'):
            assert '//' not in path.read_text().replace('http://localhost', '').replace('// ', '')
