"""Convolution on the device: the tables, arrays in five axes, allocation. Arguments are already valid.

Promises, for every algorithm of "strict" precision: the same inputs give the same bits on one kind of device,
whatever the strides; what is not finite stays within its own sums; y and dx of a sample do not depend on the
other samples.
"""

import math

from .. import fast
from .._arrays import Call
from ..simple import conv as simple
from ..simple import dense
from . import half
from .algorithms import TABLES, Algorithm
from .norm import sum_channels


def five_axes(array, problem):
    """x or y as (N, C, D, H, W): leading axes of size 1 for what the user's rank lacks."""
    first = 3 - problem.ndim
    if not problem.batched:
        array = array.view((1, *array.shape), (0, *array.strides))
    shape, strides = array.shape, array.strides
    return array.view((*shape[:2], *(1,) * first, *shape[2:]), (*strides[:2], *(0,) * first, *strides[2:]))


def weight_axes(array, problem):
    """The weight as (K, C/groups, T, R, S)."""
    first = (1,) * (3 - problem.ndim)
    shape, strides = array.shape, array.strides
    return array.view((*shape[:2], *first, *shape[2:]), (*strides[:2], *(0,) * len(first), *strides[2:]))


def _run(direction, problem, algorithm, call, *arrays):
    TABLES.choose(direction, problem, algorithm).run(call, problem, *arrays)


def conv_forward(x, weight, bias, problem, algorithm, out):
    call = Call(problem.op, x, weight, bias, out)
    x, weight, bias, y = call.arrays
    if y is None:
        y = call.empty(problem.y_shape, problem.dtype)
    arrays = five_axes(x, problem), weight_axes(weight, problem), bias, five_axes(y, problem)
    _run("conv", problem, algorithm, call, *arrays)
    return y.owner


def conv_backward_input(dy, weight, bias, problem, algorithm):
    call = Call(problem.op, dy, weight, bias)
    dy, weight, bias = call.arrays
    dx = call.empty(problem.x_shape, problem.dtype)
    arrays = five_axes(dy, problem), weight_axes(weight, problem), bias, five_axes(dx, problem)
    _run("conv_backward_input", problem, algorithm, call, *arrays)
    return dx.owner


def conv_backward_weight(dy, x, problem, algorithm):
    call = Call(problem.op, dy, x)
    dy, x = call.arrays
    dweight = call.empty(problem.weight_shape, problem.dtype)
    arrays = five_axes(dy, problem), five_axes(x, problem), weight_axes(dweight, problem)
    _run("conv_backward_weight", problem, algorithm, call, *arrays)
    return dweight.owner


def conv_backward_weight_bias(dy, x, problem, algorithm):
    call = Call(problem.op, dy, x)
    dy, x = call.arrays
    dweight, dbias = call.empty(problem.weight_shape, problem.dtype), call.empty((problem.K,), problem.dtype)
    arrays = five_axes(dy, problem), five_axes(x, problem), weight_axes(dweight, problem)
    _run("conv_backward_weight", problem, algorithm, call, *arrays)
    sum_channels(call, dy, int(problem.batched), dbias)
    return dweight.owner, dbias.owner


def im2col(x, problem):
    call = Call("im2col", x)
    cols = call.empty(problem.columns_shape, problem.dtype)
    simple.im2col(call, problem, five_axes(call.arrays[0], problem), cols)
    return cols.owner


def col2im(cols, problem):
    call = Call("col2im", cols)
    x = call.empty(problem.x_shape, problem.dtype)
    simple.col2im(call, problem, call.arrays[0], None, five_axes(x, problem))
    return x.owner


# -- im2col: the textbook form, the patch matrix of the whole batch written out and multiplied ---------------


def _columns(call, problem, x):
    """The patch matrix (N, C * taps, positions)."""
    cols = call.scratch(problem.columns_shape, problem.dtype)
    simple.im2col(call, problem, x, cols)
    return cols


def _by_group(call, array, problem):
    """(N, groups, rows/groups, positions) of (N, rows, ...): the rows of a group lie together."""
    array = call.contiguous(array)
    rows = array.shape[1] // problem.groups
    return array.view((array.shape[0], problem.groups, rows, math.prod(array.shape[2:])))


def _weight_matrix(call, weight, problem):
    """(N, groups, K/groups, C/groups * taps): the same for every sample."""
    weight = call.contiguous(weight)
    shape = problem.groups, problem.K // problem.groups, math.prod(weight.shape[1:])
    return weight.view(shape).spread((problem.N, *shape))


def _im2col_forward(call, problem, x, weight, bias, y):
    cols = _by_group(call, _columns(call, problem, x), problem)
    dense.products(call, _weight_matrix(call, weight, problem), cols, _by_group(call, y, problem))
    simple.finish(call, problem, y, bias)


def _im2col_backward_input(call, problem, dy, weight, bias, dx):
    cols = call.scratch(problem.columns_shape, problem.dtype)
    rows = _by_group(call, dy, problem)
    dense.products(call, _weight_matrix(call, weight, problem).T, rows, _by_group(call, cols, problem))
    simple.col2im(call, problem, cols, bias, dx)


def _im2col_backward_weight(call, problem, dy, x, dweight):
    cols = _by_group(call, _columns(call, problem, x), problem)
    part = call.scratch((problem.N, dweight.size), problem.dtype)
    filters = problem.K // problem.groups
    parts = part.view((problem.N, problem.groups, filters, dweight.size // problem.K))
    dense.products(call, _by_group(call, dy, problem), cols.T, parts)
    simple.sum_parts(call, part, dweight)


# -- the tables ----------------------------------------------------------------------------------------------


def _anything(problem):
    return None


def _always(problem, precision):
    return None


def _only_named(problem, precision):
    return "is run only when named: it writes out the whole patch matrix"


def _no_scratch(kernels, problem, threads):
    return 0


def _weight_scratch(kernels, problem, threads):
    return simple.weight_scratch(problem)


def _columns_scratch(kernels, problem, threads):
    return math.prod(problem.columns_shape) * problem.dtype.itemsize


def _columns_weight_scratch(kernels, problem, threads):
    weights = math.prod(problem.weight_shape)
    return _columns_scratch(kernels, problem, threads) + problem.N * weights * problem.dtype.itemsize


TABLES["conv"] = (
    *fast.rows("conv"),
    Algorithm("im2col", _anything, _only_named, half.run(_im2col_forward), half.scratch(_columns_scratch)),
    Algorithm("simple", _anything, _always, half.run(simple.forward), half.scratch(_no_scratch)),
)
TABLES["conv_backward_input"] = (
    *fast.rows("conv_backward_input"),
    Algorithm(
        "im2col", _anything, _only_named, half.run(_im2col_backward_input), half.scratch(_columns_scratch)
    ),
    Algorithm("simple", _anything, _always, half.run(simple.backward_input), half.scratch(_no_scratch)),
)
TABLES["conv_backward_weight"] = (
    *fast.rows("conv_backward_weight"),
    Algorithm(
        "im2col",
        _anything,
        _only_named,
        half.run(_im2col_backward_weight),
        half.scratch(_columns_weight_scratch),
    ),
    Algorithm("simple", _anything, _always, half.run(simple.backward_weight), half.scratch(_weight_scratch)),
)
