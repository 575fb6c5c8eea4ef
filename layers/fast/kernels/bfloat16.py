"""Numbers of two widths in Numba's loops: float32, and bfloat16 as the 16 bits it is.

Numba knows no bfloat16. Its bits are the upper half of a float32's, so that widening is a shift; narrowing
rounds to nearest, ties to even, as torch does, and keeps NaN.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

LANES = 128  # numbers that a loop over narrow rows covers at once, several rows side by side


_intrinsic: Any = intrinsic  # its type does not say that the context is left out of a call
# Called from other loops only: what Python would call them by is not compiled.
loop: Any = njit(error_model='numpy', no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]
# Becomes part of its caller before LLVM sees it, which would optimise the whole anew at each level of calls.
part: Any = njit(error_model='numpy', inline='always', no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]


@_intrinsic
def as_float(context: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@_intrinsic
def as_bits(context: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@_intrinsic
def pointer(context: Any, address: Any) -> Any:
    """The place in memory with this address, for `numba.carray`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@_intrinsic
def _take(context: Any, address: Any) -> Any:
    """Return the int64 at an address and leave it one larger, as no other thread can do meanwhile."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw('add', place, ir.IntType(64)(1), 'monotonic')

    return types.int64(types.int64), generate


@loop
def claim(call: Any, place: int) -> int:
    """Return the number of the next piece of work, which no other thread gets.

    A thread that another program keeps from its core then takes less of it, and the others wait less.

    Args:
        call: what a pass is called with.
        place: where it counts.
    """
    return _take(np.int64(call.ctypes.data) + np.int64(8 * place))


def wide(value: Any) -> Any:
    """A stored number as float32."""
    raise NotImplementedError


@overload(wide, strict=False)
def _wide(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: as_float(np.uint32(value) << np.uint32(16))
    return lambda value: value


def put(row: Any, index: Any, value: Any) -> None:
    """Store a float32 in a row of either width."""
    raise NotImplementedError


@overload(put, strict=False)
def _put(row: Any, index: Any, value: Any) -> Any:
    if row.dtype == types.uint16:

        def narrow(row: Any, index: Any, value: Any) -> None:
            bits = as_bits(value)
            rounded = np.uint32(
                (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            )
            row[index] = np.uint16(rounded) if value == value else np.uint16(0x7FC0)

        return narrow

    def plain(row: Any, index: Any, value: Any) -> None:
        row[index] = value

    return plain


@loop
def repeats(channels: int) -> int:
    """Rows that a loop covers at once."""
    return max(1, LANES // channels)
