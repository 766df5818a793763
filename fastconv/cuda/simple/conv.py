"""Convolution, its two gradients, im2col and col2im: one thread per element of the result.

Arrays have five axes, x (N, C, D, H, W), weight (K, C/groups, T, R, S), y (N, K, O, P, Q), with any strides.
`stride`, `dilation`, `low` (the padding in front) are triples. Every y and dx is one sum in a fixed order; a
gradient of the weights is cut into parts along N, O, P, whose sums are added by `reduce`.
"""

import math

from numba import cuda

from .elementwise import ACTIVATIONS, activate
from .launch import device, kernel, split

MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}
ZEROS, REFLECT, REPLICATE, CIRCULAR = MODES.values()
WEIGHT_THREADS = 1 << 18  # threads that fill a large device; so many partial sums of dweight are kept


# -- which element reads which -------------------------------------------------------------------------------


@device
def source(position, size, mode):
    """The input index that stands at a position of a padded axis, -1 where there is none (a zero).

    Position 0 is the first element of the axis; the padding lies below 0 and from `size` on.
    """
    if 0 <= position and position < size:
        return position
    if mode == ZEROS:
        return -1
    if mode == REPLICATE:
        return 0 if position < 0 else size - 1
    if mode == CIRCULAR:
        return position % size
    if size == 1:
        return 0
    period = 2 * (size - 1)  # reflect: there and back, the two ends not repeated
    position = position % period
    return min(position, period - position)


@device
def reader(offset, stride, out):
    """The output whose window starts at `offset` of the padded axis, -1 if none does."""
    if offset < 0:
        return -1
    o, rest = split(offset, stride)
    return o if rest == 0 and o < out else -1


@device
def reader_of(j, index, size, low, mode, tap, stride, out):
    """The output that reads the input `index` through a tap at its j-th place in the padded axis, or -1.

    Place 0 is the element itself; places 1, 2, ... are the positions of the padding, of which some repeat it.
    """
    position = index
    if j > 0:
        position = -j if j <= low else size + j - low - 1
        if source(position, size, mode) != index:
            return -1
    return reader(position + low - tap, stride, out)


# -- the kernels ---------------------------------------------------------------------------------------------


@kernel
def _forward(x, weight, bias, y, stride, dilation, low, mode, groups, activation, parameter):
    """y[n, k, o] = activation(bias[k] + sum over t and c of weight[k, c, t] * x[n, c, i])."""
    real = y.dtype.type
    channels, filters = weight.shape[1], weight.shape[0] // groups
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        rest, q = split(i, y.shape[4])
        rest, p = split(rest, y.shape[3])
        rest, o = split(rest, y.shape[2])
        n, k = split(rest, y.shape[1])
        first = k // filters * channels
        total = real(0)
        for t in range(weight.shape[2]):
            d = source(o * stride[0] - low[0] + t * dilation[0], x.shape[2], mode)
            if d < 0:
                continue
            for r in range(weight.shape[3]):
                h = source(p * stride[1] - low[1] + r * dilation[1], x.shape[3], mode)
                if h < 0:
                    continue
                for s in range(weight.shape[4]):
                    w = source(q * stride[2] - low[2] + s * dilation[2], x.shape[4], mode)
                    if w < 0:
                        continue
                    for c in range(channels):
                        total += weight[k, c, t, r, s] * x[n, first + c, d, h, w]
        if bias.size > 0:
            total += bias[k]
        y[n, k, o, p, q] = activate(real, activation, total, real(parameter))


