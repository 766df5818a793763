"""Pooling: one thread per element of the result. x (planes, D, H, W) with any strides; results contiguous."""

import math

from numba import cuda

from .. import _arrays
from .conv import reader
from .launch import device, kernel, split

BANDS = 4 if _arrays.SIMULATOR else 32  # parts of a plane, one each for the threads of a warp


# -- windows -------------------------------------------------------------------------------------------------


@device
def taps_below(end, start, dilation, kernel):
    """How many of the taps start, start + dilation, ... lie below `end`."""
    if start >= end:
        return 0
    taps, _ = split(end - start + dilation - 1, dilation)
    return min(taps, kernel)


@device
def window(o, size, out, kernel, stride, dilation, low, high, adaptive):
    """(begin, valid, counted) of output o along one axis: see `PoolProblem.windows`."""
    if adaptive:
        begin, _ = split(o * size, out)
        end, _ = split((o + 1) * size + out - 1, out)
        return begin, end - begin, end - begin
    start = o * stride - low
    first = taps_below(0, start, dilation, kernel)
    valid = taps_below(size, start, dilation, kernel) - first
    return start + first * dilation, valid, taps_below(size + high, start, dilation, kernel)


@device
def holder(j, index, size, out, stride, dilation, low, adaptive):
    """The j-th output whose window holds the input `index`, -1 if it is none; j counts from 0.

    Along an adaptive axis the outputs from floor(index * out / size) to floor(((index + 1) * out - 1) / size)
    hold it; along any other the one that reads it through tap j.
    """
    if adaptive:
        first, _ = split(index * out, size)
        last, _ = split((index + 1) * out - 1, size)
        return first + j if first + j <= last else -1
    return reader(index + low - j * dilation, stride, out)


@device
def divisor_of(valid, counted, include_pad, override):
    """What the sum of a window is divided by; the empty sum is 0 whatever divides it."""
    if override != 0:
        return override
    return counted if include_pad else max(valid, 1)


# -- the kernels ---------------------------------------------------------------------------------------------


@kernel
def _max(x, y, indices, kernel, stride, dilation, low, high, adaptive):
    """The maximum of every window and its flat position in the plane: the first of equals, any NaN."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        rest, q = split(i, y.shape[3])
        rest, p = split(rest, y.shape[2])
        plane, o = split(rest, y.shape[1])
        d0, ds, _ = window(
            o, x.shape[1], y.shape[1], kernel[0], stride[0], dilation[0], low[0], high[0], adaptive
        )
        h0, hs, _ = window(
            p, x.shape[2], y.shape[2], kernel[1], stride[1], dilation[1], low[1], high[1], adaptive
        )
        w0, ws, _ = window(
            q, x.shape[3], y.shape[3], kernel[2], stride[2], dilation[2], low[2], high[2], adaptive
        )
        best, found = real(-math.inf), -1
        for t in range(ds):
            d = d0 + t * dilation[0]
            for r in range(hs):
                h = h0 + r * dilation[1]
                for s in range(ws):
                    w = w0 + s * dilation[2]
                    value = x[plane, d, h, w]
                    if found < 0 or value > best or (value != value and best == best):
                        best = value
                        found = (d * x.shape[2] + h) * x.shape[3] + w
        y[plane, o, p, q] = best
        if indices.size > 0:
            indices[i] = found


@kernel
def _max_backward(dy, indices, dx, bands, wrong):
    """Every dy (planes, outputs) is added to dx (planes, elements) at its index, in the order of the outputs.

    Each thread owns a band of a plane and looks for what belongs there: the threads of a warp read the same
    indices, and no two write to one element.
    """
    for i in range(cuda.grid(1), dx.shape[0] * bands, cuda.gridsize(1)):
        plane, band = split(i, bands)
        begin, _ = split(band * dx.shape[1], bands)
        end, _ = split((band + 1) * dx.shape[1], bands)
        for j in range(begin, end):
            dx[plane, j] = dx.dtype.type(0)
        for o in range(dy.shape[1]):
            index = indices[plane, o]
            if begin <= index and index < end:
                dx[plane, index] += dy[plane, o]
            elif band == 0 and (index < -1 or index >= dx.shape[1]):
                cuda.atomic.min(wrong, 0, plane * dy.shape[1] + o)


@kernel
def _avg(x, y, kernel, stride, dilation, low, high, adaptive, include_pad, override):
    """The sum of every window over its divisor."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        rest, q = split(i, y.shape[3])
        rest, p = split(rest, y.shape[2])
        plane, o = split(rest, y.shape[1])
        d0, ds, dc = window(
            o, x.shape[1], y.shape[1], kernel[0], stride[0], dilation[0], low[0], high[0], adaptive
        )
        h0, hs, hc = window(
            p, x.shape[2], y.shape[2], kernel[1], stride[1], dilation[1], low[1], high[1], adaptive
        )
        w0, ws, wc = window(
            q, x.shape[3], y.shape[3], kernel[2], stride[2], dilation[2], low[2], high[2], adaptive
        )
        total = real(0)
        for t in range(ds):
            for r in range(hs):
                for s in range(ws):
                    total += x[plane, d0 + t * dilation[0], h0 + r * dilation[1], w0 + s * dilation[2]]
        divisor = divisor_of(ds * hs * ws, dc * hc * wc, include_pad, override)
        y[plane, o, p, q] = total / real(divisor) if ds * hs * ws > 0 else real(0)


