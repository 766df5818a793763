"""Convolution: the algorithm tables and what each entry allocates. Arguments are already valid. Which suits, choice.py estimates."""

import math
import time
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from .. import _config
from . import isa
from .algorithms import TABLES, Algorithm, choose
from .arrays import empty, plain
from .choice import DIRECTIONS, suits
from .one_axis import axis_of, line_axis, line_points
from .tiles import TILES, short_of
from .views import blind, phase_taps, pointwise, spread


@lru_cache(maxsize=4096)
def _shape(kernels, problem):
    """The problem as the C integers that the kernels read."""
    return kernels.Shape(problem)


@lru_cache(maxsize=4096)
def _prepared(direction, problem, algorithm, precision, kernels):
    """The chosen algorithm's name, and its call with all that does not depend on the arrays."""
    chosen = choose(direction, problem, algorithm, precision)
    return chosen.name, chosen.run(kernels, problem)


def _run(direction, problem, algorithm, *arrays):
    """Compute with the chosen algorithm; with FASTCONV_VERBOSE, say so."""
    name, call = _prepared(direction, problem, algorithm, _config.get_precision(), isa.active())
    if not _config.VERBOSE:
        call(*arrays)
        return
    start = time.perf_counter()
    call(*arrays)
    _config.report(problem.name, DIRECTIONS[direction], name, time.perf_counter() - start, problem.flops)


def conv_forward(x, weight, bias, problem, algorithm, out):
    y = empty(problem.y_shape, problem.dtype) if out is None else out
    _run("conv", problem, algorithm, x, weight, bias, y)
    return y


def conv_backward_input(dy, weight, bias, problem, algorithm):
    dx = empty(problem.x_shape, problem.dtype)
    _run("conv_backward_input", problem, algorithm, dy, weight, bias, dx)
    return dx


def conv_backward_weight(dy, x, problem, algorithm):
    dweight = empty(problem.weight_shape, problem.dtype)
    _run("conv_backward_weight", problem, algorithm, dy, x, dweight, None)
    return dweight


def conv_backward_weight_bias(dy, x, problem, algorithm):
    dweight, dbias = empty(problem.weight_shape, problem.dtype), empty((problem.K,), problem.dtype)
    _run("conv_backward_weight", problem, algorithm, dy, x, dweight, dbias)
    return dweight, dbias


def im2col(x, problem):
    cols = empty(problem.columns_shape, problem.dtype)
    kernels = isa.active()
    kernels.im2col(x, cols, _shape(kernels, problem), _config.get_num_threads())
    return cols


def col2im(cols, problem):
    x = empty(problem.x_shape, problem.dtype)
    kernels = isa.active()
    kernels.col2im(cols, x, _shape(kernels, problem), _config.get_num_threads())
    return x


# -- implicit GEMM: patches are gathered into cache-sized panels straight from x, nothing is materialised --------


def _forward(kernel, *how):
    """Run a kernel of this name in the direction of y."""

    def run(kernels, problem):
        compute, shape, dtype = getattr(kernels, kernel), _shape(kernels, problem), problem.dtype

        def call(x, weight, bias, y):
            compute(x, weight, bias if bias is None else plain(bias, dtype), y, shape, _config.get_num_threads(), *how)

        return call

    return run


_backward_input = _forward  # of (dy, weight, bias, dx): the same arguments with dy and dx in place of x and y


def _backward_weight(kernel, *how):
    """The same in the direction of dweight, and of dbias unless that is None."""

    def run(kernels, problem):
        compute, shape = getattr(kernels, kernel), _shape(kernels, problem)

        def call(dy, x, dweight, dbias):
            compute(dy, x, dweight, dbias, shape, _config.get_num_threads(), *how)

        return call

    return run


SEEN_BYTES = 4 << 20  # of dy at a time, if a sample has no more


