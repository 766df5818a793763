"""Softmax along the middle axis of (outer, classes, inner): one thread per row. Arrays are contiguous."""

import math

from numba import cuda

from .launch import device, kernel, split


@device
def largest(real, x, n, inner):
    """The maximum of a row, NaN left aside: it comes back through the sum of exponentials."""
    top = real(-math.inf)
    for c in range(x.shape[1]):
        top = max(top, x[n, c, inner]) if x[n, c, inner] == x[n, c, inner] else top
    return top


@device
def total_of(real, x, top, n, inner):
    """The sum of exp(x - top) along a row."""
    total = real(0)
    for c in range(x.shape[1]):
        total += real(math.exp(x[n, c, inner] - top))
    return total


@kernel
def _softmax(x, y, log):
    """y = exp(x) / sum of exp(x), or its logarithm, the maximum taken out first so that nothing overflows."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.shape[0] * y.shape[2], cuda.gridsize(1)):
        n, inner = split(i, y.shape[2])
        top = largest(real, x, n, inner)
        total = total_of(real, x, top, n, inner)
        if log:
            log_total = real(math.log(total))
            for c in range(y.shape[1]):
                y[n, c, inner] = (x[n, c, inner] - top) - log_total
        else:
            for c in range(y.shape[1]):
                y[n, c, inner] = real(math.exp(x[n, c, inner] - top)) / total


@kernel
def _softmax_backward(dy, y, dx, log):
    """softmax: dx = y * (dy - sum of dy * y);  log_softmax: dx = dy - exp(y) * sum of dy."""
    real = dx.dtype.type
    for i in range(cuda.grid(1), dx.shape[0] * dx.shape[2], cuda.gridsize(1)):
        n, inner = split(i, dx.shape[2])
        total = real(0)
        for c in range(dx.shape[1]):
            total += dy[n, c, inner] if log else dy[n, c, inner] * y[n, c, inner]
        for c in range(dx.shape[1]):
            if log:
                dx[n, c, inner] = dy[n, c, inner] - real(math.exp(y[n, c, inner])) * total
            else:
                dx[n, c, inner] = y[n, c, inner] * (dy[n, c, inner] - total)


def softmax(call, x, y, log):
    _softmax.launch(call, y.shape[0] * y.shape[2] if y.size else 0, x, y, log)


def softmax_backward(call, dy, y, dx, log):
    _softmax_backward.launch(call, dx.shape[0] * dx.shape[2] if dx.size else 0, dy, y, dx, log)
