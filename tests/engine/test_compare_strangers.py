"""Pages that are no reports, or whose data somebody changed: named, never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest

from falconet.core.errors import UserError
from falconet.engine.compare import compare

GOOD: dict[str, Any] = {
    'task': 'ClassificationMetric',
    'scores': [['top1', 0.5, 0.4, 0.6], ['top5', None, None, None]],
    'classes': [['cat', 0.5, None, None]],
    'config': {'seed': '0'},
    'facts': {'processor': 'one'},
    'curves': {'training': {'loss': [[1, 2], [3.0, 2.5]]}, 'validation': {}},
}
UNEVEN = {'training': {'loss': [[1], [2, 3]]}}
BAD: dict[str, Any] = {
    'task': 5,
    'scores': [['top1', 'x', None, None]],
    'classes': [['cat', 0.5]],
    'config': [1],
    'facts': {'a': {}},
    'curves': {'training': {'loss': [[1, 2]]}},
}


def page(folder: Path, text: str) -> str:
    folder.mkdir()
    script = f'<script type="application/json" id="falconet">{text}</script>'
    (folder / 'report.html').write_text(script, encoding='utf-8')
    return str(folder)


def test_pages_with_all_that_a_run_says_are_compared(tmp_path: Path) -> None:
    runs = [page(tmp_path / name, json.dumps(GOOD)) for name in 'ab']
    assert compare(runs, tmp_path / 'compare.html').is_file()


@pytest.mark.parametrize(('key', 'value'), [*BAD.items(), ('curves', UNEVEN)])
def test_a_value_that_no_report_has_is_named_with_its_page(tmp_path: Path, key: str, value: Any) -> None:
    runs = [page(tmp_path / 'a', json.dumps(GOOD)), page(tmp_path / 'b', json.dumps({**GOOD, key: value}))]
    with pytest.raises(UserError, match=rf'b.report\.html is no report of a training or a test \({key}'):
        compare(runs, tmp_path / 'compare.html')
    assert not (tmp_path / 'compare.html').exists()


@pytest.mark.parametrize('text', ['[1]', '5', '{"task": ', '[' * 100_000, '{}'])
def test_a_page_without_such_data_is_named(tmp_path: Path, text: str) -> None:
    runs = [page(tmp_path / 'a', json.dumps(GOOD)), page(tmp_path / 'b', text)]
    with pytest.raises(UserError, match=r'b.report\.html is no report of a training or a test'):
        compare(runs, tmp_path / 'compare.html')
