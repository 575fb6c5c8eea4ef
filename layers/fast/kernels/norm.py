"""Batch norm and clamp in one go, forward and backward: two walks over the rows each.

A tensor (B, C, H, W) in channels_last is a list of rows, one per pixel, of C numbers. It is cut into chunks
of rows by its shape alone; a chunk's sums are made by one thread in the order of its rows, in float32, and
the chunks are added up in their order, in float64. So no result depends on the number of threads or on who
was first.

Between passes travels one float32 array `table` (7, C); its rows:
    0 mean, 1 scale (weight / deviation), 2 bias, 3 and 4 the gradient's coefficients, 5 and 6 as passed back:
    after `combine` variance and 1 / deviation; after `combine_gradients` the gradients of weight and bias.
"""

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from falconet.layers.fast.kernels.bfloat16 import claim, loop, part, pointer, put, repeats, wide


@loop
def tiled(table: Any, first: int, count: int, channels: int, width: int) -> Any:
    """Return rows `first` to `first + count` of `table`, each repeated side by side, and two of zeros."""
    made = np.zeros((count + 2, width), np.float32)
    for row in range(count):
        for begin in range(0, width, channels):
            for channel in range(channels):
                made[row, begin + channel] = table[first + row, channel]
    return made


@loop
def fold(sums: Any, made: Any) -> None:
    """Add up what rows side by side have summed, into the sums of one row, `made` (C,)."""
    channels = len(made)
    made[:] = 0
    for first in range(0, len(sums), channels):
        for channel in range(channels):
            made[channel] += sums[first + channel]


@loop
def sum_rows(x: Any, partial: Any, channels: int, begin: int, end: int) -> None:
    """Add up a chunk, and its squares, both less its first row: `partial` (3, C) gets all three."""
    width = repeats(channels) * channels
    shift = np.empty(width, np.float32)
    sums = np.zeros(width, np.float32)
    squares = np.zeros(width, np.float32)
    for first in range(0, width, channels):
        for channel in range(channels):
            shift[first + channel] = wide(x[begin * channels + channel])
    at, stop = begin * channels, end * channels
    while at + 4 * width <= stop:
        one, two = x[at : at + width], x[at + width : at + 2 * width]
        three, four = x[at + 2 * width : at + 3 * width], x[at + 3 * width : at + 4 * width]
        for place in range(width):
            less = shift[place]
            a, b = wide(one[place]) - less, wide(two[place]) - less
            c, d = wide(three[place]) - less, wide(four[place]) - less
            sums[place] += (a + b) + (c + d)
            squares[place] += (a * a + b * b) + (c * c + d * d)
        at += 4 * width
    while at < stop:
        here = min(width, stop - at)
        for place in range(here):
            a = wide(x[at + place]) - shift[place]
            sums[place] += a
            squares[place] += a * a
        at += here
    partial[0] = shift[:channels]
    fold(sums, partial[1])
    fold(squares, partial[2])


@loop
def normalise_rows(
    x: Any, out: Any, table: Any, floor: Any, ceiling: Any, channels: int, begin: int, end: int
) -> None:
    """Normalise, scale, shift and clamp a chunk."""
    width = repeats(channels) * channels
    constants = tiled(table, 0, 3, channels, width)
    mean, scale, bias = constants[0], constants[1], constants[2]
    at, stop = begin * channels, end * channels
    while at < stop:
        here = min(width, stop - at)
        row, made = x[at : at + here], out[at : at + here]
        for place in range(here):
            value = (wide(row[place]) - mean[place]) * scale[place] + bias[place]
            value = floor if value < floor else value
            value = ceiling if value > ceiling else value
            put(made, place, value)
        at += here


