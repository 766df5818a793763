"""The memory-bound kernels in the emulator, against the float64 reference."""

import numpy as np
import pytest
from emulator import Device
from test_cuda_kernels import (
    arrays_of, assert_exact, integers, problem_of, reference, run, weight_gradient,
)  # fmt: skip

from fastconv import _reference, testing
from fastconv._problem import PoolProblem
from fastconv.cuda import depthwise, memory_bound
from fastconv.testing import bounds

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 88.0, -104.0, 1e-30], np.float32)


def values(size, seed=0):
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    x[: len(SPECIAL)] = SPECIAL[:size]
    return x


def launched(program, outputs, **arrays):
    """Results, by name, of a program on these arrays; outputs: name -> (shape, dtype)."""
    device = Device()
    addresses = {name: device.put(a) for name, a in arrays.items()}
    for name, (shape, dtype) in outputs.items():
        addresses[name] = device.allocate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    run(device, program, addresses)
    return {name: device.get(addresses[name], shape, dtype) for name, (shape, dtype) in outputs.items()}


PARAMETER = {"relu": 0.0, "leaky_relu": 0.25, "elu": 1.5, "sigmoid": 0.0, "tanh": 0.0}


@pytest.mark.parametrize("size", [1, 3, 4, 1023, 9001])
@pytest.mark.parametrize("name", PARAMETER)
def test_activation(name, size):
    x, parameter = values(size), PARAMETER[name]
    program = memory_bound.activation(name, size, parameter)
    (y,) = launched(program, {"out": (x.shape, np.float32)}, x=x).values()
    expected = _reference.activation(name, x.astype(np.float64), parameter)
    testing.compare(y, expected, bounds.function(expected, np.float32))
    dy = values(size, 1)[::-1].copy()
    program = memory_bound.activation(name, size, parameter, True)
    (dx,) = launched(program, {"out": (x.shape, np.float32)}, dy=dy, y=y).values()
    wide = dy.astype(np.float64), y.astype(np.float64)
    expected = _reference.activation_backward(name, *wide, parameter)
    testing.compare(dx, expected, bounds.activation_backward(name, *wide, parameter, np.float32))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("rows, classes", [(1, 1), (9, 10), (17, 33), (3, 1000), (8, 64)])
def test_softmax(rows, classes, log):
    x = np.random.default_rng(2).standard_normal((rows, classes)).astype(np.float32) * 8
    program = memory_bound.softmax(rows, classes, log)
    (y,) = launched(program, {"y": (x.shape, np.float32)}, x=x).values()
    expected = _reference.softmax(x.astype(np.float64), 1, log)
    testing.compare(y, expected, bounds.softmax(x.astype(np.float64), 1, log, np.float32))


@pytest.mark.parametrize("mean, smoothing", [(True, 0.0), (False, 0.125)])
@pytest.mark.parametrize("rows, classes", [(2, 2), (11, 10), (5, 1000)])
def test_cross_entropy(rows, classes, mean, smoothing):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((rows, classes)).astype(np.float32) * 4
    target = rng.integers(0, classes, rows)
    target[0] = -100
    count = np.array([rows - 1], np.float32)
    program = memory_bound.cross_entropy(rows, classes, mean, -100, smoothing)
    outputs = {"losses": ((rows,), np.float32), "dx": (x.shape, np.float32)}
    found = launched(program, outputs, x=x, target=target, count=count)
    wide, size = x.astype(np.float64), rows - 1 if mean else 1
    losses, _ = _reference.softmax_cross_entropy(wide, target, None, -100, "none", smoothing)
    _, dx = _reference.softmax_cross_entropy(wide, target, None, -100, "mean" if mean else "sum", smoothing)
    q = np.full(x.shape, smoothing / classes)
    q[np.arange(1, rows), target[1:]] += 1 - smoothing
    q[0] = 0
    (loss_bound, _), (_, dx_bound) = (
        bounds.cross_entropy(wide, q, kind, size, np.float32) for kind in ("none", "mean" if mean else "sum")
    )
    testing.compare(found["losses"], losses, loss_bound)
    testing.compare(found["dx"], dx, dx_bound)


def test_labels_outside_leave_their_rows_alone():
    x = values((30)).reshape(3, 10)[:, ::-1].copy()
    program = memory_bound.cross_entropy(3, 10, True, None, 0.0)
    target = np.array([10, -1, 1 << 32], np.int64)
    outputs = {"losses": ((3,), np.float32), "dx": (x.shape, np.float32)}
    found = launched(program, outputs, x=x, target=target, count=np.ones(1, np.float32))
    assert not found["losses"].any() and not found["dx"].any()


@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=(2, 3), dilation=(2, 1)),
        dict(kernel_size=(1, 4)),
        dict(kernel_size=2, padding=3, stride=1),
    ],
)  # fmt: skip
def test_max_pool(options, indices):
    rng = np.random.default_rng(4)
    x = rng.integers(-2, 3, (2, 3, 9, 8)).astype(np.float32)
    x[0, 0, 3, 3:5] = np.nan
    x[0, 1] = -np.inf
    problem = PoolProblem.of(x, **options, ndim=2, op="max_pool2d")
    program = memory_bound.max_pool(problem, indices)
    outputs = {"y": (problem.y_shape, np.float32)} | (
        {"indices": (problem.y_shape, np.int64)} if indices else {}
    )
    found = launched(program, outputs, x=x)
    y, at = _reference.max_pool(x, problem, True)
    testing.same_bits(np.where(np.isnan(found["y"]), np.float32(np.nan), found["y"]), y)
    if indices:
        assert (found["indices"] == at).all()


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
    wide = {n: a.astype(np.float64) for n, a in arrays.items()}
    inputs = {n: arrays[n] for n in ("x", "weight", "bias") if n in arrays}
    program = memory_bound.depthwise(problem, False, problem.bias)
    (y,) = launched(program, {"y": (problem.y_shape, np.float32)}, **inputs).values()
    assert (y == reference("forward", problem, wide)).all()
    program = memory_bound.depthwise(problem, True, False)
    outputs = {"dx": (problem.x_shape, np.float32)}
    (dx,) = launched(program, outputs, dy=arrays["dy"], weight=arrays["weight"]).values()
    assert (dx == reference("backward_input", problem, wide)).all()


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
    assert (
        memory_bound.softmax(4, 1025, False) is None and memory_bound.activation("relu", 1 << 31, 0.0) is None
    )
    grouped = problem_of(1, 4, 8, (5, 5), (3, 3), groups=4)
    assert memory_bound.depthwise(grouped, False, False) is None
    wide = problem_of(1, 4, 4, (9, 9), (8, 8), groups=4)
    assert memory_bound.depthwise(wide, False, False) is None
