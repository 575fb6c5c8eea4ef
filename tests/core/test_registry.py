"""Parts are found by name, and a wrong name or option comes with the closest right one."""

import pytest

from falconet.backbones import BACKBONES
from falconet.core.errors import UserError
from falconet.core.registry import build


def test_a_part_is_built_from_its_entry() -> None:
    assert build(BACKBONES, {'type': 'MobileNetV2', 'width': 0.35}, where='x').channels == (1280,)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (
            {'type': 'MobilNetV2'},
            r"model.backbone: no backbone is called 'MobilNetV2'. Did you mean MobileNetV2",
        ),
        ({'type': 'zzz'}, 'Known: '),
        ({'type': 'MobileNetV2', 'widht': 1}, 'unknown option widht. Did you mean width'),
        (
            {'type': 'MobileNetV2', 'width': -1},
            r'model.backbone \(MobileNetV2\): width must be a number above 0 and at most 8, got -1',
        ),
        ({'width': 1}, 'must be dict'),
        (None, 'must be dict'),
    ],
)
def test_a_wrong_entry_is_explained(entry: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(BACKBONES, entry, where='model.backbone')  # type: ignore[arg-type]


@pytest.mark.parametrize(
    'name', ['os.system', 'subprocess.Popen', 'falconet.backbones.mobilenetv2.MobileNetV2']
)
def test_dotted_paths_are_no_names(name: str) -> None:
    """mmengine imports and calls any dotted path; a checkpoint's config must not be able to."""
    with pytest.raises(UserError, match='no backbone is called'):
        build(BACKBONES, {'type': name}, where='model.backbone')
