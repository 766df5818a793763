"""Same bits whatever threads, run, layout and batch: for every algorithm, dtype and ISA level."""

import math

import numpy as np
import pytest
from promises import CONVOLUTIONS, DTYPES, LEVELS, MANY_WEIGHTS, SMALL, every_way, ids, same_results

import fastconv as fc
from fastconv import testing
from fastconv._cpu import isa
from fastconv.testing.operations import (
    Activation,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Columns,
    Convolution,
    Dropout,
    Linear,
    LocalResponseNorm,
    Loss,
    Maxout,
    MaxPool,
    Softmax,
    Transposed,
)

pytestmark = pytest.mark.usefixtures("one_thread")


OTHERS = (
    Transposed(2, (3, 32, 14, 15), (32, 16, 4, 4), stride=2, padding=1),
    Transposed(2, (4, 256, 4, 3), MANY_WEIGHTS, stride=2, padding=1),
    Columns((3, 16, 40, 41), 3, padding=1),
    Linear((257, 700), 100),
    MaxPool(2, (4, 16, 60, 61), 3, stride=2, padding=1),
    AvgPool(2, (4, 16, 60, 61), 3, stride=1, padding=1),
    AdaptiveMaxPool(2, (3, 30, 30, 31), (4, 7)),
    AdaptiveAvgPool(2, (3, 30, 30, 31), (4, 7)),
    Activation("sigmoid", (7, 9001)),
    Softmax("softmax", (70, 1001), -1),
    Softmax("log_softmax", (4, 33, 600), 1),
    Maxout((5, 30, 401), 3),
    Dropout((9, 7001), 0.3),
    Loss("softmax_cross_entropy", (301, 255), reduction="mean", weighted=True),
    Loss("softmax_cross_entropy", (3, 20, 55, 21), reduction="sum", target="probabilities"),
    Loss("nll", (3, 20, 55, 21)),
    Loss("sigmoid_cross_entropy", (301, 255), target="reals", weighted=True),
    Loss("squared_error", (301, 255), target="reals"),
    Loss("hinge", (301, 255)),
    BatchNorm((9, 20, 19, 21), True),
    BatchNorm((9, 20, 19, 21), False),
    BatchNorm((9, 500, 4, 5), True),
    BatchNorm((2, 3, 97, 101), True),
    BatchNorm((40, 500, 2), True),
    LocalResponseNorm((3, 40, 19, 21), 5),
)


@pytest.mark.parametrize("case", CONVOLUTIONS + OTHERS, ids=ids)
def test_same_bits_whatever_the_threads_and_the_run(case):
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        with fc.num_threads(1):
            expected = case.run(fc, inputs, algorithm)
        for threads in (1, 2, 3, 8) if dtype == np.float32 else (3,):
            with fc.num_threads(threads):
                results = case.run(fc, inputs, algorithm)
            same_results(results, expected, f"{threads} threads, {level} {algorithm}")


@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_same_bits_whatever_the_layout(case):
    """Strides, alignment, byte order, read-only: `CONVOLUTIONS` are big, here every path is taken."""
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        expected = case.run(fc, inputs, algorithm)
        for layout in testing.LAYOUTS[1:]:
            laid = {name: a if a is None else testing.lay_out(a, layout) for name, a in inputs.items()}
            same_results(case.run(fc, laid, algorithm), expected, f"{layout}, {level} {algorithm}")


@pytest.mark.parametrize("case", SMALL[:7], ids=ids)
def test_same_bits_for_mixed_layouts(case):
    """x, weight and dy need not lie alike; broadcast and overlapping views are inputs too."""
    rng = np.random.default_rng(0)
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        expected = case.run(fc, inputs, algorithm)
        for _ in range(3):
            laid = {
                name: a if a is None else testing.lay_out(a, rng.choice(testing.LAYOUTS))
                for name, a in inputs.items()
            }
            same_results(case.run(fc, laid, algorithm), expected, f"{level} {algorithm}")
        inputs["x"] = np.broadcast_to(inputs["x"][:1, :1], inputs["x"].shape)
        inputs["weight"] = np.broadcast_to(inputs["weight"][:1], inputs["weight"].shape)
        whole = {name: a if a is None else a.copy() for name, a in inputs.items()}
        same_results(case.run(fc, inputs, algorithm), case.run(fc, whole, algorithm), f"{level} {algorithm}")


