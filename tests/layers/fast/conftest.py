"""What tests of layers share."""

from collections.abc import Iterator

import pytest

from falconet.layers.fast.fused import fused_kernels


@pytest.fixture
def fusing() -> Iterator[None]:
    """Norms and activations are one operation where they can be."""
    with fused_kernels():
        yield
