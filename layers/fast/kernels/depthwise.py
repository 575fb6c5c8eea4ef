"""Depthwise 3x3 convolutions between two norms, a few rows at a time: what lies between stays in cache.

Forward, a band of output rows: the input's rows are normalised and clamped (`layers.fast.kernels.norm`) into
float32 rows with a border of zeros, convolved, rounded and stored, and added up for the statistics of the
norm that follows. Backward, a band of input rows: the rows of the gradient go back through the norm that
follows, through the convolution and the clamp, and are added up for the norm before; the weights' gradient is
made on the way. So the maps between norms and convolution never exist.

Bands follow from shapes alone, a band belongs to one thread, and the bands' sums are added up in their order
in float64: no result depends on the number of threads.

Rows of scratch hold pixels of `padded` channels, the next multiple of 16: see `simd_rows`.
"""

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from falconet.layers.fast.kernels.bfloat16 import claim, loop, part, pointer, repeats, wide
from falconet.layers.fast.kernels.norm import combine, combine_gradients, tiled
from falconet.layers.fast.kernels.simd_rows import LANES, convolve_lanes, gradient_lanes

# What a pass is called with, the first of them as in `layers.fast.kernels.norm`.
(
    PASS, IMAGES, CHANNELS, BAND, X, OUT, GRADIENT, TABLE, PARTIAL, NUMBERS, WEIGHT, MADE,
    NEXT_TABLE, NEXT_WEIGHT, NEXT_MADE, AFTER, HAS_NORM, HEIGHT, WIDTH, OUT_HEIGHT, OUT_WIDTH,
    STRIDE_Y, STRIDE_X, PAD_Y, PAD_X, RATE_Y, RATE_X, NEXT,
) = range(28)  # fmt: skip
LENGTH = 28
FORWARD, COMBINE_NEXT, BACKWARD, COMBINE_BACK = range(16, 20)
KERNEL = 3
ROWS_OF_PARTIAL = 2 + KERNEL * KERNEL  # of a band backward: two sums of the norm's, and one for each weight


@loop
def padded_channels(channels: int) -> int:
    """Channels of a pixel in scratch."""
    return (channels + LANES - 1) // LANES * LANES


@loop
def flat_width(channels: int, padded: int) -> int:
    """Numbers that a loop over pixels covers at once: several pixels, if they lie side by side in scratch."""
    return repeats(channels) * channels if channels == padded else channels


@loop
def fill_row(
    x: Any,
    begin: int,
    made: Any,
    table: Any,
    floor: Any,
    ceiling: Any,
    width: int,
    channels: int,
    padded: int,
) -> None:
    """Normalise and clamp a row of `width` pixels of `x`, from number `begin` on, into scratch."""
    step = table.shape[1]
    mean, scale, bias = table[0], table[1], table[2]
    to, at, stop = 0, begin, begin + width * channels
    while at < stop:
        here = min(step, stop - at)
        row, kept = x[at : at + here], made[to : to + here]
        for place in range(here):
            value = (wide(row[place]) - mean[place]) * scale[place] + bias[place]
            value = floor if value < floor else value
            kept[place] = ceiling if value > ceiling else value
        at += here
        to += here if channels == padded else padded


@loop
def fill_gradients(
    y: Any, gradient: Any, begin: int, made: Any, table: Any, floor: Any, ceiling: Any,
    width: int, channels: int, padded: int, stride: int,
) -> None:  # fmt: skip
    """Take a row of gradients back through norm and clamp into scratch, every `stride`-th pixel of it."""
    together = channels == padded and stride == 1
    step = table.shape[1] if together else channels
    mean, scale, bias, by_sum, by_product = table[0], table[1], table[2], table[3], table[4]
    to, at, stop = 0, begin, begin + width * channels
    while at < stop:
        here = min(step, stop - at)
        row, back, kept = y[at : at + here], gradient[at : at + here], made[to : to + here]
        for place in range(here):
            centred = wide(row[place]) - mean[place]
            value = centred * scale[place] + bias[place]
            passed = wide(back[place]) * scale[place]
            clamped = (value <= floor) | (value >= ceiling)
            passed = np.float32(0) if clamped else passed
            kept[place] = passed - by_sum[place] - centred * by_product[place]
        at += here
        to += here if together else padded * stride


