"""Losses over many scores: softplus, and the cross-entropy of scores that are enlarged first. All in float32.

torch's `log1p` takes ten nanoseconds a number, its cross-entropy writes out every score of every pixel three
times over. Here a logarithm is a few multiplications, and the scores of a row of pixels never leave the
cache.
"""

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from falconet.layers.fast.kernels.bfloat16 import as_bits, as_float, claim, loop, part, pointer

# What a pass is called with.
(
    PASS, JOBS, X, OUT, GRADIENT, LABELS, RIGHT, LOG_SUMS, CELL_ROWS, SHARES, IMAGES, CLASSES, HIGH, HEIGHT,
    WIDTH, NEXT,
) = range(16)  # fmt: skip
LENGTH = 16
SOFTPLUS, SIGMOID, PIXELS, PIXELS_BACK = range(4)
# What one thread takes at a time: numbers of a long list, rows of pixels, classes.
CHUNK, BAND, GROUP = 2**14, 32, 32
IGNORE = 255
UNKNOWN = 254  # in RIGHT: the label is no class

LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693145752), np.float32(1.42860677e-6)  # the first with 9 zeros at its end
ROUNDS = np.float32(1.5 * 2**23)  # added to a small number it leaves the nearest whole one in the last bits


@part
def exponential(x: Any) -> Any:
    """Of a float32 from -87 to 0: 2^n times a polynomial for what is left, within 1e-7 of the value."""
    bounded = np.float32(-87) if x < np.float32(-87) else x
    shifted = bounded * LOG2_E + ROUNDS
    whole = shifted - ROUNDS
    left = bounded - whole * LN2_HIGH - whole * LN2_LOW
    made = np.float32(1 / 720) + left * np.float32(1 / 5040)
    made = np.float32(1 / 120) + left * made
    made = np.float32(1 / 24) + left * made
    made = np.float32(1 / 6) + left * made
    made = np.float32(0.5) + left * made
    made = np.float32(1) + left * (np.float32(1) + left * made)
    return as_float(as_bits(made) + (as_bits(shifted) << np.uint32(23)))


@part
def logarithm_of_one_more(x: Any) -> Any:
    """log(1 + x) of a float32 from 0 to 1, within 2e-7 of the value: 2 artanh(x / (2 + x))."""
    tangent = x / (np.float32(2) + x)
    square = tangent * tangent
    made = np.float32(1 / 13) + square * np.float32(1 / 15)
    made = np.float32(1 / 11) + square * made
    made = np.float32(1 / 9) + square * made
    made = np.float32(1 / 7) + square * made
    made = np.float32(1 / 5) + square * made
    made = np.float32(1 / 3) + square * made
    twice = tangent + tangent
    return twice + twice * square * made


@part
def logarithm(x: Any) -> Any:
    """Of a float32 that is 1 or more, within 2e-7: of its exponent, and of what is left as above."""
    bits = as_bits(x)
    mantissa = as_float((bits & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000))  # from 1 to 2
    halved = mantissa > np.float32(1.4142135)
    left = np.float32(0.5) * mantissa if halved else mantissa
    exponent = np.float32(np.int32(bits >> np.uint32(23))) - (np.float32(126) if halved else np.float32(127))
    tangent = (left - np.float32(1)) / (left + np.float32(1))
    square = tangent * tangent
    made = np.float32(1 / 7) + square * np.float32(1 / 9)
    made = np.float32(1 / 5) + square * made
    made = np.float32(1 / 3) + square * made
    twice = tangent + tangent
    total = exponent * LN2_LOW + (twice + twice * square * made)
    return total + exponent * LN2_HIGH


@loop
def softplus_of(x: Any, out: Any) -> None:
    """log(1 + e^x) of each number."""
    for place in range(len(x)):
        value = x[place]
        less = -value if value > 0 else value
        above = value if value > 0 else np.float32(0)
        made = above + logarithm_of_one_more(exponential(less))
        out[place] = made if value == value else value


@loop
def sigmoid_of(x: Any, gradient: Any, out: Any) -> None:
    """1 / (1 + e^-x) of each number, times a gradient."""
    for place in range(len(x)):
        value = x[place]
        less = -value if value > 0 else value
        small = exponential(less)
        over = gradient[place] / (np.float32(1) + small)
        made = over if value > 0 else over * small
        out[place] = made if value == value else value


@loop
def enlarge(cells: Any, above: int, below: int, share: Any, made: Any, highest: Any) -> None:
    """Scores (C, W) of a row of pixels between two rows of `cells` (C, h, W), and each pixel's highest."""
    highest[:] = -np.inf
    for each in range(made.shape[0]):
        one, other, row = cells[each, above], cells[each, below], made[each]
        for place in range(made.shape[1]):
            value = one[place] + share * (other[place] - one[place])
            row[place] = value
            most = highest[place]
            # What is no number stays, and makes the loss none.
            highest[place] = most if value <= most else value


