"""The compiled operations but convolution: block edges, accuracy, special values, the promises on bits.

The cases that every backend must pass are run by test_conformance; here are those that only this
implementation calls for.
"""

import threading

import numpy as np
import pytest

import fastconv as fc
from fastconv import testing
from fastconv._cpu import channel_sum, isa
from fastconv.testing import bounds
from fastconv.testing.operations import (
    Activation,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Dropout,
    LocalResponseNorm,
    Loss,
    Maxout,
    MaxPool,
    Softmax,
)

DTYPES = testing.DTYPES
ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh")


@pytest.fixture(params=isa.levels())
def level(request):
    with isa.use(request.param):
        yield request.param


at_every_level = pytest.mark.usefixtures("level")


# -- block edges --------------------------------------------------------------------------------------------
# Sizes around a vector (2 to 16), a strip (256), a fetched block (1024), a task or unit (8192), and the
# pool's limits (windows of 64 taps, a reach of 128, strides of 4, 128 outputs at once, folded rows of 640).


def _edge_cases():
    for n in (15, 16, 17, 1023, 1025, 8191, 8193):
        for op in ACTIVATIONS:
            yield Activation(op, (n,))
        yield Dropout((n,), 0.5)
        yield Softmax("softmax", (2, n), -1)
        yield Softmax("log_softmax", (2, n), -1)
        yield Maxout((2, 2 * n), 2)
    for shape, axis in (((2, 33, 257), 1), ((1, 65, 2), 1), ((3, 2, 256), 0), ((1, 5000, 17), 1)):
        yield Softmax("softmax", shape, axis)
        yield Softmax("log_softmax", shape, axis)
    yield Maxout((1, 3000), 1500)
    yield Maxout((2, 3, 300), 3)
    for reduction in ("mean", "none"):
        for shape in ((2, 1025), (2, 33, 257), (40, 3), (1, 70, 5)):
            for target in ("classes", "probabilities"):
                for smoothing in (0.0, 0.2):
                    yield Loss("softmax_cross_entropy", shape, target=target, weighted=smoothing > 0,
                               label_smoothing=smoothing, reduction=reduction)  # fmt: skip
        yield Loss("hinge", (2, 1025), reduction=reduction)
        yield Loss("squared_error", (3, 1025), target="reals", reduction=reduction)
        yield Loss("sigmoid_cross_entropy", (3, 1025), target="reals", weighted=True, reduction=reduction)
    for training in (False, True):
        for shape in (
            (65, 3), (130, 300), (3, 2, 15), (3, 2, 16), (70, 2, 3, 5), (2, 2, 91, 91), (200, 1, 49),
        ):  # fmt: skip
            yield BatchNorm(shape, training)
    for shape, size, beta in (
        ((2, 40, 257), 5, 0.75), ((1, 9, 20), 4, 0.5), ((1, 9, 20), 3, 1.0), ((1, 9, 3), 5, 0.6),
    ):  # fmt: skip
        yield LocalResponseNorm(shape, size, alpha=0.3, beta=beta, k=2.0)
    for x, kernel, options in (
        ((2, 3, 131), 3, {"stride": 1, "padding": 1}),
        ((1, 2, 700), 2, {}),
        ((1, 2, 700), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
        ((1, 2, 800), 3, {"stride": 3, "dilation": 5, "padding": 2}),
        ((1, 2, 800), 5, {"stride": 4, "dilation": 32}),
        ((1, 2, 800), 5, {"stride": 4, "dilation": 33}),
        ((1, 2, 300), 64, {"stride": 3, "padding": 40}),
        ((1, 2, 300), 65, {"stride": 3, "padding": 40}),
        ((1, 2, 300), 7, {"stride": 5, "padding": 3}),
        ((1, 1, 5000), 3000, {"stride": 1999, "padding": 1000}),
        ((1, 1, 5000), 9, {"stride": 77, "dilation": 550, "padding": 1100}),
        ((1, 1, 3), 2, {"stride": 1, "dilation": 4, "padding": 3}),  # some windows have no tap inside
        ((1, 2, 20, 50), (9, 7), {"stride": (2, 1), "padding": (4, 3)}),
        ((1, 2, 20, 50), (9, 8), {"stride": (2, 2), "padding": (4, 3), "ceil_mode": True}),
        ((3, 5, 12, 9), 2, {}),  # side by side: many short rows at once, a column left over
        ((2, 30, 13, 6), (3, 3), {"padding": ((1, 1), (0, 0))}),  # with other divisors at the ends
        ((1, 7, 4, 6, 8), (2, 3, 2), {"stride": (1, 3, 4)}),
        ((1, 3, 8, 300), (7, 2), {"stride": (3, 2)}),  # rows that are folded one by one, and four at a time
        ((1, 3, 8, 300), (3, 4), {"stride": (1, 4), "dilation": (2, 1)}),
        ((1, 1, 12, 260), (3, 3), {"stride": 2, "padding": ((0, 1), (1, 0))}),
        ((1, 1, 6, 7, 8), (5, 4, 3), {"stride": (2, 1, 2), "padding": (3, 2, 2), "dilation": (1, 2, 1)}),
    ):
        ndim = len(x) - 2
        yield MaxPool(ndim, x, kernel, **options)
        yield AvgPool(ndim, x, kernel, **options)
        yield AvgPool(ndim, x, kernel, count_include_pad=False, **options)
    for x, out in (
        ((1, 2, 640), 7), ((1, 2, 641), 7), ((1, 2, 640), 160), ((1, 2, 641), 640), ((2, 3, 56, 56), 1),
        ((2, 3, 70, 70), 1), ((2, 3, 14, 14), 7), ((2, 3, 15, 13), (7, 5)), ((1, 2, 5, 6, 7), (2, 4, 7)),
        ((1, 2, 3, 4), (5, 9)),
    ):  # fmt: skip
        yield AdaptiveMaxPool(len(x) - 2, x, out)
        yield AdaptiveAvgPool(len(x) - 2, x, out)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case, kind", [(c, kind) for c in _edge_cases() for kind in c.kinds], ids=str)
def test_edges(case, kind, dtype):
    for name in isa.levels():  # innermost, so that what is expected is computed once
        with isa.use(name):
            testing.check(fc, case, dtype, kind)


# -- the same bits whatever the threads, the layout, the rest of the batch ----------------------------------


def _run_max_pool(x, dy, **options):
    y, indices = fc.max_pool2d(x, **options, return_indices=True)
    dx = fc.max_pool2d_backward(dy[:, :, : y.shape[2], : y.shape[3]], indices, x.shape)
    return fc.max_pool2d(x, **options), y, indices, dx


def _run_avg_pool(x, dy, **options):
    y = fc.avg_pool2d(x, **options)
    return y, fc.avg_pool2d_backward(dy[:, :, : y.shape[2], : y.shape[3]], x.shape, **options)


def _run_batch_norm(x, dy):
    numbers = np.linspace(0.5, 2, x.shape[1]).astype(x.dtype.newbyteorder("="))
    mean, var, weight, bias = numbers - 1, numbers.copy(), 1 / numbers, numbers
    trained = fc.batch_norm(x, weight, bias, mean, var, training=True)
    predicted = fc.batch_norm(x, weight, bias, mean, var)
    trained_backward = fc.batch_norm_backward(dy, x, weight)
    predicted_backward = fc.batch_norm_backward(dy, x, weight, mean, var, training=False)
    return trained, mean, var, predicted, *trained_backward, *predicted_backward


def _run_batch_norm_of_rows(x, dy):
    return _run_batch_norm(x[..., 0, 0], dy[..., 0, 0])


def _run_maxout(x, dy):
    y, indices = fc.maxout(x, 2)
    return y, indices, fc.maxout_backward(dy[:, ::2], indices, 2)


def _classes(x):
    return np.arange(x.size // x.shape[1]).reshape(x.shape[0], *x.shape[2:]) * 7 % x.shape[1]


def _weights(x):
    return np.arange(1, x.shape[1] + 1).astype(x.dtype)


def _run_activation(name):
    def run(x, dy):
        y = getattr(fc, name)(x)
        return y, getattr(fc, f"{name}_backward")(dy, y)

    return run


def _run_softmax(name, axis):
    return lambda x, dy: (getattr(fc, name)(x, axis), getattr(fc, f"{name}_backward")(dy, x, axis))


def _run_adaptive(x, dy):
    dx = fc.adaptive_avg_pool2d_backward(dy[:, :, :3, :3], x.shape)
    return *fc.adaptive_max_pool2d(x, 3, return_indices=True), fc.adaptive_avg_pool2d(x, 3), dx


def _run_local_response_norm(x, dy):
    return fc.local_response_norm(x, 3), fc.local_response_norm_backward(dy, x, 3, 1e-4, 0.75, 1.0)


def _run_hinge(x, dy):
    rows, strip = x[..., 0, 0], x[0, 0]
    return *fc.hinge(rows, _classes(rows)), *fc.hinge(strip, _classes(strip), reduction="none")


def _run_sigmoid_entropy(x, dy):
    return fc.sigmoid_cross_entropy(x, fc.sigmoid(dy), pos_weight=x[0, 0] * x[0, 0], weight=x[:1])


def _run_entropy(x, dy):
    labels, q = _classes(x), fc.softmax(dy, axis=1)
    results = []
    for reduction in ("mean", "none"):
        for more in ({}, {"label_smoothing": 0.1, "weight": _weights(x)}):
            results += fc.softmax_cross_entropy(x, labels, reduction=reduction, **more)
            results += fc.softmax_cross_entropy(x, q, reduction=reduction, **more)
    return results


RUNS = {
    **{name: _run_activation(name) for name in ACTIVATIONS},
    **{f"{n} axis {axis}": _run_softmax(n, axis) for n in ("softmax", "log_softmax") for axis in (1, -1)},
    "maxout": _run_maxout,
    "dropout": lambda x, dy: (fc.dropout(x, 0.3, rng=1)[0], fc.dropout_backward(dy, x > 0, 0.3)),
    "max_pool 2 stride 2": lambda x, dy: _run_max_pool(x, dy, kernel_size=2),
    "max_pool 3 stride 2": lambda x, dy: _run_max_pool(x, dy, kernel_size=3, stride=2, padding=1),
    "max_pool 3 stride 1": lambda x, dy: _run_max_pool(x, dy, kernel_size=3, stride=1, padding=1),
    "max_pool 6 stride 5": lambda x, dy: _run_max_pool(x, dy, kernel_size=6, stride=5),
    "avg_pool 2 stride 2": lambda x, dy: _run_avg_pool(x, dy, kernel_size=2),
    "avg_pool 3 stride 1": lambda x, dy: _run_avg_pool(x, dy, kernel_size=3, stride=1, padding=1),
    "avg_pool 6 stride 5": lambda x, dy: _run_avg_pool(x, dy, kernel_size=6, stride=5),
    "adaptive_pool": _run_adaptive,
    "batch_norm": _run_batch_norm,
    "batch_norm of rows": _run_batch_norm_of_rows,
    "local_response_norm": _run_local_response_norm,
    "softmax_cross_entropy": _run_entropy,
    "softmax_cross_entropy of rows": lambda x, dy: _run_entropy(x[..., 0, 0], dy[..., 0, 0]),
    "nll": lambda x, dy: fc.nll(x, _classes(x), weight=_weights(x)),
    "hinge": _run_hinge,
    "sigmoid_cross_entropy": _run_sigmoid_entropy,
    "squared_error": lambda x, dy: fc.squared_error(x, dy),
    "channel_sum": lambda x, dy: [channel_sum(x, axis) for axis in range(x.ndim)],
}


def _pair(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


def _same(results, expected, what):
    assert len(results) == len(expected)
    for i, (a, b) in enumerate(zip(results, expected)):
        testing.same_bits(a, b, f"{what}, result {i}")


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RUNS)
def test_same_bits_whatever_the_threads(name, dtype):
    x, dy = _pair(np.random.default_rng(1), (9, 6, 30, 35), dtype)  # enough elements for more than one thread
    results = []
    for threads in (1, 2, 3, 7):
        with fc.num_threads(threads):
            results.append(RUNS[name](x, dy))
    for other in results[1:]:
        _same(other, results[0], name)


@at_every_level
@pytest.mark.parametrize("layout", testing.LAYOUTS[1:])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RUNS)
def test_same_bits_whatever_the_layout(name, dtype, layout):
    x, dy = _pair(np.random.default_rng(2), (3, 6, 13, 11), dtype)
    expected = RUNS[name](x, dy)
    laid = testing.lay_out(x, layout), testing.lay_out(dy, layout)
    before = laid[0].tobytes(), laid[1].tobytes()
    results = RUNS[name](*laid)
    _same(results, expected, f"{name}, {layout}")
    assert (laid[0].tobytes(), laid[1].tobytes()) == before


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name", [n for n in RUNS if "pool" in n or "softmax axis" in n or n in ("maxout", "local_response_norm")]
)
def test_a_sample_does_not_depend_on_its_batch(name, dtype):
    x, dy = _pair(np.random.default_rng(3), (9, 6, 30, 35), dtype)
    whole = RUNS[name](x, dy)
    for n in (0, 4, 8):
        alone = RUNS[name](x[n : n + 1], dy[n : n + 1])
        _same(alone, [part[n : n + 1] for part in whole], f"{name}, sample {n}")