def _seen_at_once(problem):
    return max(1, SEEN_BYTES // (problem.K * math.prod(problem.out) * problem.dtype.itemsize))


def _seen(run):
    """`run` in the direction of dweight, to which elements of dy whose windows see nothing but padding add
    nothing, whatever they are: zeros stand for them in a copy."""

    def prepared(kernels, problem):
        positions = blind(problem)
        if positions is None:
            return run(kernels, problem)
        most = _seen_at_once(problem)

        @np.errstate(all="ignore")
        def call(dy, x, dweight, dbias):
            dweight[...] = 0
            for first in range(0, problem.N, most):
                some, of_x = (a[first : first + most] if problem.batched else a for a in (dy, x))
                samples = min(most, problem.N - first)
                seen, part = empty(some.shape, problem.dtype), empty(dweight.shape, problem.dtype)
                seen[...] = some
                planes = seen.reshape(samples, problem.K, *problem.out)
                for axis, nothing in enumerate(positions, 2):
                    np.moveaxis(planes, axis, 0)[list(nothing)] = 0
                run(kernels, replace(problem, N=samples))(seen, of_x, part, None)
                dweight += part
            if dbias is not None:
                kernels.channel_sum(dy, dbias, int(problem.batched), _config.get_num_threads())

        return call

    return prepared


def _seen_scratch(scratch):
    def of(kernels, problem, threads):
        copied = 0
        if blind(problem):
            copied = _seen_at_once(problem) * problem.K * math.prod(problem.out) + math.prod(problem.weight_shape)
        return scratch(kernels, problem, threads) + copied * problem.dtype.itemsize

    return of


def _scratch(kernel):
    """direction -> scratch(kernels, problem, threads), as the kernels count it."""

    def of(direction):
        return lambda kernels, problem, threads: getattr(kernels, kernel)(direction, problem.dtype.itemsize, _shape(kernels, problem), threads)

    return of


_implicit_forward, _implicit_backward_weight = _forward("conv_forward"), _backward_weight("conv_backward_weight")
_correlated_backward_input, _correlation_scratch = _backward_input("conv_backward_input"), _scratch("conv_scratch")


def _implicit_backward_input(kernels, problem):
    single = pointwise(problem)
    if single is None:
        return (_spread_backward_input if spread(problem) else _correlated_backward_input)(kernels, problem)
    compute = _implicit_forward(kernels, single)

    def call(dy, weight, bias, dx):
        filters = weight.reshape(problem.K, single.K).T[:, :, None, None]
        bias = None if bias is None else np.repeat(bias, problem.taps)
        compute(dy.reshape(problem.N, problem.K, 1, 1), filters, bias, dx.reshape(problem.N, single.K, 1, 1))

    return call


def _spread_backward_input(kernels, problem):
    """The products of all taps, of some samples at a time, and their sums where they belong."""
    most, of_samples = spread(problem)
    rows, positions = problem.C * problem.taps, math.prod(problem.out)

    @np.errstate(all="ignore")
    def call(dy, weight, bias, dx):
        filters = weight.reshape(problem.K, rows).T[:, :, None, None]
        dy, planes = dy.reshape(problem.N, problem.K, *problem.out), dx.reshape(problem.N, problem.C, *problem.size)
        for first in range(0, problem.N, most):
            some = dy[first : first + most]
            samples = len(some)
            cols = empty((samples, rows, 1, positions), problem.dtype)
            single, whole = of_samples(samples), replace(problem, N=samples)
            _implicit_forward(kernels, single)(some.reshape(samples, problem.K, 1, positions), filters, None, cols)
            kernels.col2im(cols, planes[first : first + most], _shape(kernels, whole), _config.get_num_threads())
        if bias is not None:
            dx += np.asarray(bias, problem.dtype).reshape(-1, *(1,) * problem.ndim)

    return call


def _implicit_scratch(direction):
    def scratch(kernels, problem, threads):
        single = pointwise(problem) if direction == "backward_input" else None
        products = 0
        if direction == "backward_input" and single is None and spread(problem):
            most, of_samples = spread(problem)
            single = of_samples(most)
            products = most * single.K * math.prod(problem.out) * problem.dtype.itemsize
        return products + _correlation_scratch("forward" if single else direction)(kernels, single or problem, threads)

    return scratch


# -- direct: few channels, read from staged rows as they lie ---------------------------------------------------------


DIRECT_PRODUCTS = 2048  # strips of all channels of a group are staged together, and longer sums need blocks


def _few_products(products):
    return None if products <= DIRECT_PRODUCTS else f"sums at most {DIRECT_PRODUCTS} products in one piece, not {products}"


def _direct_accepts(problem):
    return _few_products(problem.C // problem.groups * problem.taps)


def _direct_accepts_input(problem):
    return _few_products(problem.K // problem.groups * problem.taps)


_direct_forward = _forward("conv_forward", True)
_direct_backward_input = _backward_input("conv_backward_input", True)
_direct_backward_weight = _backward_weight("conv_backward_weight", True)
_direct_scratch = _scratch("direct_scratch")


# -- depthwise: each plane of the result is one plane of the source under one filter ---------------------------------


def _depthwise_accepts(problem):
    if problem.C != problem.groups:
        return "needs groups of one channel"
    if problem.kernel[0] != 1 or problem.size[0] != 1 or problem.out[0] != 1 or problem.pad_low[0]:
        return "needs one or two spatial axes"
    if max(problem.stride) > 2:
        return "needs strides of 1 or 2"
    return None


def _depthwise_accepts_input(problem):
    if problem.K != problem.groups:
        return "needs groups of one filter for the gradient of the input"
    return _depthwise_accepts(problem) or (None if problem.padding_mode == "zeros" else "needs padding_mode='zeros'")


def _depthwise_accepts_weight(problem):
    # vectors of outputs hang over: what they meet there must be read by the same filter, or a NaN would spread
    step, dilation = problem.stride[2], problem.dilation[2]
    if 1 < dilation > problem.out[2]:
        return "needs as many outputs along the width as the dilation for the gradient of the weights"
    if dilation > 1 and dilation % step:
        return "needs a dilation of 1, or a multiple of the stride, for the gradient of the weights"
    return _depthwise_accepts(problem)


_depthwise_forward = _forward("depthwise_forward")
_depthwise_backward_input = _backward_input("depthwise_backward_input")
_depthwise_backward_weight = _backward_weight("depthwise_backward_weight")
_depthwise_scratch = _scratch("depthwise_scratch")


# -- im2col: the textbook form, the patch matrix of the whole batch written out and multiplied --------------------


def _columns(kernels, problem, x):
    """The patch matrix, (N, groups, C/groups * taps, L)."""
    cols = empty((problem.N, problem.groups, problem.C // problem.groups * problem.taps, math.prod(problem.out)), problem.dtype)
    kernels.im2col(x, cols, _shape(kernels, problem), _config.get_num_threads())
    return cols


def _grouped(array, problem, channels, positions):
    """(N, groups, channels/groups, L), whatever the rank: a view where strides allow."""
    return array.reshape(problem.N, problem.groups, channels // problem.groups, positions)


def _weight_matrix(weight, problem):
    return weight.reshape(problem.groups, problem.K // problem.groups, -1)


def _im2col_forward(kernels, problem, x, weight, bias, y):
    cols, w, rows = _columns(kernels, problem, x), _weight_matrix(weight, problem), _grouped(y, problem, problem.K, math.prod(problem.out))
    threads = _config.get_num_threads()
    for n in range(problem.N):
        for g in range(problem.groups):
            kernels.matmul(w[g], cols[n, g], None, rows[n, g], threads)
    kernels.finish(y.reshape(problem.N, problem.K, rows.shape[3]), plain(bias, problem.dtype), _shape(kernels, problem), threads)


@np.errstate(all="ignore")  # what NumPy adds up here says no more about NaN and overflow than the kernels do
def _im2col_backward_input(kernels, problem, dy, weight, bias, dx):
    w, rows = _weight_matrix(weight, problem), _grouped(dy, problem, problem.K, math.prod(problem.out))
    cols = empty((problem.N, problem.groups, w.shape[2], rows.shape[3]), problem.dtype)
    threads = _config.get_num_threads()
    for n in range(problem.N):
        for g in range(problem.groups):
            kernels.matmul(w[g].T, rows[n, g], None, cols[n, g], threads)
    kernels.col2im(cols, dx, _shape(kernels, problem), threads)
    if bias is not None:
        dx += np.asarray(bias, problem.dtype).reshape(-1, *(1,) * problem.ndim)


@np.errstate(all="ignore")
def _im2col_backward_weight(kernels, problem, dy, x, dweight, dbias):
    cols, rows = _columns(kernels, problem, x), _grouped(dy, problem, problem.K, math.prod(problem.out))
    w, threads = _weight_matrix(dweight, problem), _config.get_num_threads()
    part = empty(w.shape[1:], problem.dtype)
    dweight[...] = 0
    for n in range(problem.N):
        for g in range(problem.groups):
            kernels.matmul(rows[n, g], cols[n, g].T, None, part, threads)
            w[g] += part
    if dbias is not None:
        kernels.channel_sum(dy, dbias, int(problem.batched), threads)


def _each_time(compute):
    """For a function of (kernels, problem, *arrays) that has nothing to prepare."""
    return lambda kernels, problem: partial(compute, kernels, problem)


def _im2col_scratch(kernels, problem, threads):
    return problem.N * problem.C * problem.taps * math.prod(problem.out) * problem.dtype.itemsize


# -- Winograd: fewer multiplications for small dense kernels, at a documented cost in rounding ---------------------


def _winograd_accepts(tile):
    most = {6: range(2, 6), 8: range(3, 8)}[tile]

    def accepts(problem):
        if problem.kernel[0] != 1 or problem.size[0] != 1 or problem.out[0] != 1 or problem.pad_low[0]:
            return "needs two spatial axes"
        taps = phase_taps(problem)[1:]
        if taps[0] != taps[1] or taps[0] not in most:
            return f"needs {most[0]} to {most[-1]} taps, the same along height and width, in every phase of the stride"
        if min(math.prod(problem.stride), math.prod(problem.dilation)) > 1:
            return "needs stride 1 or dilation 1"
        if any(step > out for step, out in zip(problem.dilation[1:], problem.out[1:])):
            return "needs a dilation no larger than the output"
        return None

    return accepts


def _winograd_accepts_input(tile):
    accepts = _winograd_accepts(tile)
    return lambda problem: accepts(problem) or (None if problem.padding_mode == "zeros" else "needs padding_mode='zeros'")


def _winograd(runner, direction):
    """tile -> how it runs."""
    kernel = f"winograd_{direction}"
    return lambda tile: lambda kernels, problem: runner(kernel, tile, *short_of(problem, direction, tile))(kernels, problem)


def _winograd_scratch(direction, tile):
    return lambda kernels, problem, threads: kernels.winograd_scratch(
        direction, problem.dtype.itemsize, _shape(kernels, problem), threads, tile
    )


# -- Winograd along one axis: nothing but inputs is transformed, which few channels and other kernels repay --------


def _one_axis_accepts(problem, direction="forward"):
    if axis_of(problem, direction) is None:
        return "needs 2 to 7 taps in every phase of the stride along height or width, undilated, and no longer sums than 2048 terms"
    return None


def _one_axis_accepts_input(problem):
    return _one_axis_accepts(problem, "backward_input") or (None if problem.padding_mode == "zeros" else "needs padding_mode='zeros'")


def _one_axis(kernel, direction):
    return lambda kernels, problem: _forward(kernel, axis_of(problem, direction))(kernels, problem)


def _one_axis_scratch(direction):
    return lambda kernels, problem, threads: kernels.winograd1d_scratch(
        direction, problem.dtype.itemsize, _shape(kernels, problem), threads, axis_of(problem, direction)
    )


def _line_accepts(problem):
    if line_axis(problem) is None:
        return "needs 2 to 7 taps in every phase of the stride along height or width, undilated"
    return None


def _line_backward_weight(kernels, problem):
    return _backward_weight("winograd1d_backward_weight", line_axis(problem), line_points(problem))(kernels, problem)


def _line_weight_scratch(kernels, problem, threads):
    return kernels.winograd1d_weight_scratch(
        problem.dtype.itemsize, _shape(kernels, problem), threads, line_axis(problem), line_points(problem)
    )


def _anything(problem):
    return None


def _table(name, winograd, depthwise, direct, implicit, im2col, *more):
    """`winograd` is what it accepts and how it runs with a tile; `depthwise` and `direct` what they accept and how they run; `more` are rows as they are."""
    direction = DIRECTIONS[name]
    accepts, run = winograd
    rows = (
        *((row, accepts(tile), run(tile), _winograd_scratch(direction, tile)) for row, tile in TILES.items()),
        *more,
        ("depthwise", *depthwise, _depthwise_scratch(direction)),
        ("direct", *direct, _direct_scratch(direction)),
        ("implicit_gemm", _anything, implicit, _implicit_scratch(direction)),
        ("im2col", _anything, _each_time(im2col), _im2col_scratch),
    )
    if direction == "backward_weight":
        rows = ((row, accepts, _seen(run), _seen_scratch(scratch)) for row, accepts, run, scratch in rows)
    TABLES[name] = (Algorithm(row, accepts, suits(name, row), run, scratch) for row, accepts, run, scratch in rows)


_table(
    "conv",
    (_winograd_accepts, _winograd(_forward, "forward")),
    (_depthwise_accepts, _depthwise_forward),
    (_direct_accepts, _direct_forward),
    _implicit_forward,
    _im2col_forward,
    ("winograd1d", _one_axis_accepts, _one_axis("winograd1d_forward", "forward"), _one_axis_scratch("forward")),
)
_table(
    "conv_backward_input",
    (_winograd_accepts_input, _winograd(_backward_input, "backward_input")),
    (_depthwise_accepts_input, _depthwise_backward_input),
    (_direct_accepts_input, _direct_backward_input),
    _implicit_backward_input,
    _im2col_backward_input,
    (
        "winograd1d",
        _one_axis_accepts_input,
        _one_axis("winograd1d_backward_input", "backward_input"),
        _one_axis_scratch("backward_input"),
    ),
)
_table(
    "conv_backward_weight",
    (_winograd_accepts, _winograd(_backward_weight, "backward_weight")),
    (_depthwise_accepts_weight, _depthwise_backward_weight),
    (_direct_accepts, _direct_backward_weight),
    _implicit_backward_weight,
    _im2col_backward_weight,
    ("winograd1d", _line_accepts, _line_backward_weight, _line_weight_scratch),
)
