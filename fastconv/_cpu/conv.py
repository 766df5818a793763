"""Convolution: the algorithm tables and what each entry allocates. Arguments are already valid."""

import math
import time
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from .. import _config
from . import isa
from .algorithms import TABLES, Algorithm, choose
from .arrays import empty, plain

DIRECTIONS = {"conv": "forward", "conv_backward_input": "backward_input", "conv_backward_weight": "backward_weight"}


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
    _run("conv_backward_weight", problem, algorithm, dy, x, dweight)
    return dweight


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
    """The same in the direction of dweight."""

    def run(kernels, problem):
        compute, shape = getattr(kernels, kernel), _shape(kernels, problem)

        def call(dy, x, dweight):
            compute(dy, x, dweight, shape, _config.get_num_threads(), *how)

        return call

    return run


def _scratch(kernel):
    """direction -> scratch(kernels, problem, threads), as the kernels count it."""

    def of(direction):
        return lambda kernels, problem, threads: getattr(kernels, kernel)(direction, problem.dtype.itemsize, _shape(kernels, problem), threads)

    return of


_implicit_forward, _implicit_backward_weight = _forward("conv_forward"), _backward_weight("conv_backward_weight")
_correlated_backward_input, _correlation_scratch = _backward_input("conv_backward_input"), _scratch("conv_scratch")


@lru_cache(maxsize=4096)
def _pointwise(problem):
    """Where the kernel covers the whole input, so that there is one output: the gradient of the input as a 1x1 convolution of dy with a filter for every
    input value. None elsewhere.

    As a correlation of dy and its padding it would mostly multiply zeros.
    """
    if problem.groups > 1 or problem.size != problem.kernel or max(problem.pad_low + problem.pad_high) or math.prod(problem.out) > 1:
        return None
    if any(step > 1 for step, taps in zip(problem.dilation, problem.kernel) if taps > 1):
        return None
    ones = (1, 1, 1)
    return replace(problem, op="conv2d", ndim=2, batched=True, C=problem.K, K=problem.C * problem.taps, size=ones, kernel=ones, stride=ones, dilation=ones,
                   padding_mode="zeros", activation=None)


def _implicit_backward_input(kernels, problem):
    single = _pointwise(problem)
    if single is None:
        return _correlated_backward_input(kernels, problem)
    compute = _implicit_forward(kernels, single)

    def call(dy, weight, bias, dx):
        filters = weight.reshape(problem.K, single.K).T[:, :, None, None]
        bias = None if bias is None else np.repeat(bias, problem.taps)
        compute(dy.reshape(problem.N, problem.K, 1, 1), filters, bias, dx.reshape(problem.N, single.K, 1, 1))

    return call


def _implicit_scratch(direction):
    def scratch(kernels, problem, threads):
        single = _pointwise(problem) if direction == "backward_input" else None
        return _correlation_scratch("forward" if single else direction)(kernels, single or problem, threads)

    return scratch


