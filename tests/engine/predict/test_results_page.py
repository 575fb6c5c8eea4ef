"""The code of docs/results.md runs."""

import re
from pathlib import Path
from typing import Any

import pytest

OTHERS = ('pandas', 'supervision')


def test_the_code_on_the_page_of_results_runs(root: Path) -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r'^```python\n(.*?)^```$', (root / 'docs/results.md').read_text(), re.M | re.S)
    others = [block for block in blocks if any(f'import {each}' in block for each in OTHERS)]
    assert others
    for block in blocks:
        if block not in others:
            exec(compile(block, 'docs/results.md', 'exec'), names)
    assert len(names['again']) == 2
    assert names['entries'][0]['bbox'] == [10.0, 10.0, 50.0, 70.0]
    assert names['palette'].mode == 'P'
    for each in OTHERS:
        pytest.importorskip(each)
    for block in others:
        exec(compile(block, 'docs/results.md', 'exec'), names)
    assert len(names['best']) == 1
    assert names['annotated'].any()
