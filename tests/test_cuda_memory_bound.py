"""The memory-bound kernels in the emulator, against the float64 reference: float32, float16, bfloat16.

Numbers of 16 bits are compared as what they are: the reference gets the same short numbers, and the bound is
that of float32's arithmetic and one rounding.
"""

from dataclasses import replace

import numpy as np
import pytest
from emulator import Device
from emulator.operations import from_bits, to_bits
from test_cuda_kernels import (
    arrays_of, assert_exact, integers, problem_of, reference, run, weight_gradient,
)  # fmt: skip

from fastconv import _reference, testing
from fastconv._problem import PoolProblem
from fastconv.cuda import depthwise, memory_bound, normalisation
from fastconv.testing import bounds

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 88.0, -104.0, 1e-30], np.float32)
DTYPES = ("f32", "f16", "bf16")
NAMES = {"f16": "float16", "bf16": "bfloat16"}


def short(x, dtype):
    """The nearest numbers of a dtype, as float32."""
    x = np.asarray(x, np.float32)
    return x if dtype == "f32" else from_bits(to_bits(x, dtype), dtype).reshape(x.shape)


def values(size, seed=0, dtype="f32"):
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    x[: len(SPECIAL)] = SPECIAL[:size]
    return short(x, dtype)


def normal(seed, *shape, dtype="f32", scale=1.0):
    return short(np.random.default_rng(seed).standard_normal(shape) * scale, dtype)


def wide(*arrays):
    found = [a.astype(np.float64) for a in arrays]
    return found if len(found) > 1 else found[0]


def launched(program, outputs, dtype="f32", single=(), **arrays):
    """Results, by name, of a program on these arrays; outputs: name -> shape, of the dtype but for `single`.

    Arrays of float32 are sent in the dtype, but for those named in `single`; outputs that are arrays are
    changed in place.
    """
    device = Device()
    kind = lambda name: "f32" if name in single else dtype  # noqa: E731

    def bits(name, a):
        return a if a.dtype != np.float32 or kind(name) == "f32" else to_bits(a, dtype)

    addresses = {name: device.put(bits(name, a)) for name, a in arrays.items()}
    stored = {}
    for name, shape in outputs.items():
        shape, of = shape if isinstance(shape[-1], type) else (shape, None)
        of = of or (np.float32 if kind(name) == "f32" else np.uint16)
        stored[name] = shape, of
        if name not in addresses:
            addresses[name] = device.allocate(int(np.prod(shape)) * np.dtype(of).itemsize)
    run(device, program, addresses)
    found = {}
    for name, (shape, of) in stored.items():
        found[name] = device.get(addresses[name], shape, of)
        if of is np.uint16:
            found[name] = from_bits(found[name], dtype)
    return found


def compare(found, expected, limit, dtype, what="result"):
    if dtype != "f32":
        limit = bounds.rounded(expected, limit, NAMES[dtype])
    testing.compare(found, expected, limit, what)


PARAMETER = {"relu": 0.0, "leaky_relu": 0.25, "elu": 1.5, "sigmoid": 0.0, "tanh": 0.0}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 8, 1023, 9001])
@pytest.mark.parametrize("name", PARAMETER)
def test_activation(name, size, dtype):
    x, parameter = values(size, 0, dtype), PARAMETER[name]
    program = memory_bound.activation(dtype, name, size, parameter)
    (y,) = launched(program, {"out": x.shape}, dtype, x=x).values()
    expected = _reference.activation(name, wide(x), parameter)
    compare(y, expected, bounds.function(expected, np.float32), dtype)
    dy = values(size, 1, dtype)[::-1].copy()
    program = memory_bound.activation(dtype, name, size, parameter, True)
    (dx,) = launched(program, {"out": x.shape}, dtype, dy=dy, y=y).values()
    expected = _reference.activation_backward(name, *wide(dy, y), parameter)
    limit = bounds.activation_backward(name, *wide(dy, y), parameter, np.float32)
    compare(dx, expected, limit, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 8, 2049, 9001])