@loop
def spread_out(row: Any, made: Any, channels: int, padded: int) -> None:
    """Copy pixels side by side to pixels as in scratch."""
    for first in range(0, len(row) // channels):
        made[first * padded : first * padded + channels] = row[first * channels : (first + 1) * channels]


@loop
def close_up(made: Any, row: Any, channels: int, padded: int) -> None:
    """Copy pixels as in scratch to pixels side by side."""
    for first in range(0, len(row) // channels):
        row[first * channels : (first + 1) * channels] = made[first * padded : first * padded + channels]


@loop
def place_of(array: Any) -> Any:
    """The address of an array's first number."""
    return np.int64(array.ctypes.data)


@loop
def weights_of(weight: Any, padded: int) -> Any:
    """Return the weights (3, 3, C) with pixels as in scratch."""
    made = np.zeros((KERNEL, KERNEL, padded), np.float32)
    for row in range(KERNEL):
        for column in range(KERNEL):
            for channel in range(weight.shape[2]):
                made[row, column, channel] = weight[row, column, channel]
    return made


@loop
def convolve_band(
    call: Any, x: Any, out: Any, table: Any, weight: Any, partial: Any, limits: Any, image: int, first: int,
    last: int,
) -> None:  # fmt: skip
    """Output rows `first` to `last` of an image; `partial` (3, C) as `norm.sum_rows` leaves it."""
    channels, height, width, out_width = call[CHANNELS], call[HEIGHT], call[WIDTH], call[OUT_WIDTH]
    stride_y, stride_x, pad_y, pad_x = call[STRIDE_Y], call[STRIDE_X], call[PAD_Y], call[PAD_X]
    rate_y, rate_x = call[RATE_Y], call[RATE_X]
    padded = padded_channels(channels)
    step = flat_width(channels, padded)
    constants = tiled(table, 0, 3, channels, step)
    kernel = weights_of(weight, padded)
    slots = 2 * rate_y + 1
    columns = max(pad_x + width, (out_width - 1) * stride_x + 2 * rate_x + 1)
    rows = np.zeros((slots + 1, columns * padded), np.float32)  # the last stays zero
    whole = channels == padded
    made = np.empty(0 if whole else out_width * padded, out.dtype)
    sums = np.zeros((3, padded), np.float32)  # what is subtracted, sum, sum of squares
    filled = max(0, first * stride_y - pad_y)
    size, pixel = out.itemsize, 4 * padded
    for at in range(first, last):
        top = at * stride_y - pad_y
        filled = max(filled, top)
        while filled <= min(top + 2 * rate_y, height - 1):
            fill_row(
                x, (image * height + filled) * width * channels, rows[filled % slots, pad_x * padded :],
                constants, limits[0], limits[1], width, channels, padded,
            )  # fmt: skip
            filled += 1
        taps = np.empty(KERNEL, np.int64)
        for tap in range(KERNEL):
            y = top + tap * rate_y
            taps[tap] = place_of(rows[y % slots if 0 <= y < height else slots])
        begin = (image * call[OUT_HEIGHT] + at) * out_width * channels
        row = out[begin : begin + out_width * channels]
        target = row if whole else made
        next_x = place_of(x) + size * (image * height + filled) * width * channels
        next_out = place_of(row) + size * len(row)
        for only_first in range(at == first, -1, -1):
            for block in range(0, padded, LANES):
                place = 4 * block
                convolve_lanes(
                    out, place_of(target) + size * block, size * padded, taps[0] + place, taps[1] + place,
                    taps[2] + place, pixel * stride_x, pixel * rate_x, place_of(kernel) + place,
                    place_of(sums) + place, pixel, 1 if only_first else out_width,
                    next_x + size * block, next_out + size * block,
                )  # fmt: skip
            if only_first:  # a number close to the others, and the same whoever computes
                sums[0] = sums[1]
                sums[1:] = 0
        if not whole:
            close_up(made, row, channels, padded)
    for kind in range(3):
        partial[kind] = sums[kind, :channels]


@loop
def gradients_of_band(
    call: Any, x: Any, y: Any, gradient: Any, out: Any, table: Any, following: Any, weight: Any, partial: Any,
    limits: Any, image: int, first: int, last: int,
) -> None:  # fmt: skip
    """Input rows `first` to `last` of an image; `partial` (11, C): two sums for the norm, nine weights'.

    Args:
        following: the table of the norm after the convolution, `y` that norm's input.
        limits: floor and ceiling before the convolution, and after it.
    """
    channels, height, width = call[CHANNELS], call[HEIGHT], call[WIDTH]
    out_height, out_width = call[OUT_HEIGHT], call[OUT_WIDTH]
    stride_y, stride_x, pad_y, pad_x = call[STRIDE_Y], call[STRIDE_X], call[PAD_Y], call[PAD_X]
    rate_y, rate_x = call[RATE_Y], call[RATE_X]
    padded = padded_channels(channels)
    after = tiled(following, 0, 5, channels, flat_width(channels, padded))
    kernel = weights_of(weight, padded)
    of_weights = np.zeros((KERNEL, KERNEL, padded), np.float32)
    constants = np.zeros((5, padded), np.float32)  # mean, scale, bias, and two sums
    constants[:3, :channels] = table[:3]
    slots = 2 * rate_y // stride_y + 2
    before = max(0, 2 * rate_x - pad_x)  # columns left of the first gradient
    columns = max(before + (out_width - 1) * stride_x + 1, before + pad_x + width)
    rows = np.zeros((slots + 1, columns * padded), np.float32)  # the last stays zero
    whole = channels == padded
    pixels = np.zeros(0 if whole else width * padded, x.dtype)
    made = np.zeros(0 if whole else width * padded, x.dtype)
    filled = max(0, (first + pad_y - 2 * rate_y + stride_y - 1) // stride_y)
    size, pixel = x.itemsize, 4 * padded
    left = 4 * (before + pad_x - 2 * rate_x) * padded
    for at in range(first, last):
        while filled < out_height and filled * stride_y <= at + pad_y:
            fill_gradients(
                y, gradient, (image * out_height + filled) * out_width * channels,
                rows[filled % slots, before * padded :], after, limits[2], limits[3],
                out_width, channels, padded, stride_x,
            )  # fmt: skip
            filled += 1
        taps = np.empty(KERNEL, np.int64)
        for tap in range(KERNEL):
            place = at + pad_y - tap * rate_y
            there = place >= 0 and place % stride_y == 0 and place // stride_y < out_height
            taps[tap] = place_of(rows[place // stride_y % slots if there else slots]) + left
        begin = (image * height + at) * width * channels
        row, to = x[begin : begin + width * channels], out[begin : begin + width * channels]
        if not whole:
            spread_out(row, pixels, channels, padded)
        source, target = (row, to) if whole else (pixels, made)
        # Else half of the time is waiting for memory: the next rows come while this one is computed.
        next_x, next_out = place_of(row) + size * len(row), place_of(to) + size * len(to)
        not_filled = size * (image * out_height + filled) * out_width * channels
        next_y, next_gradient = place_of(y) + not_filled, place_of(gradient) + not_filled
        for block in range(0, padded, LANES):
            place = 4 * block
            gradient_lanes(
                x, place_of(source) + size * block, place_of(target) + size * block, size * padded,
                taps[0] + place, taps[1] + place, taps[2] + place, pixel, pixel * rate_x,
                place_of(kernel) + place, place_of(of_weights) + place, place_of(constants) + place, pixel,
                limits[0], limits[1], width, next_x + size * block, next_out + size * block,
                next_y + size * block, next_gradient + size * block,
            )  # fmt: skip
        if not whole:
            close_up(made, to, channels, padded)
    partial[0], partial[1] = constants[3, :channels], constants[4, :channels]
    for row_of_kernel in range(KERNEL):
        for column in range(KERNEL):
            partial[2 + row_of_kernel * KERNEL + column] = of_weights[row_of_kernel, column, :channels]


@loop
def combine_back(partial: Any, table: Any, pixels: int, has_norm: bool, of_norm: Any, of_weight: Any) -> None:
    """Gradients of the weights (9, C) and, where there is a norm before, what `combine_gradients` makes."""
    bands, _, channels = partial.shape
    if has_norm:
        combine_gradients(partial, table, pixels, of_norm)
    for tap in range(KERNEL * KERNEL):
        total = np.zeros(channels)
        for band in range(bands):
            for channel in range(channels):
                total[channel] += partial[band, 2 + tap, channel]
        for channel in range(channels):
            of_weight[tap, channel] = total[channel]


@part
def share_of(call: Any, x: Any, y: Any, gradient: Any, out: Any) -> None:
    """What one of the threads that share a pass does: bands, until none is left.

    `y` is what the convolution makes; `out` the gradient of `x`.
    """
    which, images, channels, band = call[PASS], call[IMAGES], call[CHANNELS], call[BAND]
    forward = which in (FORWARD, COMBINE_NEXT)
    height = call[OUT_HEIGHT] if forward else call[HEIGHT]
    bands = (height + band - 1) // band
    numbers = carray(pointer(call[NUMBERS]), (5,), np.float64)
    limits = np.empty(4, np.float32)
    for place in range(4):
        limits[place] = numbers[place]
    table = carray(pointer(call[TABLE]), (7, channels), np.float32)
    following = carray(pointer(call[NEXT_TABLE]), (7, channels), np.float32)
    weight = carray(pointer(call[WEIGHT]), (KERNEL, KERNEL, channels), np.float32)
    partial = carray(
        pointer(call[PARTIAL]), (images * bands, 3 if forward else ROWS_OF_PARTIAL, channels), np.float32
    )
    if which == COMBINE_NEXT:
        per_image = call[OUT_HEIGHT] * call[OUT_WIDTH]
        next_weight = carray(pointer(call[NEXT_WEIGHT]), (channels,), np.float32)
        pixels, band_pixels = images * per_image, band * call[OUT_WIDTH]
        combine(partial, following, next_weight, pixels, band_pixels, numbers[4], per_image)
        return
    if which == COMBINE_BACK:
        of_norm = carray(pointer(call[MADE]), (2, channels), np.float32)
        of_weight = carray(pointer(call[NEXT_MADE]), (KERNEL * KERNEL, channels), np.float32)
        pixels = images * call[HEIGHT] * call[WIDTH]
        combine_back(partial, table, pixels, call[HAS_NORM] != 0, of_norm, of_weight)
        return
    job = claim(call, NEXT)
    while job < images * bands:
        image, first = job // bands, job % bands * band
        last = min(height, first + band)
        if which == FORWARD:
            convolve_band(call, x, y, table, weight, partial[job], limits, image, first, last)
        else:
            gradients_of_band(
                call, x, y, gradient, out, table, following, weight, partial[job], limits, image, first, last
            )
        job = claim(call, NEXT)


@part
def share_in_bfloat16(data: Any) -> None:
    call = carray(data, (LENGTH,))
    size = call[IMAGES] * call[CHANNELS] * call[HEIGHT] * call[WIDTH]
    after = call[IMAGES] * call[CHANNELS] * call[OUT_HEIGHT] * call[OUT_WIDTH]
    x = carray(pointer(call[X]), (size,), np.uint16)
    y = carray(pointer(call[AFTER]), (after,), np.uint16)
    gradient = carray(pointer(call[GRADIENT]), (after,), np.uint16)
    out = carray(pointer(call[OUT]), (size,), np.uint16)
    share_of(call, x, y, gradient, out)


@part
def share_in_float32(data: Any) -> None:
    call = carray(data, (LENGTH,))
    size = call[IMAGES] * call[CHANNELS] * call[HEIGHT] * call[WIDTH]
    after = call[IMAGES] * call[CHANNELS] * call[OUT_HEIGHT] * call[OUT_WIDTH]
    x = carray(pointer(call[X]), (size,), np.float32)
    y = carray(pointer(call[AFTER]), (after,), np.float32)
    gradient = carray(pointer(call[GRADIENT]), (after,), np.float32)
    out = carray(pointer(call[OUT]), (size,), np.float32)
    share_of(call, x, y, gradient, out)