@kernel
def _backward_input(dy, weight, bias, dx, stride, dilation, low, high, mode, groups):
    """dx[n, c, i] = bias[c] + sum of weight[k, c, t] * dy[n, k, o] over all k and the (t, o) that read i."""
    real = dx.dtype.type
    channels, filters = weight.shape[1], weight.shape[0] // groups
    places_d = 1 if mode == ZEROS else 1 + low[0] + high[0]
    places_h = 1 if mode == ZEROS else 1 + low[1] + high[1]
    places_w = 1 if mode == ZEROS else 1 + low[2] + high[2]
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        rest, w = split(i, dx.shape[4])
        rest, h = split(rest, dx.shape[3])
        rest, d = split(rest, dx.shape[2])
        n, c = split(rest, dx.shape[1])
        group, own = split(c, channels)
        first = group * filters
        total = real(0)
        for t in range(weight.shape[2]):
            for at_d in range(places_d):
                o = reader_of(at_d, d, dx.shape[2], low[0], mode, t * dilation[0], stride[0], dy.shape[2])
                if o < 0:
                    continue
                for r in range(weight.shape[3]):
                    for at_h in range(places_h):
                        p = reader_of(
                            at_h, h, dx.shape[3], low[1], mode, r * dilation[1], stride[1], dy.shape[3]
                        )
                        if p < 0:
                            continue
                        for s in range(weight.shape[4]):
                            for at_w in range(places_w):
                                q = reader_of(
                                    at_w,
                                    w,
                                    dx.shape[4],
                                    low[2],
                                    mode,
                                    s * dilation[2],
                                    stride[2],
                                    dy.shape[4],
                                )
                                if q < 0:
                                    continue
                                for k in range(first, first + filters):
                                    total += weight[k, own, t, r, s] * dy[n, k, o, p, q]
        if bias.size > 0:
            total += bias[c]
        dx[n, c, d, h, w] = total


@kernel
def _backward_weight(dy, x, part, weight_shape, stride, dilation, low, mode, groups):
    """part[j, (k, c, t, r, s)] = sum of dy * x over the rows (n, o, p) = j, j + parts, ... and all q."""
    real = part.dtype.type
    filters = weight_shape[0] // groups
    rows = dy.shape[0] * dy.shape[2] * dy.shape[3]
    for i in range(cuda.grid(1), part.size, cuda.gridsize(1)):
        j, element = split(i, part.shape[1])
        rest, s = split(element, weight_shape[4])
        rest, r = split(rest, weight_shape[3])
        rest, t = split(rest, weight_shape[2])
        k, own = split(rest, weight_shape[1])
        c = k // filters * weight_shape[1] + own
        total = real(0)
        for row in range(j, rows, part.shape[0]):
            rest, p = split(row, dy.shape[3])
            n, o = split(rest, dy.shape[2])
            d = source(o * stride[0] - low[0] + t * dilation[0], x.shape[2], mode)
            h = source(p * stride[1] - low[1] + r * dilation[1], x.shape[3], mode)
            if d < 0 or h < 0:
                continue
            for q in range(dy.shape[4]):
                w = source(q * stride[2] - low[2] + s * dilation[2], x.shape[4], mode)
                if w >= 0:
                    total += dy[n, k, o, p, q] * x[n, c, d, h, w]
        part[j, element] = total


@kernel
def _sum_parts(part, dweight):
    """dweight[e] = sum over j of part[j, e]."""
    real = dweight.dtype.type
    for i in range(cuda.grid(1), dweight.size, cuda.gridsize(1)):
        total = real(0)
        for j in range(part.shape[0]):
            total += part[j, i]
        dweight[i] = total


@kernel
def _im2col(x, cols, kernel, out, stride, dilation, low, mode):
    """cols[n, (c, t, r, s), (o, p, q)] = x[n, c, i], 0 where the padding has none."""
    real = cols.dtype.type
    for i in range(cuda.grid(1), cols.size, cuda.gridsize(1)):
        rest, column = split(i, cols.shape[2])
        n, row = split(rest, cols.shape[1])
        rest, q = split(column, out[2])
        o, p = split(rest, out[1])
        rest, s = split(row, kernel[2])
        rest, r = split(rest, kernel[1])
        c, t = split(rest, kernel[0])
        d = source(o * stride[0] - low[0] + t * dilation[0], x.shape[2], mode)
        h = source(p * stride[1] - low[1] + r * dilation[1], x.shape[3], mode)
        w = source(q * stride[2] - low[2] + s * dilation[2], x.shape[4], mode)
        cols[n, row, column] = x[n, c, d, h, w] if d >= 0 and h >= 0 and w >= 0 else real(0)