@at_every_level
@pytest.mark.parametrize(
    "width, options", ((53, {"kernel_size": 2}), (64, {"kernel_size": 3, "stride": 2, "padding": 1}))
)
def test_results_written_past_the_caches_are_those_that_are_not(width, options):
    """Results of 16 MiB take another way to memory; so do their rows that are not whole lines of it."""
    channels = 2**22 // width**2 + 8
    x, dy = _pair(np.random.default_rng(6), (1, channels, width, width), np.float32)
    for threads in (1, 2):
        with fc.num_threads(threads):
            for run in (_run_avg_pool, _run_max_pool):
                whole = run(x, dy, **options)
                for c in (0, channels // 2, channels - 3):
                    alone = run(x[:, c : c + 3], dy[:, c : c + 3], **options)
                    _same(alone, [part[:, c : c + 3] for part in whole], f"{run.__name__}, channel {c}")


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_element_does_not_depend_on_its_place(dtype):
    """Tails run through the same code as whole vectors."""
    x = (np.random.default_rng(4).standard_normal(200) * 5).astype(dtype)
    for name in ACTIVATIONS:
        whole = getattr(fc, name)(x)
        for piece in (slice(0, 1), slice(3, 8), slice(7, 23), slice(1, 32), slice(9, 199)):
            testing.same_bits(getattr(fc, name)(x[piece]), whole[piece], name)


# -- accuracy -----------------------------------------------------------------------------------------------


def _dense(dtype, low, high):
    """Numbers from low to high, evenly over their bit patterns, and evenly over the line near 0."""
    kind = np.dtype(f"u{np.dtype(dtype).itemsize}")
    top = np.array([-low, high], dtype).view(kind)
    patterns = [np.linspace(0, int(t), 100001).astype(kind).clip(0, t).view(dtype) for t in top]
    line = np.linspace(max(low, -25), min(high, 25), 200001).astype(dtype)
    return np.concatenate([-patterns[0], patterns[1], line])


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name, ulps, exact",
    [
        ("sigmoid", 2.5, lambda x: np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x)))),
        ("tanh", 1.5, np.tanh),
        ("elu", 1.5, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    ],
    ids=("sigmoid", "tanh", "elu"),
)
def test_error_of_elementary_functions(name, ulps, exact, dtype):
    """The errors stated in native/vmath.h, down to the subnormal results, against the widest type here."""
    if dtype == np.float64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("no type here is wider than float64")
    x = _dense(dtype, -np.finfo(dtype).max, np.finfo(dtype).max)
    expected = exact(x.astype(np.longdouble if dtype == np.float64 else np.float64))
    with np.errstate(over="ignore"):  # there is no next number after the largest
        error = np.abs(getattr(fc, name)(x) - expected) / np.spacing(np.abs(expected).astype(dtype))
    assert error.max() < ulps, (x[error.argmax()], error.max())


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_of_log(dtype):
    """log through log_softmax of two classes, one of which is 0: -log(1 + exp(x))."""
    x = _dense(dtype, -100, 100)
    for array, axis in ((np.stack([x, np.zeros_like(x)], 1), 1), (np.stack([x, np.zeros_like(x)]), 0)):
        wide = array.astype(np.float64)
        expected = fc.reference.log_softmax(wide, axis)
        testing.compare(fc.log_softmax(array, axis), expected, bounds.softmax(wide, axis, True, dtype))


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_sums_stay_accurate(dtype):
    """A million terms of one sign: summed one after the other, the last digits would be lost."""
    x = np.random.default_rng(5).random((1, 1, 1 << 20)).astype(dtype) + dtype.type(0.5)
    exact = np.sum(x.astype(np.longdouble))
    eps = np.finfo(dtype).eps
    assert abs(fc.adaptive_avg_pool1d(x, 1)[0, 0, 0] / (exact / x.size) - 1) < 2 * eps
    assert abs(channel_sum(x, 1)[0] / exact - 1) < 2 * eps
    assert abs(channel_sum(x.reshape(-1, 1), 1)[0] / exact - 1) < 2 * eps
    squares = np.sum(x.astype(np.longdouble) ** 2)
    assert abs(fc.squared_error(x, 0 * x, reduction="sum")[0] / squares - 1) < 2 * eps
    assert abs(np.sum(fc.softmax(x[0, 0]).astype(np.float64)) - 1) < 4 * eps


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("first", (1e4, -1e6))
@pytest.mark.parametrize(
    "shape", ((64, 3, 20, 20), (8, 3, 7, 7), (150, 3, 7, 7), (2, 3, 100, 101), (4096, 3), (400, 3, 4))
)
def test_batch_norm_far_from_zero(shape, first, dtype):
    """mean^2 / var = 1e8: E[x^2] - E[x]^2 would have no correct digit left in float32. And the first sample
    far from all others, which must not decide what the moments are taken about."""
    x = np.random.default_rng(6).standard_normal(shape) + 1e4
    x[0] += first - 1e4
    x = x.astype(dtype)
    y = fc.batch_norm(x, None, None, None, None, training=True, eps=0.0)
    wide = x.astype(np.longdouble)
    axes = (0, *range(2, x.ndim))
    expected = (wide - wide.mean(axis=axes, keepdims=True)) / wide.std(axis=axes, keepdims=True)
    expected = expected.astype(np.float64)
    rounded_mean = 0 if dtype == np.float32 else 1e4  # the mean is kept in float64
    terms = 16 if first == 1e4 else 8 * 16  # about what may be the mean of an eighth
    testing.compare(y, expected, bounds.bound(1 + np.abs(expected) + rounded_mean, terms, dtype))