@loop
def sum_gradients(
    x: Any,
    gradient: Any,
    table: Any,
    partial: Any,
    floor: Any,
    ceiling: Any,
    channels: int,
    begin: int,
    end: int,
) -> None:
    """Add up a chunk's gradients where nothing was clamped, alone and times the centred input."""
    width = repeats(channels) * channels
    constants = tiled(table, 0, 3, channels, width)
    mean, scale, bias, sums, products = constants[0], constants[1], constants[2], constants[3], constants[4]
    at, stop = begin * channels, end * channels
    while at < stop:
        here = min(width, stop - at)
        row, back = x[at : at + here], gradient[at : at + here]
        for place in range(here):
            centred = wide(row[place]) - mean[place]
            value = centred * scale[place] + bias[place]
            passed = wide(back[place])
            product = passed * centred  # before the choice: a load that waits for it is slow
            clamped = (value <= floor) | (value >= ceiling)
            sums[place] += np.float32(0) if clamped else passed
            products[place] += np.float32(0) if clamped else product
        at += here
    fold(sums, partial[0])
    fold(products, partial[1])


@loop
def gradient_rows(
    x: Any, gradient: Any, out: Any, table: Any, floor: Any, ceiling: Any, channels: int, begin: int, end: int
) -> None:
    """The input's gradient of a chunk."""
    width = repeats(channels) * channels
    constants = tiled(table, 0, 5, channels, width)
    mean, scale, bias = constants[0], constants[1], constants[2]
    by_sum, by_product = constants[3], constants[4]
    at, stop = begin * channels, end * channels
    while at < stop:
        here = min(width, stop - at)
        row, back, made = x[at : at + here], gradient[at : at + here], out[at : at + here]
        for place in range(here):
            centred = wide(row[place]) - mean[place]
            value = centred * scale[place] + bias[place]
            passed = wide(back[place]) * scale[place]
            clamped = (value <= floor) | (value >= ceiling)
            passed = np.float32(0) if clamped else passed
            put(made, place, passed - by_sum[place] - centred * by_product[place])
        at += here


@loop
def replace_rows(
    x: Any, out: Any, table: Any, floor: Any, ceiling: Any, channels: int, begin: int, end: int
) -> None:
    """As `gradient_rows`, of gradients that lie in `out`: loops over what may overlap are not vectorised."""
    width = repeats(channels) * channels
    constants = tiled(table, 0, 5, channels, width)
    mean, scale, bias = constants[0], constants[1], constants[2]
    by_sum, by_product = constants[3], constants[4]
    at, stop = begin * channels, end * channels
    while at < stop:
        here = min(width, stop - at)
        row, made = x[at : at + here], out[at : at + here]
        for place in range(here):
            centred = wide(row[place]) - mean[place]
            value = centred * scale[place] + bias[place]
            passed = wide(made[place]) * scale[place]
            clamped = (value <= floor) | (value >= ceiling)
            passed = np.float32(0) if clamped else passed
            put(made, place, passed - by_sum[place] - centred * by_product[place])
        at += here


@loop
def combine(
    partial: Any, table: Any, weight: Any, rows: int, chunk_rows: int, epsilon: float, period: int
) -> None:
    """Mean, variance and scale from the chunks' sums, in float64 (Chan, Golub and LeVeque 1979).

    Args:
        period: rows after which a chunk ends early and the next begins: of an image, or all.
    """
    chunks, _, channels = partial.shape
    mean, spread = np.zeros(channels), np.zeros(channels)
    done = 0
    for chunk in range(chunks):
        count = min(chunk_rows, period - done % period)
        share, weighting = count / (done + count), done * count / (done + count)
        for channel in range(channels):
            total = np.float64(partial[chunk, 1, channel])
            here = partial[chunk, 0, channel] + total / count
            away = here - mean[channel]
            mean[channel] += away * share
            spread[channel] += partial[chunk, 2, channel] - total * total / count + away * away * weighting
        done += count
    for channel in range(channels):
        variance = spread[channel] / rows
        variance = 0.0 if variance < 0 else variance
        inverse = 1 / np.sqrt(variance + epsilon)
        table[0, channel] = mean[channel]
        table[1, channel] = weight[channel] * inverse
        table[5, channel] = variance
        table[6, channel] = inverse


