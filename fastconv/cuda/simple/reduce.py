"""Sums in a fixed order, without atomics: parts first, their sums after them, until one number is left.

How a sum is cut depends on its length alone. Neighbouring threads read neighbouring elements.
"""

import numpy as np
from numba import cuda

from ..._arguments import is_half
from .copy import fill
from .launch import kernel, split

PART = 64  # terms that one thread adds up: four passes for 16 million terms


@kernel
def _rows(x, y):
    """y[r, j] = sum of x[r, i] over i = j, j + m, j + 2m, ...; x (rows, length), y (rows, m)."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        r, j = split(i, y.shape[1])
        total = real(0)
        for at in range(j, x.shape[1], y.shape[1]):
            total += x[r, at]
        y[r, j] = total


@kernel
def _channels(x, y):
    """y[c, j] = sum of the elements j, j + m, ... of channel c; x (N, C, inner), y (C, m)."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        c, j = split(i, y.shape[1])
        total = real(0)
        for at in range(j, x.shape[0] * x.shape[2], y.shape[1]):
            n, inner = split(at, x.shape[2])
            total += x[n, c, inner]
        y[c, j] = total


def parts_of(length):
    """How many parts a sum of so many terms is cut into."""
    return max(-(-length // PART), 1)


def sum_dtype(dtype):
    """The dtype in which sums of numbers of a dtype are kept: float32 for those of 16 bits."""
    return np.dtype(np.float32) if is_half(dtype) else dtype


def rows(call, x, result=None):
    """The sums of the rows of x (rows, length), contiguous: an array (rows,), `result` if given."""
    count, dtype = x.shape[0], sum_dtype(x.dtype)
    if result is None:
        result = call.scratch((count,), dtype)
    if x.shape[1] == 0:
        fill(call, result, 0)
        return result
    while True:
        parts = parts_of(x.shape[1])
        y = result.view((count, 1)) if parts == 1 else call.scratch((count, parts), dtype)
        _rows.launch(call, y.size, x, y)
        if parts == 1:
            return result
        x = y


def channels(call, x, result=None):
    """The sums of x (N, C, inner) over all axes but the middle one: an array (C,), `result` if given."""
    first = call.scratch((x.shape[1], parts_of(x.shape[0] * x.shape[2])), sum_dtype(x.dtype))
    _channels.launch(call, first.size, x, first)
    return rows(call, first, result)
