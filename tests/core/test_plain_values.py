"""Configs as text."""

import mmengine.config.config
import pytest
from mmengine.config import Config

from falconet.core.plain_values import text_of


@pytest.mark.parametrize(
    ('happens', 'expected'), [(KeyboardInterrupt, KeyboardInterrupt), (ValueError, SyntaxError)]
)
def test_ctrl_c_while_a_config_is_formatted_is_no_syntax_error(
    monkeypatch: pytest.MonkeyPatch, happens: type[BaseException], expected: type[BaseException]
) -> None:
    config = Config({'lr': 0.1})
    assert text_of(config) == 'lr = 0.1\n'

    def broken(*_: object, **__: object) -> None:
        raise happens

    monkeypatch.setattr(mmengine.config.config, 'FormatCode', broken)
    with pytest.raises(expected):
        text_of(config)