# -- special values -----------------------------------------------------------------------------------------


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(dtype):
    inf, nan, tiny = np.inf, np.nan, np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, inf, -inf, nan, tiny, -tiny, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    for name, expected in {
        "relu": [0, 0, inf, 0, nan, tiny, 0, x[7], 0],
        "sigmoid": [0.5, 0.5, 1, 0, nan, 0.5, 0.5, 1, 0],
        "tanh": [0, 0, 1, -1, nan, tiny, -tiny, 1, -1],
        "elu": [0, 0, inf, -1, nan, tiny, -tiny, x[7], -1],
    }.items():
        testing.compare(getattr(fc, name)(x), np.array(expected, dtype), what=name)
        assert np.isnan(getattr(fc, name + "_backward")(np.full(1, nan, dtype), np.ones(1, dtype))[0]), name
    assert np.signbit(fc.tanh(x[1:2]))[0] and not np.signbit(fc.tanh(x[:1]))[0]
    assert np.signbit(fc.elu(x[1:2]))[0]


@at_every_level
def test_the_far_ends_of_exp():
    """Results close to overflow are finite, those beyond it inf; underflow is gradual."""
    for dtype, lowest, least in ((np.float32, -103.97, 2.0**-149), (np.float64, -745.13, 2.0**-1074)):
        assert fc.sigmoid(np.array([lowest], dtype))[0] == least
        assert fc.sigmoid(np.array([lowest - 1], dtype))[0] == 0
        x = np.linspace(lowest, lowest + 20, 1000).astype(dtype)
        assert (np.diff(fc.sigmoid(x)) >= 0).all()


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axis", (1, 0))
def test_softmax_keeps_a_nan_in_its_row(axis, dtype):
    x = np.random.default_rng(7).standard_normal((40, 40)).astype(dtype)
    clean = {name: getattr(fc, name)(x, axis) for name in ("softmax", "log_softmax")}
    at = (slice(None), 3) if axis == 0 else (3, slice(None))
    for value in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[at][7:8] = value
        for name, expected in clean.items():
            y = getattr(fc, name)(spoilt, axis)
            assert np.isnan(y[at]).any()
            y[at] = expected[at]
            testing.same_bits(y, expected, name)
    spoilt = x.copy()
    spoilt[at][7:9] = -np.inf
    y = fc.softmax(spoilt, axis)[at]
    assert (y[7:9] == 0).all() and np.isfinite(y).all()


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel, stride", ((2, 2), (3, 2), (3, 1), (5, 5), ((3, 65), 1)))
def test_max_pool_takes_the_first_nan_and_the_first_of_equals(kernel, stride, dtype):
    rng = np.random.default_rng(8)
    for values in ((0.0, 1.0), (np.nan, 1.0, -np.inf), (-np.inf,), (-np.inf, -1.0)):
        x = rng.choice(values, (1, 1, 12, 70)).astype(dtype)
        options = {"stride": stride, "return_indices": True}
        pools = [f(x[..., :67], kernel, **options) for f in (fc.max_pool2d, fc.reference.max_pool2d)]
        testing.same_bits(pools[0][0], pools[1][0])
        testing.same_bits(pools[0][1], pools[1][1])