# -- a sample does not depend on its batch -------------------------------------------------------------------


BATCH = 64
BATCHED = (  # per-sample shapes of x; samples straddle vectors, blocks and tiles
    Convolution(2, (BATCH, 5, 7, 7), (9, 5, 3, 3), padding=1),
    Convolution(2, (BATCH, 17, 9, 10), (13, 17, 3, 3)),
    Convolution(2, (BATCH, 20, 1, 1), (7, 20, 1, 1)),
    Convolution(2, (BATCH, 3, 6, 5), (4, 3, 1, 1), bias=False),
    Convolution(2, (BATCH, 4, 9, 17), (6, 2, 5, 5), stride=2, padding=2, groups=2, activation="leaky_relu"),
    Convolution(2, (BATCH, 6, 5, 9), (6, 1, 4, 4), padding=2, groups=6, padding_mode="replicate"),
    Convolution(2, (BATCH, 3, 40, 50), (5, 3, 5, 5), padding=2),
    Convolution(1, (BATCH, 5, 23), (6, 5, 3), dilation=2),
    Convolution(3, (BATCH, 2, 3, 4, 5), (3, 2, 2, 2, 2), padding=1),
    Transposed(2, (BATCH, 5, 4, 3), (5, 3, 3, 3), stride=2, padding=1, output_padding=1),
    Linear((BATCH, 400), 31),
    Linear((BATCH, 7), 100),
    MaxPool(2, (BATCH, 2, 7, 9), 3, stride=2),
    AvgPool(2, (BATCH, 2, 7, 9), 3, stride=2),
    AdaptiveAvgPool(2, (BATCH, 2, 7, 9), 3),
    Activation("tanh", (BATCH, 33)),
    Softmax("softmax", (BATCH, 33), 1),
    Softmax("log_softmax", (BATCH, 5, 33), 1),
    LocalResponseNorm((BATCH, 7, 5), 5),
    BatchNorm((BATCH, 7, 5), False),
    Loss("softmax_cross_entropy", (BATCH, 33), reduction="none"),
    Loss("sigmoid_cross_entropy", (BATCH, 33), target="reals", reduction="none"),
    Loss("hinge", (BATCH, 33), reduction="none"),
    Columns((BATCH, 3, 5, 6), 3),
)
SUMMED = ("dweight", "dbias", "dbias alone", "running_mean", "running_var")  # over the batch


def of_samples(case, inputs, samples):
    """The inputs of some of the samples, each contiguous."""
    batched = ("x", "dy", "y", "cols", "target")
    return {
        name: a[samples].copy() if a is not None and name in batched else a for name, a in inputs.items()
    }


@pytest.mark.parametrize("case", BATCHED, ids=ids)
def test_a_sample_does_not_depend_on_its_batch(case):
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        with fc.num_threads(3):
            whole = case.run(fc, inputs, algorithm)
        for samples in ([0], [1], [31], [63], [5, 6, 7], [40, 3], list(range(9, 26))):
            x = case.x
            case.x = (len(samples), *case.x[1:])  # max pools give it to backward
            try:
                some = case.run(fc, of_samples(case, inputs, samples), algorithm)
            finally:
                case.x = x
            for name, result in some.items():
                if not name.endswith(SUMMED):
                    what = f"{name} of samples {samples}, {level} {algorithm}"
                    testing.same_bits(result, whole[name][samples], what)


def test_a_single_sample_needs_no_batch_axis():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 4, 9, 9)), rng.standard_normal((5, 4, 3, 3))
    dy = rng.standard_normal((3, 5, 9, 9))
    y, (dx, _, _) = fc.conv2d(x, w, padding=1), fc.conv2d_backward(dy, x, w, padding=1)
    for n in range(3):
        testing.same_bits(fc.conv2d(x[n], w, padding=1), y[n])
        testing.same_bits(fc.conv2d_backward(dy[n], x[n], w, padding=1)[0], dx[n])