def test_dropout_and_sums(size, dtype):
    x, mask = values(size, 0, dtype), np.random.default_rng(1).random(size) < 0.7
    program = memory_bound.dropout(dtype, size, 1.25)
    (y,) = launched(program, {"out": x.shape}, dtype, x=x, mask=mask).values()
    expected = np.where(mask, wide(x) * 1.25, 0.0)
    compare(y, expected, bounds.bound(np.abs(expected), 1, np.float32), dtype)
    b = values(size, 2, dtype)[::-1].copy()
    (y,) = launched(memory_bound.add(dtype, size, -0.5), {"out": x.shape}, dtype, a=x, b=b).values()
    with np.errstate(invalid="ignore"):
        expected = wide(x) - 0.5 * wide(b)
    compare(y, expected, bounds.bound(np.abs(wide(x)) + np.abs(wide(b)) / 2, 1, np.float32), dtype)


ROWS = [(1, 1), (9, 10), (17, 33), (3, 1000), (8, 64), (2, 1022)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("rows, classes", ROWS)
def test_softmax(rows, classes, log, dtype):
    x = normal(2, rows, classes, dtype=dtype, scale=8)
    program = memory_bound.softmax(dtype, rows, classes, log)
    (y,) = launched(program, {"y": x.shape}, dtype, x=x).values()
    expected = _reference.softmax(wide(x), 1, log)
    compare(y, expected, bounds.softmax(wide(x), 1, log, np.float32), dtype)
    dy = normal(3, rows, classes, dtype=dtype)
    program = memory_bound.softmax_backward(dtype, rows, classes, log)
    (dx,) = launched(program, {"dx": x.shape}, dtype, dy=dy, y=y).values()
    expected = _reference.softmax_backward(*wide(dy, y), 1, log)
    compare(dx, expected, bounds.softmax_backward(*wide(dy, y), 1, log, np.float32), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean, smoothing", [(True, 0.0), (False, 0.125)])
@pytest.mark.parametrize("rows, classes", [(2, 2), (11, 10), (5, 1000), (3, 37)])
def test_cross_entropy(rows, classes, mean, smoothing, dtype):
    rng = np.random.default_rng(3)
    x = normal(3, rows, classes, dtype=dtype, scale=4)
    target = rng.integers(0, classes, rows)
    target[0] = -100
    count = np.array([rows - 1], np.float32)
    losses = "f32" if mean else dtype  # scratch, or what the caller gets
    program = memory_bound.cross_entropy(dtype, losses, rows, classes, mean, -100, smoothing)
    single = ("count", "losses") if mean else ("count",)
    outputs = {"losses": (rows,), "dx": x.shape}
    found = launched(program, outputs, dtype, single, x=x, target=target, count=count)
    size, x64 = rows - 1 if mean else 1, wide(x)
    right, _ = _reference.softmax_cross_entropy(x64, target, None, -100, "none", smoothing)
    _, dx = _reference.softmax_cross_entropy(x64, target, None, -100, "mean" if mean else "sum", smoothing)
    q = np.full(x.shape, smoothing / classes)
    q[np.arange(1, rows), target[1:]] += 1 - smoothing
    q[0] = 0
    (loss_bound, _), (_, dx_bound) = (
        bounds.cross_entropy(x64, q, kind, size, np.float32) for kind in ("none", "mean" if mean else "sum")
    )
    compare(found["losses"], right, loss_bound, losses)
    compare(found["dx"], dx, dx_bound, dtype)


def test_labels_outside_leave_their_rows_alone():
    x = values((30)).reshape(3, 10)[:, ::-1].copy()
    program = memory_bound.cross_entropy("f32", "f32", 3, 10, True, None, 0.0)
    target = np.array([10, -1, 1 << 32], np.int64)
    outputs = {"losses": (3,), "dx": x.shape}
    found = launched(program, outputs, x=x, target=target, count=np.ones(1, np.float32))
    assert not found["losses"].any() and not found["dx"].any()


# -- pools ---------------------------------------------------------------------------------------------------


def exact(problem):
    return replace(problem, dtype=np.dtype(np.float64))


@pytest.mark.parametrize("indices, dtype", [(False, "f32"), (True, "f32"), (True, "f16"), (False, "bf16")])
@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=(2, 3), dilation=(2, 1)),
        dict(kernel_size=(1, 4)),
        dict(kernel_size=2, padding=3, stride=1),
    ],
)  # fmt: skip
def test_max_pool(options, indices, dtype):
    rng = np.random.default_rng(4)
    x = rng.integers(-2, 3, (2, 3, 9, 8)).astype(np.float32)
    x[0, 0, 3, 3:5] = np.nan
    x[0, 1] = -np.inf
    problem = PoolProblem.of(x, **options, ndim=2, op="max_pool2d")
    program = memory_bound.max_pool(dtype, problem, indices)
    outputs = {"y": problem.y_shape} | ({"indices": (problem.y_shape, np.int64)} if indices else {})
    found = launched(program, outputs, dtype, x=x)
    y, at = _reference.max_pool(x, problem, True)
    testing.same_bits(np.where(np.isnan(found["y"]), np.float32(np.nan), found["y"]), y)
    if indices:
        assert (found["indices"] == at).all()