@loop
def combine_gradients(partial: Any, table: Any, rows: int, made: Any) -> None:
    """Gradients of weight and bias into `made` (2, C), and the coefficients of the input's gradient."""
    chunks, _, channels = partial.shape
    sums, products = np.zeros(channels), np.zeros(channels)
    for chunk in range(chunks):
        for channel in range(channels):
            sums[channel] += partial[chunk, 0, channel]
            products[channel] += partial[chunk, 1, channel]
    for channel in range(channels):
        inverse = np.float64(table[6, channel])
        made[0, channel] = products[channel] * inverse
        made[1, channel] = sums[channel]
        scale = np.float64(table[1, channel])
        table[3, channel] = scale * sums[channel] / rows
        table[4, channel] = scale * inverse * inverse * products[channel] / rows


# What a pass is called with: int64 numbers, addresses among them.
PASS, ROWS, CHANNELS, CHUNK_ROWS, X, OUT, GRADIENT, TABLE, PARTIAL, NUMBERS, WEIGHT, MADE, NEXT = range(13)
LENGTH = 13
SUM, COMBINE, NORMALISE, SUM_GRADIENTS, COMBINE_GRADIENTS, MAKE_GRADIENT, REPLACE_GRADIENT = range(7)


@part
def share_of(call: Any, x: Any, out: Any, gradient: Any) -> None:
    """What one of the threads that share a pass does: chunks, until none is left."""
    rows, channels, chunk_rows, which = call[ROWS], call[CHANNELS], call[CHUNK_ROWS], call[PASS]
    chunks = (rows + chunk_rows - 1) // chunk_rows
    table = carray(pointer(call[TABLE]), (7, channels), np.float32)
    partial = carray(pointer(call[PARTIAL]), (chunks, 3, channels), np.float32)
    numbers = carray(pointer(call[NUMBERS]), (3,), np.float64)
    floor, ceiling = np.float32(numbers[0]), np.float32(numbers[1])
    if which in (COMBINE, COMBINE_GRADIENTS):
        if which == COMBINE:
            weight = carray(pointer(call[WEIGHT]), (channels,), np.float32)
            combine(partial, table, weight, rows, chunk_rows, numbers[2], rows)
        else:
            made = carray(pointer(call[MADE]), (2, channels), np.float32)
            combine_gradients(partial, table, rows, made)
        return
    chunk = claim(call, NEXT)
    while chunk < chunks:
        begin = chunk * chunk_rows
        end = min(rows, begin + chunk_rows)
        if which == SUM:
            sum_rows(x, partial[chunk], channels, begin, end)
        elif which == NORMALISE:
            normalise_rows(x, out, table, floor, ceiling, channels, begin, end)
        elif which == SUM_GRADIENTS:
            sum_gradients(x, gradient, table, partial[chunk], floor, ceiling, channels, begin, end)
        elif which == MAKE_GRADIENT:
            gradient_rows(x, gradient, out, table, floor, ceiling, channels, begin, end)
        else:
            replace_rows(x, out, table, floor, ceiling, channels, begin, end)
        chunk = claim(call, NEXT)


@part
def share_in_bfloat16(data: Any) -> None:
    call = carray(data, (LENGTH,))
    size = call[ROWS] * call[CHANNELS]
    x = carray(pointer(call[X]), (size,), np.uint16)
    out = carray(pointer(call[OUT]), (size,), np.uint16)
    gradient = carray(pointer(call[GRADIENT]), (size,), np.uint16)
    share_of(call, x, out, gradient)


@part
def share_in_float32(data: Any) -> None:
    call = carray(data, (LENGTH,))
    size = call[ROWS] * call[CHANNELS]
    x = carray(pointer(call[X]), (size,), np.float32)
    out = carray(pointer(call[OUT]), (size,), np.float32)
    gradient = carray(pointer(call[GRADIENT]), (size,), np.float32)
    share_of(call, x, out, gradient)
