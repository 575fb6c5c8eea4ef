"""The code of docs/deploy.md: the Python says what the checkpoint says, the rest uses the names of files."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from falconet import load_model
from falconet.deploy.answers import FORMS
from falconet.deploy.formats import INPUT
from falconet.deploy.parity import generated_pictures


def blocks(root: Path, language: str) -> list[str]:
    text = (root / 'docs/deploy.md').read_text(encoding='utf-8')
    return re.findall(rf'^```{language}\n(.*?)^```$', text, re.M | re.S)


@pytest.mark.parametrize('place', range(4))
def test_the_pages_python_says_what_the_checkpoint_says(
    exported: Callable[[str, str], Path],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    place: int,
) -> None:
    found = blocks(root, 'python')
    assert len(found) == 4
    folder = exported('classification', 'symmetric')
    for name in ('best.onnx', 'best.xml', 'best.bin'):
        (tmp_path / name).symlink_to(folder / name)
    Image.fromarray(generated_pictures((104, 104), count=1)[0]).save(tmp_path / 'photo.jpg', quality=95)
    monkeypatch.chdir(tmp_path)
    if 'ai_edge_litert' in found[place]:
        if importlib.util.find_spec('litert_torch') is None:
            pytest.skip('litert-torch is not installed; make test-export does')
        from falconet.deploy.export import export

        export(folder / 'best.pth', ['litert'], out=tmp_path)
    expected = load_model(folder / 'best.pth').predict('photo.jpg')
    names: dict[str, Any] = {}
    exec(compile(found[place], 'docs/deploy.md', 'exec'), names)
    if 'result' in names:
        assert names['result'].label == expected.label
    elif 'best' in names:
        assert names['best'] == expected.class_names[expected.label]
    else:
        assert int(np.argmax(names['scores'])) == expected.label


@pytest.mark.parametrize(
    ('language', 'task'), [('kotlin', 'classification'), ('swift', 'detection'), ('cpp', 'segmentation')]
)
def test_the_pages_other_code_uses_the_names_that_files_have(root: Path, language: str, task: str) -> None:
    (block,) = blocks(root, language)
    known = {name for form in FORMS.values() for name in form.meanings}
    used = {name for name in re.findall(r'"(\w+)"', block) if name in known}
    assert used
    assert used <= set(FORMS[task].meanings)
    assert f'"{INPUT}"' in block or f'{INPUT}: uint8' in block
