"""Programs come and go, and Ctrl-C is still Ctrl-C."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize('ending', ['.xml', '.onnx'])
def test_a_signal_after_programs_have_gone_is_handled(
    exported: Callable[[str, str], Path], fresh_process: Callable[[str], str], ending: str
) -> None:
    """OpenVINO left a freed stack for signals behind: the process died of the next one."""
    program = exported('classification', 'symmetric') / f'best{ending}'
    said = fresh_process(f"""
        import gc, os, signal
        from falconet import load_model
        loaded = [load_model({str(program)!r}) for _ in range(3)]
        while loaded:
            del loaded[0]
            gc.collect()
        signal.signal(signal.SIGINT, lambda *_: print('handled'))
        os.kill(os.getpid(), signal.SIGINT)
    """)
    assert said == 'handled\n'
