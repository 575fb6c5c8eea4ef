"""Amounts of memory as people write them."""

import re

from tasks.errors import UserError

FACTORS = {'': 1, 'b': 1, 'kb': 1000, 'mb': 1000**2, 'kib': 1024, 'mib': 1024**2}


def memory_size(text: str) -> int:
    """Return the bytes of '300KB' (1000), '320KiB' (1024), '1.5MB' or '65536'.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*', text.lower())
    if not found or found[2] not in FACTORS or float(found[1]) <= 0:
        raise UserError(f'an amount of memory is written as 300KB, 320KiB, 1.5MB or 65536, got {text!r}')
    return int(float(found[1]) * FACTORS[found[2]])


def in_kilobytes(size: float) -> str:
    """Return bytes as text, '300.0 kB' of 1000 bytes."""
    return f'{size / 1000:,.1f} kB'
