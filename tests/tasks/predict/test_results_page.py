"""The code of docs/results.md runs."""

import re
from pathlib import Path
from typing import Any


def test_the_code_on_the_page_of_results_runs(root: Path) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r'^```python\n(.*?)^```$', (root / 'docs/results.md').read_text(), re.M | re.S):
        exec(compile(block, 'docs/results.md', 'exec'), names)
    assert len(names['again']) == 2
    assert names['entries'][0]['bbox'] == [10.0, 10.0, 50.0, 70.0]
    assert names['palette'].mode == 'P'