@kernel
def _col2im(cols, bias, x, kernel, out, stride, dilation, low, high, mode):
    """x[n, c, i] = bias[c] + sum of cols[n, (c, t), o] over the (t, o) that read i."""
    real = x.dtype.type
    places_d = 1 if mode == ZEROS else 1 + low[0] + high[0]
    places_h = 1 if mode == ZEROS else 1 + low[1] + high[1]
    places_w = 1 if mode == ZEROS else 1 + low[2] + high[2]
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        rest, w = split(i, x.shape[4])
        rest, h = split(rest, x.shape[3])
        rest, d = split(rest, x.shape[2])
        n, c = split(rest, x.shape[1])
        total = real(0)
        for t in range(kernel[0]):
            for at_d in range(places_d):
                o = reader_of(at_d, d, x.shape[2], low[0], mode, t * dilation[0], stride[0], out[0])
                if o < 0:
                    continue
                for r in range(kernel[1]):
                    for at_h in range(places_h):
                        p = reader_of(at_h, h, x.shape[3], low[1], mode, r * dilation[1], stride[1], out[1])
                        if p < 0:
                            continue
                        for s in range(kernel[2]):
                            row = ((c * kernel[0] + t) * kernel[1] + r) * kernel[2] + s
                            for at_w in range(places_w):
                                q = reader_of(
                                    at_w, w, x.shape[4], low[2], mode, s * dilation[2], stride[2], out[2]
                                )
                                if q >= 0:
                                    total += cols[n, row, (o * out[1] + p) * out[2] + q]
        if bias.size > 0:
            total += bias[c]
        x[n, c, d, h, w] = total


@kernel
def _finish(y, bias, activation, parameter):
    """y = activation(y + bias[k]); y (N, K, positions)."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        rest, at = split(i, y.shape[2])
        n, k = split(rest, y.shape[1])
        value = y[n, k, at]
        if bias.size > 0:
            value += bias[k]
        y[n, k, at] = activate(real, activation, value, real(parameter))


# -- their launchers: arrays in five axes, the problem -------------------------------------------------------


def _nothing(like):
    """Stands for a bias that is None."""
    return like.view((0,))


def forward(call, problem, x, weight, bias, y):
    """See `fastconv._reference.conv_forward`; y is contiguous."""
    _forward.launch(
        call, y.size, x, weight, _nothing(y) if bias is None else bias, y,
        problem.stride, problem.dilation, problem.pad_low, MODES[problem.padding_mode], problem.groups,
        ACTIVATIONS[problem.activation], 0.01,
    )  # fmt: skip


def backward_input(call, problem, dy, weight, bias, dx):
    """See `fastconv._reference.conv_backward_input`; dx is contiguous."""
    _backward_input.launch(
        call, dx.size, dy, weight, _nothing(dx) if bias is None else bias, dx,
        problem.stride, problem.dilation, problem.pad_low, problem.pad_high, MODES[problem.padding_mode],
        problem.groups,
    )  # fmt: skip


def parts_of(problem):
    """How many partial sums of every weight there are: by the problem of one sample, so bounded."""
    rows = problem.out[0] * problem.out[1]
    return max(min(rows, -(-WEIGHT_THREADS // math.prod(problem.weight_shape))), 1)


def backward_weight(call, problem, dy, x, dweight):
    """See `fastconv._reference.conv_backward_weight`; dweight is contiguous."""
    part = call.scratch((parts_of(problem), dweight.size), dweight.dtype)
    _backward_weight.launch(
        call, part.size, dy, x, part, dweight.shape,
        problem.stride, problem.dilation, problem.pad_low, MODES[problem.padding_mode], problem.groups,
    )  # fmt: skip
    sum_parts(call, part, dweight)


def weight_scratch(problem):
    """Bytes that `backward_weight` needs beside its arguments."""
    return parts_of(problem) * math.prod(problem.weight_shape) * problem.dtype.itemsize


def _geometry(problem):
    return problem.kernel, problem.out, problem.stride, problem.dilation, problem.pad_low


def im2col(call, problem, x, cols):
    """cols (N, C * taps, positions), contiguous."""
    _im2col.launch(call, cols.size, x, cols, *_geometry(problem), MODES[problem.padding_mode])


def col2im(call, problem, cols, bias, x):
    """x contiguous, cols of any strides; bias (C,) or None."""
    bias, mode = _nothing(x) if bias is None else bias, MODES[problem.padding_mode]
    _col2im.launch(call, x.size, cols, bias, x, *_geometry(problem), problem.pad_high, mode)


def finish(call, problem, y, bias):
    """Bias and activation on a y that lacks them."""
    y = y.view((problem.N, problem.K, math.prod(problem.out)))
    bias = _nothing(y) if bias is None else bias
    _finish.launch(call, y.size, y, bias, ACTIVATIONS[problem.activation], 0.01)


def sum_parts(call, part, dweight):
    """dweight = the sum of part (parts, elements) over its first axis, in order."""
    _sum_parts.launch(call, dweight.size, part, dweight.flat())
