"""Nothing that Falconet did not make is overwritten, unless the user says so."""

import json
from pathlib import Path

import pytest
from PIL import Image

from falconet.core.errors import UserError
from falconet.core.names import MARK
from falconet.core.owned_files import check_writable, is_ours, save_picture, write_json


@pytest.mark.parametrize('name', ['a.png', 'a.jpg'])
@pytest.mark.parametrize('mode', ['RGB', 'P'])
def test_pictures_carry_the_note_and_stay_pictures(tmp_path: Path, name: str, mode: str) -> None:
    picture = Image.new('RGB', (40, 30), (10, 200, 30))
    if mode == 'P' and name.endswith('jpg'):
        pytest.skip('JPEG has no palettes')
    save_picture(picture.convert(mode), tmp_path / name)
    assert is_ours(tmp_path / name)
    with Image.open(tmp_path / name) as opened:
        assert opened.size == (40, 30)


def test_json_carries_the_note_first(tmp_path: Path) -> None:
    write_json({'top1': 0.5}, tmp_path / 'metrics.json')
    assert is_ours(tmp_path / 'metrics.json')
    assert json.loads((tmp_path / 'metrics.json').read_text()) == {'made_by': MARK, 'top1': 0.5}
    assert list(tmp_path.iterdir()) == [tmp_path / 'metrics.json']


def test_a_strangers_file_is_named_and_kept(tmp_path: Path) -> None:
    Image.new('RGB', (4, 4)).save(tmp_path / 'holiday.png')
    (tmp_path / 'notes.json').write_text('{}')
    write_json({}, tmp_path / 'ours.json')
    paths = [tmp_path / name for name in ('holiday.png', 'notes.json', 'ours.json', 'new.png')]
    with pytest.raises(UserError, match=r'2 files that Falconet did not make .*holiday.png.*notes.json'):
        check_writable(paths, overwrite=False, hint='Choose another --out')
    check_writable(paths, overwrite=True, hint='')
    check_writable(paths[2:], overwrite=False, hint='')


def test_files_with_the_former_mark_are_still_ours(tmp_path: Path) -> None:
    (tmp_path / 'metrics.json').write_text('{"made_by": "made by Kestrel"}')
    assert is_ours(tmp_path / 'metrics.json')