@at_every_level
def test_windows_wholly_in_padding():
    x = np.ones((1, 1, 3), np.float32)
    y, indices = fc.max_pool1d(x, 2, stride=1, padding=3, return_indices=True)
    assert y[0, 0, 0] == y[0, 0, -1] == -np.inf and indices[0, 0, 0] == indices[0, 0, -1] == -1
    assert fc.avg_pool1d(x, 2, stride=1, padding=3, count_include_pad=False)[0, 0, 0] == 0
    dx = fc.max_pool1d_backward(np.ones_like(y), indices, x.shape)
    testing.same_bits(dx, np.array([[[2, 1, 1]]], np.float32))


# -- what is checked where it is used -----------------------------------------------------------------------

OUTSIDE = (12, -2, 2**40, -(2**40), 2**63 - 1, -(2**63))


@at_every_level
@pytest.mark.parametrize("wrong", OUTSIDE)
def test_max_pool_backward_rejects_indices_outside_the_plane(wrong):
    indices = np.zeros((1, 2, 5), np.int64)
    indices[0, 1, 3] = wrong
    rule = rf"max_pool1d_backward: index {wrong} is outside the plane of 12 elements \(need 0 <= index < 12"
    with pytest.raises(ValueError, match=rule):
        fc.max_pool1d_backward(np.ones((1, 2, 5), np.float32), indices, (1, 2, 12))