@kernel
def _avg_backward(dy, dx, most, kernel, stride, dilation, low, high, adaptive, include_pad, override):
    """dx = sum of dy over its divisor, over the windows (on each axis `most` at most) with the element."""
    real = dx.dtype.type
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        rest, w = split(i, dx.shape[3])
        rest, h = split(rest, dx.shape[2])
        plane, d = split(rest, dx.shape[1])
        total = real(0)
        for t in range(most[0]):
            o = holder(t, d, dx.shape[1], dy.shape[1], stride[0], dilation[0], low[0], adaptive)
            if o < 0:
                continue
            _, ds, dc = window(
                o, dx.shape[1], dy.shape[1], kernel[0], stride[0], dilation[0], low[0], high[0], adaptive
            )
            for r in range(most[1]):
                p = holder(r, h, dx.shape[2], dy.shape[2], stride[1], dilation[1], low[1], adaptive)
                if p < 0:
                    continue
                _, hs, hc = window(
                    p, dx.shape[2], dy.shape[2], kernel[1], stride[1], dilation[1], low[1], high[1], adaptive
                )
                for s in range(most[2]):
                    q = holder(s, w, dx.shape[3], dy.shape[3], stride[2], dilation[2], low[2], adaptive)
                    if q < 0:
                        continue
                    _, ws, wc = window(
                        q,
                        dx.shape[3],
                        dy.shape[3],
                        kernel[2],
                        stride[2],
                        dilation[2],
                        low[2],
                        high[2],
                        adaptive,
                    )
                    divisor = divisor_of(ds * hs * ws, dc * hc * wc, include_pad, override)
                    total += dy[plane, o, p, q] / real(divisor)
        dx[plane, d, h, w] = total


# -- their launchers -----------------------------------------------------------------------------------------


def _options(problem):
    return (
        problem.kernel,
        problem.stride,
        problem.dilation,
        problem.pad_low,
        problem.pad_high,
        problem.adaptive,
    )


def _averaging(problem):
    return problem.count_include_pad, problem.divisor_override or 0


def max_pool(call, problem, x, y, indices):
    """indices: contiguous int64, or of no elements."""
    _max.launch(call, y.size, x, y, indices, *_options(problem))


def max_pool_backward(call, dy, indices, dx, wrong):
    _max_backward.launch(call, dx.shape[0] * BANDS, dy, indices, dx, BANDS, wrong)


def avg_pool(call, problem, x, y):
    _avg.launch(call, y.size, x, y, *_options(problem), *_averaging(problem))


def _holders(problem):
    """How many outputs an input can lie in along each axis: the taps, or what adaptive windows overlap."""
    if not problem.adaptive:
        return problem.kernel
    return tuple(-(-out // size) + 1 for size, out in zip(problem.size, problem.out))


def avg_pool_backward(call, problem, dy, dx):
    options = _options(problem)
    _avg_backward.launch(call, dx.size, dy, dx, _holders(problem), *options, *_averaging(problem))