def _phase_taps(problem):
    """Taps of one phase of the stride, along each axis."""
    return tuple(-(-taps // stride) for taps, stride in zip(problem.kernel, problem.stride))


# -- direct: few channels, read from staged rows as they lie ---------------------------------------------------------


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


def _overhang(positions, problem):
    """Lanes computed for each of so many outputs (or filters) when they start a new vector."""
    lanes = 64 // problem.dtype.itemsize
    return -(-positions // lanes) * lanes / positions


def _row_overhang(positions, reach, problem):
    """The same for rows whose taps reach so far, if vectors may also run on into the next row."""
    return min(_overhang(positions, problem), 1.15 * (1 + reach / positions))


def _direct_suits_rows(rows, overhang, products, problem, strewn=False):
    if not strewn:  # lanes may also be filters
        overhang = min(overhang, _overhang(rows, problem) * (1 + TURNING / products))
    if overhang >= PACKED_COST * (1 + PACKING / rows):
        return "wastes more lanes at the ends of rows than packing patches costs"
    return _direct_suits_taps(products, problem)


def _direct_suits_taps(products, problem):
    if problem.taps == 1 and products > SINGLE_PIXELS:
        return f"pays for sums of at most {SINGLE_PIXELS} products where patches are single pixels: packing copies each once"
    return None


def _direct_suits(problem, precision):
    if _pointwise(problem) is not None:
        return "is a product of matrices here"
    reach = (problem.kernel[2] - 1) * problem.dilation[2] if problem.stride[2] == 1 else problem.size[2]
    overhang = _row_overhang(problem.out[2], reach, problem)
    return _direct_suits_rows(problem.K // problem.groups, overhang, problem.C // problem.groups * problem.taps, problem)


def _direct_suits_input(problem, precision):
    if _pointwise(problem) is not None:
        return "is a product of matrices here"
    rows, products, stride = problem.C // problem.groups, problem.K // problem.groups * problem.taps, problem.stride[2]
    if max(problem.stride) == 1:
        return _direct_suits_rows(rows, _row_overhang(problem.size[2], (problem.kernel[2] - 1) * problem.dilation[2], problem), products, problem)
    # Outputs of a stride lie apart: filters are no lanes and vectors end with rows, but packed patches are few to a phase and their results are strewn.
    if products <= FEW_PRODUCTS * math.prod(problem.stride):
        return _direct_suits_taps(products, problem)
    return _direct_suits_rows(rows, _overhang(-(-problem.size[2] // stride), problem), products, problem, strewn=True)


def _direct_suits_weight(problem, precision):
    rows, columns = problem.K // problem.groups, problem.C // problem.groups * problem.taps
    out = problem.out[2]
    overhang = _overhang(out, problem)
    if problem.stride[2] == 1:  # vectors may run on into the next row, over the overhang of the taps
        overhang = min(overhang, 1 + (problem.kernel[2] - 1) * problem.dilation[2] / out)
    overhang = min(overhang, _overhang(rows, problem))  # lanes may also be filters
    if (INNER_COST + INNER_ROW / out) * rows * columns * overhang >= _outer_cost(problem):
        return "costs more multiplications than turning patches costs"
    if columns > FEW_SUMS and math.prod(problem.out) < LONG_SUM:
        return f"pays for more than {FEW_SUMS} sums a filter from {LONG_SUM} outputs on"
    if problem.taps == 1 and columns > SINGLE_SUMS:
        return f"pays for at most {SINGLE_SUMS} channels where patches are single pixels: those are read where they lie"
    return None


def _outer_cost(problem):
    """What the gradient of the weights by implicit GEMM costs for a vector of outputs: strips are turned for all taps, or patches for each (kernels/outer.pxi)."""
    rows, channels = problem.K // problem.groups, problem.C // problem.groups
    if problem.taps == 1:
        return rows * channels * _overhang(channels, problem) + TURNED * min(rows, channels)
    strips = channels * _overhang(channels, problem)
    patches = channels * problem.taps
    return min(rows * strips * problem.taps + TURNED * strips, rows * patches * _overhang(patches, problem) + TURNED_PATCHES * patches)


# Per output vector, in multiplications of vectors. Chosen on depthwise and grouped layers of 7 to 112 pixels, on 2 to 10 channels or 2 to 32 filters, and on layers
# of 1x7, 3x3, 5x5 and 3x3x3 taps with 16 to 256 channels and filters.
PACKING = 6  # packing one row of patches
TURNED, TURNED_PATCHES = 8, 12  # turning one row of strips of x, and of patches
TURNING = 12  # turning round an output whose filters are lanes
PACKED_COST = 1.05  # of a multiplication on packed patches: they pass through one cache more
INNER_COST, INNER_ROW = 1.1, 2.5  # of a multiplication summed over pixels, and for beginning a row of them
FEW_PRODUCTS = 64  # of a strided gradient's sum in a phase, up to which staging and storing cost more than multiplying
SINGLE_PIXELS = 8  # products, the longest sum of 1x1 taps that does not repay packing
SINGLE_SUMS = 6  # the same for the gradient of the weights
FEW_SUMS, LONG_SUM = 512, 128  # a short sum over pixels costs more in adding up its lanes than in multiplying
DIRECT_PRODUCTS = 2048  # strips of all channels of a group are staged together, and longer sums need blocks


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


def _depthwise_suits(problem, precision):
    if problem.out[1] == 1 and problem.out[2] > LONE_ROW:
        return f"pays for planes, or single rows of at most {LONE_ROW} outputs"
    return None


def _depthwise_suits_weight(problem, precision):
    most = DEPTHWISE_FILTERS if problem.taps == 1 else DEPTHWISE_GRADIENTS
    if problem.K // problem.groups > most:
        return f"pays up to {most} filters a group"
    return _depthwise_suits(problem, precision)


def _depthwise_suits_correlation(problem, precision):
    if problem.K // problem.groups > DEPTHWISE_FILTERS:
        return f"pays up to {DEPTHWISE_FILTERS} filters a group: more share what they load"
    reached = math.prod(size + (taps - 1) * dilation for size, taps, dilation in zip(problem.size, problem.kernel, problem.dilation))
    if problem.kernel[1] > ROLLED_TAPS and reached > SMALL_PLANE:
        return f"keeps sums of at most {ROLLED_TAPS} rows of taps in registers"
    return _depthwise_suits(problem, precision)


# Chosen on signals of 48 to 8000 values with 3 to 31 taps, planes of 7 to 112 pixels a side with 3x3 to 11x11, and 3 to
# 16 filters on one channel.
LONE_ROW = 256
DEPTHWISE_FILTERS = 3
DEPTHWISE_GRADIENTS = 64
ROLLED_TAPS = 7
SMALL_PLANE = 1024  # with what taps reach around it: small enough for planes as lanes


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
def _im2col_backward_weight(kernels, problem, dy, x, dweight):
    cols, rows = _columns(kernels, problem, x), _grouped(dy, problem, problem.K, math.prod(problem.out))
    w, threads = _weight_matrix(dweight, problem), _config.get_num_threads()
    part = empty(w.shape[1:], problem.dtype)
    dweight[...] = 0
    for n in range(problem.N):
        for g in range(problem.groups):
            kernels.matmul(rows[n, g], cols[n, g].T, None, part, threads)
            w[g] += part


def _each_time(compute):
    """For a function of (kernels, problem, *arrays) that has nothing to prepare."""
    return lambda kernels, problem: partial(compute, kernels, problem)


def _im2col_scratch(kernels, problem, threads):
    return problem.N * problem.C * problem.taps * math.prod(problem.out) * problem.dtype.itemsize


# -- Winograd: fewer multiplications for small dense kernels, at a documented cost in rounding ---------------------


TILES = {"winograd8": 8, "winograd": 6}
"""Points of a tile along an axis. A tile of more points saves more multiplications, and amplifies rounding errors more."""


def _winograd_accepts(tile):
    most = {6: range(2, 6), 8: range(3, 8)}[tile]

    def accepts(problem):
        if problem.kernel[0] != 1 or problem.size[0] != 1 or problem.out[0] != 1 or problem.pad_low[0]:
            return "needs two spatial axes"
        taps = _phase_taps(problem)[1:]
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


def _winograd_scratch(direction, tile):
    return lambda kernels, problem, threads: kernels.winograd_scratch(
        direction, problem.dtype.itemsize, _shape(kernels, problem), threads, tile
    )


def _winograd_tiles(problem, direction, tile):
    """Tiles of a sample's map (each phase of a dilation is tiled for itself), of the gradient's map for that of the input."""
    count = 1
    for axis in (1, 2):
        out, step = problem.out[axis], problem.dilation[axis]
        if direction == "backward_input":
            stride, low = problem.stride[axis], problem.pad_low[axis]
            out = (problem.size[axis] - 1 + low) // stride - low // stride + 1
        count *= step * -(-out // (step * (tile + 1 - _phase_taps(problem)[axis])))
    return count


def _winograd_cost(problem, direction, tile):
    """Multiplications of a sample that cost as much time as its convolution by these tiles."""
    phases, points = math.prod(problem.stride), tile * tile * _winograd_tiles(problem, direction, tile) + WINOGRAD_BORDER[direction]
    channels, filters = problem.C // problem.groups * phases, problem.K // problem.groups
    if direction == "backward_input":
        channels, filters = filters, channels  # channels of dy are the input, (channel, phase) of dx the output
    to_points, from_points = WINOGRAD_COST[direction][tile][_phase_taps(problem)[1]]
    return problem.groups * points * (channels * filters + to_points * channels + from_points * filters)


def _winograd_suits(direction, tile):
    smaller = TILES["winograd"]

    def suits(problem, precision):
        if precision == "strict":
            return "is not a direct sum, which precision 'strict' asks for"
        if problem.dtype != np.float32:
            return "is run only when named for float64: who asks for float64 asks for its accuracy"
        phases = math.prod(problem.stride)
        if direction == "backward_weight" and _winograd_tiles(problem, direction, tile) < WINOGRAD_WEIGHT_TILES:
            return f"pays for the gradient of the weights from {WINOGRAD_WEIGHT_TILES} tiles a map on"
        cost = _winograd_cost(problem, direction, tile)
        # A strided gradient is cheap to beat: the direct form works phase by phase, on few taps each.
        least = WINOGRAD_SAVING["strided_input" if direction == "backward_input" and phases > 1 else direction]
        if math.prod(problem.out) * problem.taps * problem.C * problem.K // problem.groups < least * cost:
            return "saves too few multiplications for what its transforms cost"
        if tile != smaller and _winograd_accepts(smaller)(problem) is None:
            if cost > LARGE_TILE_SHARE * _winograd_cost(problem, direction, smaller):
                return "saves too little beside a smaller tile for the accuracy that it costs"
        return None

    return suits


# A model of the time in multiplications: tile * tile * tiles * channels * filters of them, and for every transformed value of the input and of the output as many
# as stand here, by tile and taps of a phase. Fitted to stride 1 and 2, 4 to 256 channels and maps of 7 to 160 pixels, none of them in the benchmark's list.
WINOGRAD_COST = {
    "forward": {
        6: {2: (100, 100), 3: (20, 19), 4: (18, 16), 5: (11, 11)},
        8: {3: (33, 33), 4: (18, 18), 5: (18, 18), 6: (11, 11), 7: (8, 8)},
    },
    "backward_input": {
        6: {2: (40, 40), 3: (20, 19), 4: (18, 16), 5: (11, 11)},
        8: {3: (30, 30), 4: (20, 20), 5: (18, 18), 6: (11, 11), 7: (10, 10)},
    },
    "backward_weight": {  # both operands are also turned
        6: {2: (100, 100), 3: (27, 27), 4: (22, 22), 5: (20, 20)},
        8: {3: (50, 50), 4: (27, 27), 5: (22, 22), 6: (27, 27), 7: (30, 30)},
    },
}
# What a map costs besides, in points. Fitted to 3x3 layers of 16 to 128 channels on maps of 7 to 28 pixels.
WINOGRAD_BORDER = {"forward": 72, "backward_input": 72, "backward_weight": 36}
# Least ratio of direct multiplications to these: others run the closer to the peak the easier they are.
WINOGRAD_SAVING = {"forward": 1.0, "backward_input": 1.0, "strided_input": 0.85, "backward_weight": 0.88}
WINOGRAD_WEIGHT_TILES = 4  # fewer do not pay for transforming their sums for every pair of channel and filter
LARGE_TILE_SHARE = 0.9  # of the time with the smaller tile, which is four times as accurate


def _anything(problem):
    return None


def _always(problem, precision):
    return None


def _only_named(problem, precision):
    return "is run only when named: it writes out the whole patch matrix"


def _table(direction, winograd, depthwise, direct, implicit, im2col):
    """`winograd` is what it accepts and how it runs with a tile; `depthwise` and `direct` what they accept, what they suit and how they run."""
    winograd_accepts, winograd_run = winograd
    depthwise_accepts, depthwise_suits, depthwise_run = depthwise
    direct_accepts, direct_suits, direct_run = direct
    return (
        *(
            Algorithm(name, winograd_accepts(tile), _winograd_suits(direction, tile), winograd_run(tile), _winograd_scratch(direction, tile))
            for name, tile in TILES.items()
        ),
        Algorithm("depthwise", depthwise_accepts, depthwise_suits, depthwise_run, _depthwise_scratch(direction)),
        Algorithm("direct", direct_accepts, direct_suits, direct_run, _direct_scratch(direction)),
        Algorithm("implicit_gemm", _anything, _always, implicit, _implicit_scratch(direction)),
        Algorithm("im2col", _anything, _only_named, _each_time(im2col), _im2col_scratch),
    )


TABLES["conv"] = _table(
    "forward",
    (_winograd_accepts, partial(_forward, "winograd_forward")),
    (_depthwise_accepts, _depthwise_suits_correlation, _depthwise_forward),
    (_direct_accepts, _direct_suits, _direct_forward),
    _implicit_forward,
    _im2col_forward,
)
TABLES["conv_backward_input"] = _table(
    "backward_input",
    (_winograd_accepts_input, partial(_backward_input, "winograd_backward_input")),
    (_depthwise_accepts_input, _depthwise_suits_correlation, _depthwise_backward_input),
    (_direct_accepts_input, _direct_suits_input, _direct_backward_input),
    _implicit_backward_input,
    _im2col_backward_input,
)
TABLES["conv_backward_weight"] = _table(
    "backward_weight",
    (_winograd_accepts, partial(_backward_weight, "winograd_backward_weight")),
    (_depthwise_accepts, _depthwise_suits_weight, _depthwise_backward_weight),
    (_direct_accepts, _direct_suits_weight, _direct_backward_weight),
    _implicit_backward_weight,
    _im2col_backward_weight,
)