@at_every_level
@pytest.mark.parametrize("wrong", (-1, *OUTSIDE))
def test_maxout_backward_rejects_indices_that_are_no_piece(wrong):
    indices = np.zeros((3, 5), np.int64)
    indices[2, 1] = wrong
    rule = rf"maxout_backward: index {wrong} is not one of 4 pieces \(need 0 <= index < 4\)"
    with pytest.raises(ValueError, match=rule):
        fc.maxout_backward(np.ones((3, 5), np.float32), indices, 4)


@at_every_level
@pytest.mark.parametrize("wrong", (5, -1, 2**40, -(2**63)))
@pytest.mark.parametrize("loss", ("softmax_cross_entropy", "nll", "hinge"))
def test_losses_reject_targets_that_are_no_class(loss, wrong):
    target = np.array([0, 1, wrong, 2])
    with pytest.raises(ValueError, match=rf"{loss}: target {wrong} is not a class \(need 0 <= target < 5"):
        getattr(fc, loss)(np.zeros((4, 5), np.float32), target)


@at_every_level
def test_targets_beyond_int64_are_not_taken_for_ignored():
    target = np.array([0, 2**64 - 100], np.uint64)  # as int64 this would be the default ignore_index
    with pytest.raises(ValueError, match="is not a class"):
        fc.nll(np.zeros((2, 5), np.float32), target)