POOLED = [
    ((2, 3, 9, 8), dict(kernel_size=3, stride=2, padding=1)), ((1, 2, 16, 24), dict(kernel_size=2)),
    ((1, 2, 7, 9), dict(kernel_size=(2, 3), stride=1)), ((2, 2, 33), dict(kernel_size=4, stride=3)),
    ((1, 2, 5, 6, 4), dict(kernel_size=2)), ((1, 1, 40, 40), dict(kernel_size=3, stride=1, padding=1)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, options", POOLED)
def test_max_pool_backward(shape, options, dtype):
    x = np.random.default_rng(5).integers(-2, 3, shape).astype(np.float32)
    ndim = len(shape) - 2
    forward = PoolProblem.of(x, **options, ndim=ndim, op=f"max_pool{ndim}d")
    _, indices = _reference.max_pool(x, forward, True)
    dy = np.random.default_rng(6).integers(-4, 5, indices.shape).astype(np.float32)
    found, wrong = scattered(dy, indices, shape, dtype)
    problem = PoolProblem.of_indices(dy, shape, ndim=ndim, op=f"max_pool{ndim}d_backward")
    assert (found == _reference.max_pool_backward(wide(dy), indices, exact(problem))).all()
    assert wrong == 2**63 - 1


def scattered(dy, indices, shape, dtype):
    """(dx, the flag) of the gradient of maxima in the emulator."""
    ndim = len(shape) - 2
    problem = PoolProblem.of_indices(dy, shape, ndim=ndim, op=f"max_pool{ndim}d_backward")
    program = memory_bound.max_pool_backward(dtype, problem)
    outputs = {"dx": shape, "wrong": ((1,), np.int64)}
    flag = np.array([2**63 - 1])
    found = launched(program, outputs, dtype, dy=dy, indices=indices, wrong=flag)
    return found["dx"], found["wrong"][0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_maxima_with_any_indices(dtype):
    """Indices need not come from windows: any order is right, repeated are summed, wrong flagged."""
    rng = np.random.default_rng(7)
    dy = rng.integers(-4, 5, (2, 3, 5, 60)).astype(np.float32)
    indices = rng.integers(-1, 12 * 14, dy.shape)
    indices[0, 1] = 3  # all of a plane
    indices[1, 2] = -1  # none
    dx, wrong = scattered(dy, indices, (2, 3, 12, 14), dtype)
    expected = np.zeros((6, 12 * 14))
    for plane, (at, values) in enumerate(zip(indices.reshape(6, -1), dy.reshape(6, -1))):
        np.add.at(expected[plane], at[at >= 0], values[at >= 0])
    assert (dx.reshape(6, -1) == expected).all() and wrong == 2**63 - 1
    indices[1, 0, 0, 3], indices[1, 1, 1, 1] = 12 * 14, -2
    dx, wrong = scattered(dy, indices, (2, 3, 12, 14), dtype)
    assert wrong == 3 * 300 + 3


AVERAGES = [
    dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=2), dict(kernel_size=(2, 3), stride=1),
    dict(kernel_size=3, stride=2, padding=1, count_include_pad=False),
    dict(kernel_size=3, stride=2, ceil_mode=True), dict(kernel_size=2, stride=3, padding=1, ceil_mode=True),
    dict(kernel_size=(1, 4), divisor_override=5), dict(kernel_size=2, padding=3, count_include_pad=False),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(9, 8), (12, 16)])
@pytest.mark.parametrize("options", AVERAGES)
def test_avg_pool(options, size, dtype):
    x = np.random.default_rng(8).integers(-4, 5, (2, 3, *size)).astype(np.float32)
    problem = PoolProblem.of(x, **options, ndim=2, op="avg_pool2d")
    averages(problem, x, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, out", [((2, 3, 12, 8), (3, 2)), ((3, 5, 7, 7), (1, 1)), ((2, 2, 24), (6,))])
def test_adaptive_average(shape, out, dtype):
    x = np.random.default_rng(9).integers(-4, 5, shape).astype(np.float32)
    ndim = len(out)
    averages(PoolProblem.of_adaptive(x, out, ndim=ndim, op=f"adaptive_avg_pool{ndim}d"), x, dtype)


def averages(problem, x, dtype):
    program = memory_bound.avg_pool(dtype, problem)
    (y,) = launched(program, {"y": problem.y_shape}, dtype, x=x).values()
    expected = _reference.avg_pool(wide(x), exact(problem))
    magnitude = _reference.avg_pool(np.abs(wide(x)), exact(problem))
    compare(y, expected, bounds.bound(np.abs(magnitude), 49, np.float32), dtype)
    dy = np.random.default_rng(9).integers(-4, 5, y.shape).astype(np.float32)
    program = memory_bound.avg_pool_backward(dtype, problem)
    (dx,) = launched(program, {"dx": x.shape}, dtype, dy=dy).values()
    expected = _reference.avg_pool_backward(wide(dy), exact(problem))
    magnitude = _reference.avg_pool_backward(np.abs(wide(dy)), exact(problem))
    compare(dx, expected, bounds.bound(np.abs(magnitude), 16, np.float32), dtype)


# -- channels ------------------------------------------------------------------------------------------------

SHAPES = [(2, 3, 4, 8), (3, 9, 7, 7), (40, 2), (2, 3, 1), (5, 2, 53, 62)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sums(shape, dtype):
    x = np.random.default_rng(10).integers(-4, 5, shape).astype(np.float32)
    around = shape[0], shape[1], int(np.prod(shape[2:]))
    program = normalisation.channel_sum(dtype, *around)
    (y,) = launched(program, {"y": (shape[1],)}, dtype, x=x).values()
    expected = wide(x).sum(axis=(0, *range(2, x.ndim)))
    assert (y == short(expected, dtype)).all()


def kept_dtypes():
    return [("f32", "f32"), ("f16", "f32"), ("f16", "f16"), ("bf16", "f32"), ("bf16", "bf16")]


@pytest.mark.parametrize("dtype, kept", kept_dtypes())
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(shape, dtype, kept):
    C = shape[1]
    x = normal(11, *shape, dtype=dtype, scale=3) + np.float32(0.5)
    x[:, 0] += 100  # a mean much larger than the deviations
    x = short(x, dtype)
    weight, bias, mean = (normal(s, C, dtype=kept) for s in (12, 13, 14))
    var = short(np.random.default_rng(15).random(C) + 0.5, kept)
    single = ("weight", "bias", "running_mean", "running_var", "dweight", "dbias") if kept == "f32" else ()
    around = shape[0], C, int(np.prod(shape[2:]))
    arrays = dict(weight=weight, bias=bias, running_mean=mean, running_var=var)
    for training in (False, True):
        options = training, 0.1, 1e-5
        program = normalisation.batch_norm(dtype, kept, *around, (True,) * 4, *options)
        outputs = {"y": shape, "running_mean": (C,), "running_var": (C,)}
        found = launched(program, outputs, dtype, single, x=x, **arrays)
        moved = wide(mean, var)
        expected = _reference.batch_norm(*wide(x, weight, bias), *moved, *options)
        limits = bounds.batch_norm(*wide(x, weight, bias, mean, var), *options, np.float32)
        compare(found["y"], expected, limits[0], dtype, "y")
        compare(found["running_mean"], moved[0], limits[1], kept, "running_mean")
        compare(found["running_var"], moved[1], limits[2], kept, "running_var")
    dy = normal(16, *shape, dtype=dtype)
    for training in (True, False):
        program = normalisation.batch_norm_backward(dtype, kept, *around, True, training, 1e-5)
        statistics = {} if training else dict(running_mean=mean, running_var=var)
        outputs = {"dx": shape, "dweight": (C,), "dbias": (C,)}
        found = launched(program, outputs, dtype, single, dy=dy, x=x, weight=weight, **statistics)
        given = (*wide(dy, x, weight), *((None, None) if training else wide(mean, var)), training, 1e-5)
        limits = bounds.batch_norm_backward(*given, np.float32)
        for name, right, limit in zip(outputs, _reference.batch_norm_backward(*given), limits):
            compare(found[name], right, limit, dtype if name == "dx" else kept, name)


def test_batch_norm_without_parameters():
    x = normal(17, 4, 3, 6)
    program = normalisation.batch_norm("f32", "f32", 4, 3, 6, (False,) * 4, True, 0.1, 1e-5)
    (y,) = launched(program, {"y": x.shape}, x=x).values()
    options = None, None, None, None, True, 0.1, 1e-5
    limit = bounds.batch_norm(wide(x), *options, np.float32)[0]
    testing.compare(y, _reference.batch_norm(wide(x), *options), limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, size", [((2, 20, 5, 5), 5), ((1, 3, 4, 6), 5), ((2, 9, 8), 4), ((3, 8), 1)])
def test_response(shape, size, dtype):
    x, dy = normal(18, *shape, dtype=dtype, scale=4), normal(19, *shape, dtype=dtype)
    options, around = (0.5, 0.75, 2.0), (shape[0], shape[1], int(np.prod(shape[2:])))
    program = normalisation.response(dtype, *around, size, *options)
    (y,) = launched(program, {"out": shape}, dtype, x=x).values()
    s = denominators(wide(x), size, *options)
    expected = _reference.local_response_norm(wide(x), size, *options)
    compare(y, expected, bounds.local_response_norm(wide(x), s, size, 0.75, np.float32), dtype)
    program = normalisation.response(dtype, *around, size, *options, True)
    (dx,) = launched(program, {"out": shape}, dtype, x=x, dy=dy).values()
    expected = _reference.local_response_norm_backward(*wide(dy, x), size, *options)
    terms = np.abs(wide(dy) * wide(x)) * s**-1.75
    magnitude = np.abs(wide(dy)) * s**-0.75
    magnitude += 2 * 0.5 * 0.75 / size * np.abs(wide(x)) * terms.sum(axis=1, keepdims=True)
    limit = bounds.local_response_norm_backward(magnitude, s, size, 0.75, np.float32)
    compare(dx, expected, limit, dtype)


def denominators(x, size, alpha, beta, k):
    C = x.shape[1]
    s = np.empty_like(x)
    for c in range(C):
        low = c - size // 2
        s[:, c] = k + alpha / size * (x[:, max(low, 0) : max(low + size, 0)] ** 2).sum(axis=1)
    return s


# -- depthwise convolution -----------------------------------------------------------------------------------

DEPTHWISE = {
    "3x3": dict(N=2, C=5, K=5, groups=5, size=(9, 7), kernel=(3, 3), padding=1, bias=True, activation="relu"),
    "5x2, stride, dilated": dict(
        N=1, C=3, K=3, groups=3, size=(14, 9), kernel=(5, 2), stride=(2, 3), dilation=(1, 2), padding=2
    ),
    "1-d": dict(N=2, C=4, K=4, groups=4, size=(300,), kernel=(7,), padding=3),
}


@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise(case):
    problem = problem_of(**DEPTHWISE[case])
    arrays = {n: a.astype(np.float32) for n, a in arrays_of(problem, np.random.default_rng(5)).items()}
    doubles = {n: a.astype(np.float64) for n, a in arrays.items()}
    inputs = {n: arrays[n] for n in ("x", "weight", "bias") if n in arrays}
    program = memory_bound.depthwise(problem, False, problem.bias)
    (y,) = launched(program, {"y": problem.y_shape}, **inputs).values()
    assert (y == reference("forward", problem, doubles)).all()
    program = memory_bound.depthwise(problem, True, False)
    outputs = {"dx": problem.x_shape}
    (dx,) = launched(program, outputs, dy=arrays["dy"], weight=arrays["weight"]).values()
    assert (dx == reference("backward_input", problem, doubles)).all()


LONG = dict(N=9, C=2, K=2, groups=2, size=(30, 30), kernel=(3, 3), padding=1)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("case", [*DEPTHWISE, "7x7, stride 2", "long"])
def test_depthwise_weight_gradient(case, dtype):
    wide = dict(N=3, C=2, K=2, groups=2, size=(31, 30), kernel=(7, 7), stride=2, padding=3)
    options = {"7x7, stride 2": wide, "long": LONG}.get(case) or DEPTHWISE[case]
    problem = problem_of(**{**options, "bias": False, "activation": None})
    arrays = arrays_of(problem, np.random.default_rng(6), lambda rng, shape: integers(rng, shape, -1, 2) / 4)
    expected = reference("backward_weight", problem, arrays)
    for parts in (None, 3):
        make = lambda *a: depthwise.weight_gradient(a[0], dtype, parts)  # noqa: B023, E731
        found, device, _ = weight_gradient(problem, arrays, dtype, make)
        assert_exact(found, expected, dtype)
        assert device.conflicts["shared_load"] == device.conflicts["shared_store"] == 1
        if case == "long":  # 9 * 30 * 8 threads' worth are 9 steps, of which a part shall have 4
            assert device.launches[0][1] == (2, parts or 2, 1)


def test_depthwise_weight_gradient_of_what_is_not_finite():
    """Columns and rows that no window reads take no part; a channel keeps its own."""
    problem = problem_of(2, 3, 3, (9, 10), (3, 3), stride=4, groups=3)
    arrays = arrays_of(problem, np.random.default_rng(7))
    make = lambda *a: depthwise.weight_gradient(a[0], "f32")  # noqa: E731
    clean, _, _ = weight_gradient(problem, arrays, "f32", make)
    arrays["x"][:, :, 3], arrays["x"][:, :, :, 7:], arrays["x"][1, 2, 4, 4] = np.nan, np.inf, np.nan
    found, _, _ = weight_gradient(problem, arrays, "f32", make)
    assert (found[:2] == clean[:2]).all() and np.isnan(found[2, 0, 0, 0]) and np.isfinite(found[2]).sum() == 8


def test_what_does_not_fit_is_left_to_simple_kernels():
    assert memory_bound.softmax("f32", 4, 1025, False) is None
    assert memory_bound.activation("f32", "relu", 1 << 31, 0.0) is None
    assert memory_bound.activation(None, "relu", 8, 0.0) is None
    x = np.zeros((1, 1, 200, 200), np.float32)
    huge = PoolProblem.of_indices(x, (1, 1, 400, 400), ndim=2, op="max_pool2d_backward")
    assert memory_bound.max_pool_backward("f32", huge) is None
    uneven = PoolProblem.of_adaptive(x, (7, 7), ndim=2, op="adaptive_avg_pool2d")
    assert memory_bound.avg_pool("f16", uneven) is None
    assert normalisation.response("f32", 1, 8, 8, 11, 1e-4, 0.75, 1.0) is None
    assert normalisation.response("f32", 1, 8, 8, 5, 1e-4, 0.75, 0.0) is None
    grouped = problem_of(1, 4, 8, (5, 5), (3, 3), groups=4)
    assert memory_bound.depthwise(grouped, False, False) is None
    wide = problem_of(1, 4, 4, (9, 9), (8, 8), groups=4)
    assert memory_bound.depthwise(wide, False, False) is None