@loop
def losses_of_row(
    scores: Any, highest: Any, labels: Any, losses: Any, log_sums: Any, right: Any, sums: Any
) -> None:
    """Cross-entropy of a row of pixels."""
    width = len(highest)
    sums[:] = 0
    for each in range(scores.shape[0]):
        row = scores[each]
        for place in range(width):
            sums[place] += exponential(row[place] - highest[place])
    for place in range(width):
        total = sums[place]
        log_sums[place] = highest[place] + (logarithm(total) if total >= 1 else total)
    for place in range(width):
        label = labels[place]
        known = label < scores.shape[0]
        score = scores[label, place] if known else np.float32(0)
        losses[place] = log_sums[place] - score if known else np.float32(0)
        right[place] = score >= highest[place] if known else (0 if label == IGNORE else UNKNOWN)


@loop
def gradients_of_row(
    cells: Any, labels: Any, log_sums: Any, gradient: Any, share: Any, made: Any, above: int, below: int,
    first: int, counted: Any, passed: Any,
) -> None:  # fmt: skip
    """Add a row of pixels' gradients to those of the two rows of cells it lies between, in `made` (K, h, W).

    K classes from `first` on are meant; `counted` and `passed` are scratch.
    """
    width, rest = len(gradient), np.float32(1) - share
    for place in range(width):
        label = labels[place]
        counted[place] = gradient[place] if label < cells.shape[0] else np.float32(0)
        if first <= label < first + made.shape[0]:
            made[label - first, above, place] -= rest * counted[place]
            made[label - first, below, place] -= share * counted[place]
    for each in range(made.shape[0]):
        one, other = cells[first + each, above], cells[first + each, below]
        for place in range(width):
            score = one[place] + share * (other[place] - one[place])
            passed[place] = exponential(score - log_sums[place]) * counted[place]
        upper, lower = made[each, above], made[each, below]
        for place in range(width):
            upper[place] += rest * passed[place]
        for place in range(width):
            lower[place] += share * passed[place]


@loop
def pixels(call: Any, job: int) -> None:
    """Forward a band of pixels' rows of one image, backward some classes of one image."""
    classes, high, height, width, jobs = call[CLASSES], call[HIGH], call[HEIGHT], call[WIDTH], call[JOBS]
    parts = jobs // call[IMAGES]
    image, part_of_it = job // parts, job % parts
    cells = carray(pointer(call[X]), (call[IMAGES], classes, high, width), np.float32)[image]
    size = (call[IMAGES], height, width)
    labels = carray(pointer(call[LABELS]), size, np.uint8)[image]
    log_sums = carray(pointer(call[LOG_SUMS]), size, np.float32)[image]
    rows = carray(pointer(call[CELL_ROWS]), (2, height), np.int64)
    shares = carray(pointer(call[SHARES]), (height,), np.float32)
    one, other = np.empty(width, np.float32), np.empty(width, np.float32)
    if call[PASS] == PIXELS:
        losses = carray(pointer(call[OUT]), size, np.float32)[image]
        right = carray(pointer(call[RIGHT]), size, np.uint8)[image]
        scores = np.empty((classes, width), np.float32)
        for at in range(part_of_it * BAND, min(height, (part_of_it + 1) * BAND)):
            enlarge(cells, rows[0, at], rows[1, at], shares[at], scores, one)
            losses_of_row(scores, one, labels[at], losses[at], log_sums[at], right[at], other)
        return
    gradient = carray(pointer(call[GRADIENT]), size, np.float32)[image]
    first = part_of_it * GROUP
    made = carray(pointer(call[OUT]), (call[IMAGES], classes, high, width), np.float32)[
        image, first : min(classes, first + GROUP)
    ]
    made[:] = 0
    for at in range(height):
        gradients_of_row(
            cells, labels[at], log_sums[at], gradient[at], shares[at], made, rows[0, at], rows[1, at],
            first, one, other,
        )  # fmt: skip


@part
def share_of(data: Any) -> None:
    """What one of the threads that share a pass does: jobs, until none is left."""
    call = carray(data, (LENGTH,))
    which, jobs, numbers = call[PASS], call[JOBS], call[WIDTH]
    x = carray(pointer(call[X]), (numbers,), np.float32)
    out = carray(pointer(call[OUT]), (numbers,), np.float32)
    gradient = carray(pointer(call[GRADIENT]), (numbers,), np.float32)
    job = claim(call, NEXT)
    while job < jobs:
        begin = job * CHUNK
        end = min(numbers, begin + CHUNK)
        if which == SOFTPLUS:
            softplus_of(x[begin:end], out[begin:end])
        elif which == SIGMOID:
            sigmoid_of(x[begin:end], gradient[begin:end], out[begin:end])
        else:
            pixels(call, job)
        job = claim(call, NEXT)