@at_every_level
def test_indices_that_change_during_the_call_do_no_harm():
    """While another thread writes wild indices a call succeeds or is a ValueError; nothing outside is written."""
    indices = np.zeros((8, 4, 4096), np.int64)
    dy = np.ones(indices.shape, np.float32)
    labels = np.zeros(4096, np.int64)
    scores = np.zeros((4096, 4), np.float32)
    stop = threading.Event()

    def disturb():
        rng = np.random.default_rng()
        while not stop.is_set():
            indices[...] = rng.choice((0, 2**62, -(2**62), 4095, -1))
            labels[...] = rng.choice((0, 3, 4, -1, 2**62))

    other = threading.Thread(target=disturb)
    other.start()
    try:
        for _ in range(25):
            for call in (
                lambda: fc.max_pool1d_backward(dy, indices, (8, 4, 4096)),
                lambda: fc.softmax_cross_entropy(scores, labels),
                lambda: fc.hinge(scores, labels),
                lambda: fc.maxout_backward(dy, indices, 2),
            ):
                try:
                    call()
                except ValueError as error:
                    assert "need 0 <=" in str(error)
    finally:
        stop.set()
        other.join()


# -- shapes -------------------------------------------------------------------------------------------------


@at_every_level
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_number_of_axes(dtype):
    most = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
    shape = [2 if axis % 4 == 0 and axis < 32 else 1 for axis in range(most)]
    x = np.random.default_rng(9).standard_normal(shape).astype(dtype)
    strided = x.transpose(range(most - 1, -1, -1))
    for array in (x, strided):
        testing.same_bits(fc.tanh(array), fc.tanh(array.ravel()).reshape(array.shape))
        testing.same_bits(fc.softmax(array, axis=28), fc.softmax(array.copy(), axis=28))
    scalar = np.asarray(dtype.type(-2.0))
    assert fc.relu(scalar).shape == () and fc.softmax(scalar) == 1 and fc.softmax(scalar).shape == ()


@at_every_level
@pytest.mark.parametrize("shape", ((0,), (0, 3), (3, 0), (2, 0, 4)))
def test_zero_sizes(shape):
    x = np.zeros(shape, np.float32)
    for name in ACTIVATIONS:
        assert getattr(fc, name)(x).shape == shape
        assert getattr(fc, f"{name}_backward")(x, x).shape == shape
    for axis in range(x.ndim):
        assert fc.softmax(x, axis).shape == fc.log_softmax_backward(x, x, axis).shape == shape
    loss, gradient = fc.squared_error(x, x, reduction="sum")
    assert loss == 0 and gradient.shape == shape
    assert np.isnan(fc.squared_error(x, x)[0])
