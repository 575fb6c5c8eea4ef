"""Random values in configs and checkpoints give no traceback."""

import contextlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from falconet import load_model
from falconet.checkpoints.file import write_checkpoint
from falconet.core.errors import UserError
from falconet.core.plain_values import plain
from falconet.core.schema import check_config
from falconet.engine.builders import optional_hooks
from falconet.engine.optim import check_optim_wrapper, check_schedulers
from falconet.tasks.build import build_model, load_config

# Values of every kind where others are expected.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_subnormal=False)
    | st.text(max_size=5)
    | st.sampled_from(['last', 'SGD', 'LinearHead', 'MobileNetV2', 'os.system', '/etc/passwd', 0.5, 2, 8]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.just('type'), inner, max_size=3)
    ),
    max_leaves=4,
)


def places_of(value: Any, place: tuple = ()) -> list[tuple]:
    """Return every place in nested dicts and lists that is not a tensor."""
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    inner = [each for key, child in items for each in places_of(child, (*place, key))]
    return [*([place] if place else []), *inner]


def put(content: Any, place: tuple, value: Any) -> Any:
    """Return a copy with the value at one place another."""
    content = deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


@pytest.mark.slow
def test_2000_random_values_in_configs_and_checkpoints_give_no_traceback(
    template: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = plain(load_config(write_config('ema = dict(decay=0.9)\nearly_stopping = dict(patience=3)')))
    small = {key: value for key, value in template.items() if key not in ('versions', 'config_text')}

    def try_config(place: tuple, value: Any) -> None:
        changed_config = Config(put(config, place, value))
        check_config(changed_config, training=True)
        build_model(changed_config, classes=('a', 'b', 'c'))
        check_optim_wrapper(plain(changed_config.optim_wrapper))
        check_schedulers(plain(changed_config.get('param_scheduler') or []))
        optional_hooks(changed_config)

    def try_checkpoint(place: tuple, value: Any) -> None:
        try:
            write_checkpoint(put(small, place, value), tmp_path / 'x.pth')
        except (TypeError, UserError, RuntimeError, UnicodeError, OverflowError):
            return  # torch itself does not write such a thing
        load_model(tmp_path / 'x.pth')

    for content, attempt in ((config, try_config), (small, try_checkpoint)):
        places = st.sampled_from(places_of(content))

        @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(place=places, value=ANYTHING)
        def no_traceback(place: tuple, value: Any) -> None:
            with contextlib.suppress(UserError):
                attempt(place, value)  # noqa: B023 (it is called before the loop goes on)

        no_traceback()
