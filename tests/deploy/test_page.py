"""The Python of docs/deploy.md runs on an exported file and says what the checkpoint says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deploy.parity import generated_pictures
from tasks import load_model


def test_the_pages_code_says_what_the_checkpoint_says(
    exported: Callable[[str, str], Path], root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = exported('classification', 'symmetric')
    (tmp_path / 'best.onnx').symlink_to(folder / 'best.onnx')
    Image.fromarray(generated_pictures((104, 104), count=1)[0]).save(tmp_path / 'photo.jpg', quality=95)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'^```python\n(.*?)^```$', (root / 'docs/deploy.md').read_text(), re.M | re.S)
    assert len(blocks) == 2
    expected = load_model(folder / 'best.pth').predict('photo.jpg')
    for block in blocks:
        names: dict[str, Any] = {}
        exec(compile(block, 'docs/deploy.md', 'exec'), names)
        if 'result' in names:
            assert names['result'].label == expected.label
        else:
            assert names['best'] == expected.class_names[expected.label]
