"""The format Core ML, as far as it can be seen without a Mac: its signature and what it says of itself."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falconet import load_model
from falconet.core.errors import UserError
from falconet.deploy.export import export
from falconet.deploy.formats import FORMATS

needs_coremltools = pytest.mark.skipif(
    importlib.util.find_spec('coremltools') is None,
    reason='coremltools is not installed; make test-export does',
)
FLOAT32, INT32 = 65568, 131104  # of coremltools' ArrayFeatureType
EXPECTED = {
    'classification': {'scores': (FLOAT32, [1, 3])},
    'detection': {
        'boxes': (FLOAT32, [1, 20, 4]),
        'scores': (FLOAT32, [1, 20]),
        'labels': (INT32, [1, 20]),
        'count': (INT32, [1]),
    },
    'segmentation': {
        'mask': (INT32, [1, 96, 96]),
        'scores': (FLOAT32, [1, 96, 96]),
        'cells': (FLOAT32, [1, 3, 6, 6]),
    },
}


@needs_coremltools
@pytest.mark.filterwarnings('ignore')  # of the converter
@pytest.mark.parametrize(
    'task', ['classification', 'segmentation', pytest.param('detection', marks=pytest.mark.slow)]
)
def test_a_package_has_the_documented_signature(
    task: str, small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from falconet.deploy.coreml_format import package, read

    (written,) = export(small_checkpoint(task), ['coreml'], out=tmp_path / 'out')
    assert written.path.is_dir()
    assert written.size == sum(file.stat().st_size for file in written.path.rglob('*') if file.is_file())
    spec = package(written.path).get_spec().description
    (picture,) = spec.input
    image = picture.type.imageType
    assert (picture.name, image.height, image.width) == ('pictures', 96, 96)
    assert image.ColorSpace.Name(image.colorSpace) == 'RGB'
    found = {
        each.name: (each.type.multiArrayType.dataType, list(each.type.multiArrayType.shape))
        for each in spec.output
    }
    assert found == EXPECTED[task]
    about: dict[str, Any] = json.loads(read(written.path) or '')
    assert (about['task'], about['classes']) == (task, ['blue', 'green', 'red'])
    card = (written.path.parent / 'model_card.md').read_text()
    assert 'best.mlpackage was not compared' in card
    export(small_checkpoint(task), ['coreml'], out=tmp_path / 'out')  # its own place again
    assert [each.name for each in written.path.iterdir()].count('Manifest.json') == 1
    if sys.platform != 'darwin':
        with pytest.raises(UserError, match=r"best\.mlpackage runs on Apple's systems only"):
            load_model(written.path)


@needs_coremltools
@pytest.mark.filterwarnings('ignore')
def test_several_pictures_at_a_time_are_refused(
    small_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match='coreml takes one picture at a time, not 2'):
        export(small_checkpoint(), ['coreml'], out=tmp_path / 'out', batch=2)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(UserError, match=r'not installed here: pip install .*\[coreml\]'):
        FORMATS['coreml'].module(writing=True)
