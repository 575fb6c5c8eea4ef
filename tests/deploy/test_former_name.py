"""Programs with the project's former name still open, and answer as before."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import openvino

from falconet import load_model
from falconet.core.names import FORMER, NAME
from falconet.deploy.parity import generated_pictures

from .test_engines import check_same

Exported = Callable[[str, str], Path]


def rename_onnx(source: Path, target: Path) -> None:
    model = onnx.load(source)
    (entry,) = (entry for entry in model.metadata_props if entry.key == NAME)
    entry.key = FORMER['name']
    onnx.save(model, target)


def rename_openvino(source: Path, target: Path) -> None:
    shutil.copy(source.with_suffix('.bin'), target.with_suffix('.bin'))
    target.write_text(source.read_text().replace(f'<{NAME} ', f'<{FORMER["name"]} '))
    assert not openvino.Core().read_model(target).has_rt_info(NAME)


def rename_torch(source: Path, target: Path) -> None:
    former = FORMER['name']
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith('.json'):
                content = content.replace(f'torch.ops.{NAME}.'.encode(), f'torch.ops.{former}.'.encode())
            new.writestr(name.replace(f'/extra/{NAME}', f'/extra/{former}'), content)


def test_programs_with_the_former_name_answer_as_before(exported: Exported, tmp_path: Path) -> None:
    folder = exported('detection', 'symmetric')
    pictures = [*generated_pictures((64, 64))]
    for rename, ending in ((rename_onnx, '.onnx'), (rename_openvino, '.xml'), (rename_torch, '.pt2')):
        rename(folder / f'best{ending}', tmp_path / f'old{ending}')
        assert FORMER['name'].encode() in (tmp_path / f'old{ending}').read_bytes()
        expected = load_model(folder / f'best{ending}').predict(pictures)
        check_same(expected, load_model(tmp_path / f'old{ending}').predict(pictures))
