"""A row of a depthwise convolution, 16 channels at a time, in vector instructions.

Written in LLVM's own language: its vectoriser gives up on loops over so many rows that might overlap, and
what is added up along a row stays in registers. LLVM turns vectors of 16 into whatever the processor has.
"""

from collections.abc import Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 numbers that go through the loop together
TAPS = 3  # rows and columns of the kernel
FLOATS = ir.VectorType(ir.FloatType(), LANES)
BITS = ir.VectorType(ir.IntType(32), LANES)
HALVES = ir.VectorType(ir.IntType(16), LANES)
_intrinsic: Any = intrinsic  # its type does not say that the context is left out of a call


class _Vectors:
    """Vectors in memory by address in bytes; `narrow` ones are bfloat16 there, see `kernels.bfloat16`."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def load(self, address: Any, *, narrow: bool = False) -> Any:
        build, kind = self.builder, HALVES if narrow else FLOATS
        value = build.load(build.inttoptr(address, kind.as_pointer()), align=2 if narrow else 4, typ=kind)
        return self._widened(value) if narrow else value

    def store(self, value: Any, address: Any, *, narrow: bool = False) -> Any:
        """Store a vector, and return it as it can be read again."""
        build = self.builder
        if not narrow:
            build.store(value, build.inttoptr(address, FLOATS.as_pointer()), align=4)
            return value
        bits = build.bitcast(value, BITS)
        half = build.lshr(bits, self._bits(16))
        odd = build.and_(half, self._bits(1))
        rounded = build.lshr(build.add(build.add(bits, self._bits(0x7FFF)), odd), self._bits(16))
        is_number = build.fcmp_ordered('ord', value, value)
        halves = build.trunc(build.select(is_number, rounded, self._bits(0x7FC0)), HALVES)
        build.store(halves, build.inttoptr(address, HALVES.as_pointer()), align=2)
        return self._widened(halves)

    def fetch(self, address: Any, *, to_write: bool = False) -> None:
        """Ask for the line of memory around an address that is needed a row later; any address will do."""
        kind, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [kind, flag, flag, flag])
        function = cgutils.get_or_insert_function(self.builder.module, signature, 'llvm.prefetch.p0')
        closeness, of_data = (3 if to_write else 2), 1  # what is read may wait in the second cache
        place = self.builder.inttoptr(address, kind)
        self.builder.call(function, [place, *map(flag, (int(to_write), closeness, of_data))])

    def multiply_add(self, one: Any, other: Any, total: Any) -> Any:
        # May become one rounding where the processor has an instruction for it.
        build: Any = self.builder  # its types do not know of flags
        return build.fadd(build.fmul(one, other, flags=('contract',)), total, flags=('contract',))

    def every(self, value: Any) -> Any:
        """Return a vector of one float32."""
        one = self.builder.insert_element(ir.Constant(FLOATS, ir.Undefined), value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, one, ir.Constant(BITS, [0] * LANES))

    def following(self, address: Any, step: Any, count: int) -> list[Any]:
        """Return so many addresses, `step` apart."""
        found = [address]
        while len(found) < count:
            found.append(self.builder.add(found[-1], step))
        return found

    def registers(self, addresses: Iterable[Any]) -> 'list[_Register]':
        return [_Register(self, address) for address in addresses]

    def _widened(self, halves: Any) -> Any:
        bits = self.builder.shl(self.builder.zext(halves, BITS), self._bits(16))
        return self.builder.bitcast(bits, FLOATS)

    @staticmethod
    def _bits(value: int) -> ir.Constant:
        return ir.Constant(BITS, [value] * LANES)


class _Register:
    """A vector in memory that a loop adds to: read before the loop, written by `close` after it."""

    def __init__(self, vectors: _Vectors, address: Any) -> None:
        self._vectors, self._address = vectors, address
        self._place = cgutils.alloca_once(vectors.builder, FLOATS)  # LLVM makes a register of it
        vectors.builder.store(vectors.load(address), self._place, align=64)

    def add(self, value: Any) -> None:
        build = self._vectors.builder
        build.store(build.fadd(self._read(), value), self._place, align=64)

    def add_product(self, one: Any, other: Any) -> None:
        build = self._vectors.builder
        build.store(self._vectors.multiply_add(one, other, self._read()), self._place, align=64)

    def close(self) -> None:
        self._vectors.store(self._read(), self._address)

    def _read(self) -> Any:
        return self._vectors.builder.load(self._place, align=64, typ=FLOATS)


@_intrinsic
def convolve_lanes(
    context: Any, like: Any, out: Any, out_step: Any, top: Any, middle: Any, bottom: Any, step: Any,
    spread: Any, weights: Any, sums: Any, pixel: Any, count: Any, next_x: Any, next_out: Any,
) -> Any:  # fmt: skip
    """Make a row of outputs in one block of channels, and add up what is stored.

    Args:
        like: an array of the outputs' dtype.
        out, out_step: address of the first output, bytes from one to the next.
        top, middle, bottom: addresses of the first output's first taps, float32.
        step, spread: bytes from one output's taps to the next one's, and between the taps of one.
        weights: address of the nine float32 weights.
        sums: address of what is subtracted before adding up, the sum and the sum of squares, float32.
        pixel: bytes from a weight to the next, and so for `sums`.
        count: outputs.
        next_x, next_out: addresses of what is read and of what is written next, for `_Vectors.fetch`.
    """
    narrow = like.dtype == types.uint16

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        _, out, out_step, top, middle, bottom, step, spread, weights, sums, pixel, *rest = arguments
        count, next_x, next_out = rest
        vectors = _Vectors(builder)
        kernel = [vectors.load(each) for each in vectors.following(weights, pixel, TAPS * TAPS)]
        places = vectors.following(sums, pixel, 3)
        shift, (total, squares) = vectors.load(places[0]), vectors.registers(places[1:])
        with cgutils.for_range(builder, count) as loop:
            offset = builder.mul(loop.index, step)
            # A sum for each row, so that the processor need not wait for one long one.
            parts = []
            for row, address in enumerate((top, middle, bottom)):
                taps = vectors.following(builder.add(address, offset), spread, TAPS)
                part = builder.fmul(vectors.load(taps[0]), kernel[TAPS * row])
                for column in (1, 2):
                    part = vectors.multiply_add(vectors.load(taps[column]), kernel[TAPS * row + column], part)
                parts.append(part)
            made = builder.fadd(builder.fadd(parts[0], parts[1]), parts[2])
            at = builder.mul(loop.index, out_step)
            vectors.fetch(builder.add(next_x, at))
            vectors.fetch(builder.add(next_out, at), to_write=True)
            place = builder.add(out, at)
            less = builder.fsub(vectors.store(made, place, narrow=narrow), shift)
            total.add(less)
            squares.add_product(less, less)
        total.close()
        squares.close()
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 13), generate


@_intrinsic
def gradient_lanes(
    context: Any, like: Any, x: Any, out: Any, out_step: Any, top: Any, middle: Any, bottom: Any, step: Any,
    spread: Any, weights: Any, weight_sums: Any, constants: Any, pixel: Any, floor: Any, ceiling: Any,
    count: Any, next_x: Any, next_out: Any, next_y: Any, next_gradient: Any,
) -> Any:  # fmt: skip
    """Make the gradients of a row of pixels in one block of channels, and add up all that depends on them.

    Args:
        like: an array of the pixels' dtype.
        x, out, out_step: addresses of the first pixel before norm and clamp, and of its gradient after the
            norm; bytes from one to the next.
        top, middle, bottom: addresses of the float32 gradients that the first pixel's part in the kernel's
            rows has gone into, those of the last column first.
        step, spread: bytes from one pixel's to the next one's, and between those of one.
        weights, weight_sums: addresses of the nine float32 weights and of the sums of their gradients.
        constants: address of mean, scale, bias and the two sums of `layers.fast.kernels.norm.sum_gradients`.
        pixel: bytes from a weight to the next, and so for the sums and constants.
        floor, ceiling: of the clamp, float32.
        count: pixels.
        next_x, next_out, next_y, next_gradient: addresses of what is read and written next.
    """
    narrow = like.dtype == types.uint16

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        _, x, out, out_step, top, middle, bottom, step, spread, *rest = arguments
        weights, weight_sums, constants, pixel, floor, ceiling, count, *rest = rest
        next_x, next_out, next_y, next_gradient = rest
        vectors = _Vectors(builder)
        kernel = [vectors.load(each) for each in vectors.following(weights, pixel, TAPS * TAPS)]
        of_kernel = vectors.registers(vectors.following(weight_sums, pixel, TAPS * TAPS))
        places = vectors.following(constants, pixel, 5)
        mean, scale, bias = (vectors.load(each) for each in places[:3])
        sums, products = vectors.registers(places[3:])
        low, high = vectors.every(floor), vectors.every(ceiling)
        with cgutils.for_range(builder, count) as loop:
            at = builder.mul(loop.index, out_step)
            for each in (next_x, next_y, next_gradient):
                vectors.fetch(builder.add(each, at))
            vectors.fetch(builder.add(next_out, at), to_write=True)
            centred = builder.fsub(vectors.load(builder.add(x, at), narrow=narrow), mean)
            value = builder.fadd(builder.fmul(centred, scale), bias)
            above = builder.select(builder.fcmp_ordered('<', value, low), low, value)
            here = builder.select(builder.fcmp_ordered('>', above, high), high, above)
            offset = builder.mul(loop.index, step)
            parts = []
            for row, address in enumerate((top, middle, bottom)):
                taps = vectors.following(builder.add(address, offset), spread, TAPS)
                part = None
                for tap, index in zip(taps, range(TAPS * row + 2, TAPS * row - 1, -1), strict=True):
                    passed = vectors.load(tap)
                    of_kernel[index].add_product(passed, here)
                    part = (
                        builder.fmul(passed, kernel[index])
                        if part is None
                        else vectors.multiply_add(passed, kernel[index], part)
                    )
                parts.append(part)
            made = builder.fadd(builder.fadd(parts[0], parts[1]), parts[2])
            clamped = builder.or_(
                builder.fcmp_ordered('<=', value, low), builder.fcmp_ordered('>=', value, high)
            )
            made = builder.select(clamped, ir.Constant(FLOATS, [0.0] * LANES), made)
            vectors.store(made, builder.add(out, at), narrow=narrow)
            sums.add(made)
            products.add_product(made, centred)
        for each in (*of_kernel, sums, products):
            each.close()
        return context.get_dummy_value()

    whole = [types.int64] * 12
    return types.void(like, *whole, types.float32, types.float32, *[types.int64] * 5), generate
