"""Programs come and go, and Ctrl-C is still Ctrl-C."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.export import export


@pytest.mark.parametrize(('name', 'ending'), [('openvino', '.xml'), ('onnx', '.onnx')])
def test_a_signal_after_programs_have_gone_is_handled(
    small_checkpoint: Callable[..., Path],
    fresh_process: Callable[[str], str],
    tmp_path: Path,
    name: str,
    ending: str,
) -> None:
    """OpenVINO left a freed stack for signals behind: the process died of the next one."""
    export(small_checkpoint(), [name], out=tmp_path)
    said = fresh_process(f"""
        import gc, os, signal
        from tasks import load_model
        loaded = [load_model({str(tmp_path / f'best{ending}')!r}) for _ in range(3)]
        while loaded:
            del loaded[0]
            gc.collect()
        signal.signal(signal.SIGINT, lambda *_: print('handled'))
        os.kill(os.getpid(), signal.SIGINT)
    """)
    assert said == 'handled\n'