# Results of 16 MiB and more are written past the caches: planes that are whole lines and others, positions
# that no output of a strided convolution has read.
LARGE = (
    ((112, 112), 1, None),
    ((105, 109), 1, "relu"),
    ((112, 110), (2, 2), None),
    ((111, 109), (1, 3), None),
)


@pytest.mark.parametrize("size, stride, activation", LARGE)
@pytest.mark.parametrize("level", LEVELS)
def test_large_results_have_the_bits_of_small_ones(level, size, stride, activation):
    rng = np.random.default_rng(0)
    x, dense = (rng.standard_normal((6, 5, *size)).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((61, 5, 1, 1)).astype(np.float32)
    dy = dense[(..., *(slice(None, None, step) for step in np.broadcast_to(stride, 2)))]
    wide = np.empty((6, 61, *size), np.float32)  # whose gradient is asked for: the values do not matter
    few = {"output_mask": (True, False, False), "stride": stride, "algorithm": "implicit_gemm"}
    with isa.use(level), fc.num_threads(2):
        y = fc.conv2d(x, w, activation=activation, algorithm="implicit_gemm")
        dx = fc.conv2d_backward(dy, wide, w.swapaxes(0, 1), **few)[0]
        for n in (0, 3, 5):
            testing.same_bits(fc.conv2d(x[n], w, activation=activation, algorithm="implicit_gemm"), y[n])
            testing.same_bits(fc.conv2d_backward(dy[n], wide[n], w.swapaxes(0, 1), **few)[0], dx[n])


# Tiles of which none is short: blocks of whole rows of them and of pieces of rows, and rows not much longer than a
# line of memory.
LARGE_MAPS = (
    ("winograd8", 4, (110, 110)),
    ("winograd8", 3, (18, 606)),
    ("winograd8", 3, (90, 18)),
    ("winograd", 3, (36, 20)),
)


@pytest.mark.parametrize("algorithm, taps, size", LARGE_MAPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
def test_large_results_of_tiles_have_the_bits_of_small_ones(level, dtype, algorithm, taps, size):
    """Also where a tile is computed again because it is not finite."""
    rng = np.random.default_rng(0)
    samples, channels = 4, 2
    many = 1 + (16 << 20) // (samples * dtype.itemsize * math.prod(size))  # planes of results

    def drawn(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, w = drawn(samples, channels, *(n + taps - 1 for n in size)), drawn(many, channels, taps, taps)
    dy, back = drawn(samples, channels, *(n - taps + 1 for n in size)), drawn(channels, many, taps, taps)
    bias = drawn(many)
    x[2, 1, 9, 7] = dy[1, 0, 4, 3] = np.nan
    wide = np.empty((samples, many, *size), dtype)  # the input whose gradient is asked for; its values do not matter
    how = {"algorithm": algorithm}
    with isa.use(level), fc.num_threads(2):
        y = fc.conv2d(x, w, bias, activation="relu", **how)
        dx = fc.conv2d_backward(dy, wide, back, output_mask=(True, False, False), **how)[0]
        assert np.isnan(y).any() and np.isnan(dx).any()
        for n in range(samples):
            testing.same_bits(fc.conv2d(x[n], w, bias, activation="relu", **how), y[n])
            given = fc.conv2d_backward(dy[n], wide[n], back, output_mask=(True, False, False), **how)[0]
            testing.same_bits(given, dx[n])


SIMILAR = [case for case in testing.cases() if isinstance(case, (Convolution, Transposed))]


@pytest.mark.parametrize("case", SIMILAR, ids=ids)
def test_the_algorithm_and_its_scratch_do_not_depend_on_the_batch(case):
    """Of what "auto" chooses; and im2col's blow-up, when it is asked for, is no secret."""
    if len(case.x) == case.ndim + 1:
        case = type(case)(case.ndim, (1, *case.x), case.weight, bias=case.bias, **case.options)
    for dtype in DTYPES:
        weight = np.broadcast_to(dtype.type(0), case.weight)
        for direction in case.directions.values():
            plans = []
            for n in (1, 8, 64):
                x = np.broadcast_to(dtype.type(0), (n, *case.x[1:]))
                plans.append(fc.plan(direction.format(case.op), x, weight, **case.options))
            assert len({plan.algorithm for plan in plans}) == 1
            assert plans[1].scratch_bytes == plans[2].scratch_bytes
