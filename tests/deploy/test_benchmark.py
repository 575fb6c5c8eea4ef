"""The benchmark measures every file it is given, and says why it did not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import falconet.deploy.benchmark.measured_model as subject
from falconet.core.errors import UserError
from falconet.deploy.benchmark import benchmark, report
from falconet.deploy.benchmark.interleave import check_tasks, photographs, summary
from falconet.deploy.parity import generated_pictures

Exported = Callable[[str, str], Path]


@pytest.fixture(scope='session')
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three photographs."""
    folder = tmp_path_factory.mktemp('album')
    for place, each in enumerate(generated_pictures((104, 120), count=3)):
        Image.fromarray(each).save(folder / f'{place}.jpg')
    return folder


@pytest.fixture(scope='session')
def found(exported: Exported, album: Path) -> dict[str, Any]:
    """What is measured of a small classifier and two of its files."""
    folder = exported('classification', 'symmetric')
    files = [folder / 'best.onnx', folder / 'best.xml']
    return benchmark(folder / 'best.pth', files, data=album, score=False, rounds=1, seconds=0.01, threads=2)


def test_every_file_is_measured_in_every_way(found: dict[str, Any]) -> None:
    assert [row['file'] for row in found['rows']] == ['best.pth', 'best.onnx', 'best.xml']
    for row in found['rows']:
        for key in (
            'load_s',
            'median_s',
            'p90_s',
            'one_thread_median_s',
            'images_per_s',
            'from_file_s',
            'peak_mb',
        ):
            assert row[key] > 0, (row['file'], key)
        assert row['of_this_checkpoint']


def test_of_openvino_the_weights_beside_the_file_count(found: dict[str, Any], exported: Exported) -> None:
    folder = exported('classification', 'symmetric')
    assert found['rows'][2]['bytes'] == sum(
        (folder / f'best.{each}').stat().st_size for each in ('xml', 'bin')
    )


def test_it_is_written_as_table_data_and_picture_and_written_again(
    found: dict[str, Any], tmp_path: Path
) -> None:
    for _ in range(2):
        report.check(tmp_path, overwrite=False)
        written = report.write(found, tmp_path)
    assert [each.name for each in written] == ['benchmark.json', 'benchmark.md', 'benchmark.png']
    assert json.loads(written[0].read_text())['rows'] == found['rows']
    page = written[1].read_text()
    assert all(f'| `{row["file"]}` |' in page for row in found['rows'])
    with Image.open(written[2]) as picture:
        assert picture.width > 800
    (tmp_path / 'benchmark.md').write_text('mine')
    with pytest.raises(UserError, match=r'benchmark\.md.*--overwrite'):
        report.check(tmp_path, overwrite=False)


def test_what_cannot_be_run_has_a_row_that_names_the_extra(found: dict[str, Any]) -> None:
    why = "needs onnxruntime, not installed here: pip install -e '.[onnx]'"
    bare = {'file': 'x.onnx', 'bytes': 1000, 'missing': why, 'of_this_checkpoint': True}
    page = report.markdown({**found, 'rows': [*found['rows'], bare | summary(lambda key: [], one=False)]})
    assert "`x.onnx` was not run: needs onnxruntime, not installed here: pip install -e '.[onnx]'" in page


def test_an_engine_that_is_not_installed_is_missing(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(exported('classification', 'symmetric') / 'best.onnx')
    assert subject.missing(path) is None
    monkeypatch.setattr('importlib.util.find_spec', lambda _: None)
    assert r"pip install -c constraints.txt -e '.[onnx]'" in str(subject.missing(path))


def test_a_damaged_file_is_an_error_that_names_it(exported: Exported, album: Path, tmp_path: Path) -> None:
    (tmp_path / 'best.onnx').write_bytes(b'nothing')
    checkpoint = exported('classification', 'symmetric') / 'best.pth'
    with pytest.raises(UserError, match=r'best\.onnx cannot be opened as onnx'):
        benchmark(checkpoint, [tmp_path / 'best.onnx'], data=album, score=False)
    with pytest.raises(UserError, match=r'gone\.onnx: no such file'):
        benchmark(checkpoint, [tmp_path / 'gone.onnx'], data=album)


def test_files_of_another_task_or_without_a_checkpoint_are_refused() -> None:
    row = {'file': 'best.pth', 'format': 'checkpoint', 'missing': None, 'task': 'detection'}
    other = {'file': 'x.xml', 'format': 'openvino', 'missing': None, 'task': 'segmentation'}
    with pytest.raises(UserError, match=r'x\.xml is for segmentation, best\.pth for detection'):
        check_tasks([row, other])
    with pytest.raises(UserError, match=r'x\.xml is an exported program: name the checkpoint first'):
        check_tasks([other])


def test_of_a_data_set_with_masks_only_photographs_are_taken(album: Path) -> None:
    Image.new('L', (4, 4)).save(album / 'mask.png')
    assert [Path(each).name for each in photographs(album)] == ['0.jpg', '1.jpg', '2.jpg']
