"""Copies: of strided arrays into contiguous ones, of parts of arrays, of rows by number; and constants."""

import math

import numpy as np
from numba import cuda

from ..._arguments import BFLOAT16, is_half
from .launch import kernel, split

RANK = 8  # axes of one launch, once those that lie together are joined; more are copied piece by piece


@kernel
def _gather(span, offset, shape, strides, y):
    """y[i] = span[offset + sum of index * stride], i being the flat index of the indices; all in elements."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        rest, at = i, offset
        for axis in range(RANK - 1, -1, -1):
            rest, index = split(rest, shape[axis])
            at += index * strides[axis]
        y[i] = span[at]


@kernel
def _scatter(x, span, offset, shape, strides):
    """The reverse of `_gather`: span[...] = x[i]."""
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        rest, at = i, offset
        for axis in range(RANK - 1, -1, -1):
            rest, index = split(rest, shape[axis])
            at += index * strides[axis]
        span[at] = x[i]


@kernel
def _fill(y, value):
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = y.dtype.type(value)


@kernel
def _take(x, rows, y):
    """y[j] = x[rows[j]] for rows of x (rows, width)."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        j, at = split(i, y.shape[1])
        y[j, at] = x[rows[j], at]


def gather(call, x, y):
    """y = x, x of any strides, y contiguous and of its shape."""
    x, y = _movable(x), _movable(y)
    for part, flat in _pieces(x, y):
        _gather.launch(call, flat.size, *_geometry(part), flat)


def scatter(call, x, y):
    """y = x, x contiguous, y of any strides and of its shape."""
    x, y = _movable(x), _movable(y)
    for part, flat in _pieces(y, x):
        span, *rest = _geometry(part)
        _scatter.launch(call, flat.size, flat, span, *rest)


def fill(call, y, value):
    """Every element of a contiguous array becomes `value`."""
    if is_half(y.dtype):
        value, y = half_bits(value, y.dtype), y.bits()
    _fill.launch(call, y.size, y.flat(), float(value) if y.dtype.kind == "f" else int(value))


def half_bits(value, dtype):
    """A number as the bits of a float of 16: rounded to nearest, ties to even."""
    if dtype is not BFLOAT16:
        return int(np.array(value, np.float16).view(np.uint16))
    bits = int(np.array(value, np.float32).view(np.uint32))
    return (bits >> 16) | 0x40 if value != value else (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def take(call, x, rows, y):
    """y[j] = x[rows[j]], all contiguous; rows int64 and in range."""
    x, y = _movable(x), _movable(y)
    width = math.prod(x.shape[1:])
    _take.launch(call, y.size, x.view((x.shape[0], width)), rows, y.view((y.shape[0], width)))


def _movable(array):
    """What moves without being computed with: floats of 16 bits as the integers that numba knows for all."""
    return array.bits() if is_half(array.dtype) else array


def _joined(shape, strides):
    """Shape and strides with axes of size 1 left out and axes that lie together made one."""
    axes = []
    for size, stride in zip(shape, strides):
        if size == 1:
            continue
        if axes and axes[-1][1] == size * stride:
            axes[-1] = (axes[-1][0] * size, stride)
        else:
            axes.append((size, stride))
    return axes


def _pieces(x, y):
    """(part of x with at most RANK axes, the same elements of y as one axis), together all of both."""
    if 0 in x.shape:
        return
    axes = _joined(x.shape, x.strides)
    shape, strides = [a for a, _ in axes], [s for _, s in axes]
    x = x.view(shape, strides)
    if len(shape) <= RANK:
        yield x, y.flat()
        return
    step = math.prod(shape[1:])
    for i in range(shape[0]):
        yield from _pieces(
            x.view(shape[1:], strides[1:]).moved(i * strides[0]),
            y.view((step,)).moved(i * step * y.itemsize),
        )


def _geometry(x):
    """(span, offset, shape, strides) of an array: the memory that it touches as one axis, and how."""
    for stride in x.strides:
        if stride % x.itemsize:
            raise ValueError(
                f"an array on the device has strides {x.strides}, need multiples of its {x.itemsize} bytes"
            )
    reach = [(size - 1) * stride // x.itemsize for size, stride in zip(x.shape, x.strides)]
    offset = -sum(r for r in reach if r < 0)
    length = offset + sum(r for r in reach if r > 0) + 1
    lead = RANK - x.ndim
    shape = (1,) * lead + tuple(x.shape)
    strides = (0,) * lead + tuple(stride // x.itemsize for stride in x.strides)
    return x.view((length,)).moved(-offset * x.itemsize), offset, shape, strides
