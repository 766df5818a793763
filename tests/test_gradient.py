"""check_gradient itself: it accepts right gradients and rejects slightly wrong ones."""

import numpy as np
import pytest

import fastconv as fc

R = fc.reference  # float64 accumulation: what is tested here is the checker


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def convolution(x):
    w = normal(2, 1, 3, 3)
    return R.conv2d(x, w), lambda dy: R.conv2d_backward(dy, x, w)[0]


def activation(name):
    def f(x):
        y = getattr(R, name)(x)
        return y, lambda dy: getattr(R, f"{name}_backward")(dy, y)

    return f


def cross_entropy(x):
    return R.softmax_cross_entropy(x, np.arange(5) % 4)  # (loss, gradient)


def batch_norm(x):
    y = R.batch_norm(x, None, None, None, None, training=True)
    return y, lambda dy: R.batch_norm_backward(dy, x, None)[0]


def constant(x):
    return R.softmax(x).sum(axis=1), lambda dy: np.zeros_like(x)  # nothing but rounding in the differences


RIGHT = {
    "convolution": (convolution, normal(1, 1, 6, 6)),
    "large values": (convolution, 1e6 * normal(1, 1, 6, 6)),
    "small values": (convolution, 1e-6 * normal(1, 1, 6, 6)),
    "an offset": (convolution, 1e3 + normal(1, 1, 6, 6)),
    "sigmoid": (activation("sigmoid"), normal(5, 4)),
    "saturated": (activation("sigmoid"), 30 * normal(5, 4)),
    "tanh": (activation("tanh"), normal(5, 4)),
    "relu": (activation("relu"), normal(5, 4)),
    "elu": (activation("elu"), normal(5, 4)),
    "log_softmax": (activation("log_softmax"), normal(5, 4)),
    "cross_entropy": (cross_entropy, normal(5, 4)),
    "sure cross_entropy": (cross_entropy, 100 * normal(5, 4)),
    "batch_norm": (batch_norm, normal(4, 2, 3, 3)),
    "constant": (constant, normal(5, 4)),
    "view of x": (lambda x: (x.T, lambda dy: dy.T), normal(3, 2)),
    "0-d": (lambda x: (x * x, lambda dy: 2 * x * dy), np.array(3.0)),
    "zero": (lambda x: (x * x, lambda dy: 2 * x * dy), np.zeros(3)),
    "float32 x": (activation("tanh"), normal(3, 2).astype(np.float32)),
    "empty": (activation("tanh"), np.zeros((0, 3))),
    "a sample of many": (activation("tanh"), normal(80, 80)),
}


@pytest.mark.parametrize("f, x", RIGHT.values(), ids=RIGHT)
def test_right_gradients_pass(f, x):
    before = x.copy()
    report = fc.check_gradient(f, x)
    assert report and report.ok, report
    assert report.max_error <= report.threshold and report.unresolved == 0
    assert np.array_equal(x, before)


def altered(f, change):
    """f with its gradient changed."""

    def g(x):
        y, backward = f(x)
        return y, lambda dy: change(np.array(backward(dy) if callable(backward) else backward * dy))

    return g


WITH_GRADIENT = [name for name in RIGHT if name not in ("constant", "zero", "empty", "saturated")]


@pytest.mark.parametrize("name", WITH_GRADIENT)
@pytest.mark.parametrize("factor", [1.001, 0.999])
def test_a_tenth_of_a_percent_is_found(name, factor):
    f, x = RIGHT[name]
    report = fc.check_gradient(altered(f, lambda dx: dx * factor), x)
    assert not report and report.max_error > report.threshold


def test_one_wrong_element_is_found():
    def change(dx):
        dx[0, 0, 3, 4] *= 1.01
        return dx

    report = fc.check_gradient(altered(convolution, change), normal(1, 1, 6, 6))
    assert not report.ok and report.index == (0, 0, 3, 4)
    assert report.max_error == abs(report.analytic - report.numerical)


def test_a_dropped_tap_is_found():
    def dropped(x):
        w = normal(2, 1, 3, 3)
        less = w.copy()
        less[1, 0, 2, 2] = 0
        return R.conv2d(x, w), lambda dy: R.conv2d_backward(dy, x, less)[0]

    assert not fc.check_gradient(dropped, normal(1, 1, 6, 6)).ok


def test_an_error_outside_the_sample_is_found():
    """Of a large x only some elements are checked one by one, but all of them along one direction."""
    found = []
    for i in range(6):  # about five sixths of the elements are not in the sample

        def change(dx, i=i):
            dx[i, i] *= 1.01
            return dx

        found.append(fc.check_gradient(altered(activation("tanh"), change), normal(80, 80)))
    assert not any(found)
    assert any(report.index is None for report in found)
    assert found[0].checked == 1024 + 1


def test_nan_fails():
    assert not fc.check_gradient(altered(convolution, lambda dx: dx * np.nan), normal(1, 1, 6, 6)).ok
    x = normal(1, 1, 6, 6)
    x[0, 0, 2, 2] = np.nan
    assert not fc.check_gradient(convolution, x).ok


def test_float32_inside_is_not_good_enough():
    """Rounding noise must not pass for a right gradient because everything is within it."""

    def f(x):
        narrow = x.astype(np.float32)
        y = np.tanh(narrow)
        return y, lambda dy: dy * (1 - y * y)

    report = fc.check_gradient(f, normal(5, 4))
    assert not report.ok and report.unresolved > 0


def test_a_kink_within_the_step_decides_nothing():
    x = 1 + np.abs(normal(5, 4))
    x[2, 3] = 1e-6  # the step is about 1e-5
    report = fc.check_gradient(activation("relu"), x)
    assert report.ok and report.unresolved == 1 and report.checked == 19


def test_own_dy():
    x, dy = normal(3, 2), np.zeros((3, 2), np.float32)
    assert not fc.check_gradient(altered(activation("tanh"), lambda dx: dx * 2), x).ok
    assert fc.check_gradient(altered(activation("tanh"), lambda dx: dx * 2), x, dy).ok  # nothing is asked
