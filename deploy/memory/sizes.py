"""Amounts of memory as people write them."""

from falconet.datasets.images.cache import parse_size


def memory_size(text: str) -> int:
    """Return the bytes of '300KB' (1000), '320KiB' (1024), '1.5MB' or '65536'.

    Raises:
        UserError: it is none.
    """
    return parse_size(text, name='--memory')


def in_kilobytes(size: float) -> str:
    """Return bytes as text, '300.0 kB' of 1000 bytes."""
    return f'{size / 1000:,.1f} kB'
