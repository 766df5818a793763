"""The reference, and the parsing in front of it, against hand-worked numbers, SciPy and PyTorch (if there).

The reference defines what is correct for every other backend; these tests are what defines the reference.
Numbers of the lecture notes are given to the decimals printed there, corrected where the print is a slip.
"""

import itertools
import math

import numpy as np
import pytest

import fastconv as fc
from fastconv import testing

R = fc.reference


def grid(*rows):
    """A float64 image (1, 1, H, W)."""
    return np.array([[rows]], np.float64)


def exactly(actual, expected):
    testing.compare(actual, np.asarray(expected, np.float64))


def printed(actual, expected, decimals):
    """Equal to what is printed with so many decimals."""
    testing.compare(actual, np.asarray(expected, np.float64), 0.5000001 * 10.0**-decimals)


def near(actual, expected, steps=16):
    """Equal up to so many float64 roundings of the largest value."""
    expected = np.asarray(expected, np.float64)
    largest = np.abs(expected).max(initial=0.0)
    testing.compare(actual, expected, testing.bound(largest, steps, np.float64, adversarial=True))


# ---- the lecture notes: neurons -------------------------------------------------------------------------

TRUTH = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float64)
GATES = {"or": (-1, 2, 2), "nor": (1, -2, -2), "and": (-3, 2, 2), "nand": (3, -2, -2)}


def neuron(x, w0, *w):
    """A sigmoid neuron's answer to each row of x."""
    y = R.sigmoid(R.linear(x, np.array([w], np.float64), np.array([w0], np.float64)))
    return (y >= 0.5).astype(np.float64)


def test_mcculloch_pitts_neuron_counts_its_inputs_against_a_threshold():
    x = np.array(list(itertools.product((0, 1), repeat=3)), np.float64)  # actor, genre, director
    for theta in (1, 2, 3):
        total = R.linear(x, np.ones((1, 3)), np.array([-float(theta)]))
        assert np.array_equal(total[:, 0] >= 0, x.sum(axis=1) >= theta)


def test_rosenblatt_rule_learns_or():
    w, b = np.zeros((1, 2)), np.zeros(1)
    desired = np.array([0.0, 1.0, 1.0, 1.0])
    for _ in range(10):
        for x, d in zip(TRUTH, desired):
            y = float(R.linear(x[None], w, b)[0, 0] >= 0)
            w, b = w + 0.5 * (d - y) * x, b + 0.5 * (d - y)
    assert np.array_equal(R.linear(TRUTH, w, b)[:, 0] >= 0, desired == 1)


def test_adaline_delta_rule():
    inputs, t, w = np.array([[1.0, -2.0, 3.0]]), np.array([[2.0]]), np.array([[1.0, 1.0, -1.0]])
    o = R.linear(inputs, w)
    exactly(o, [[-4]])
    _, twice = R.squared_error(o, t, reduction="sum")  # E = 1/2 sum (t - o)^2
    _, dweight, _ = R.linear_backward(twice / 2, inputs, w)
    exactly(-dweight, [[6 * 1, 6 * -2, 6 * 3]])  # delta_p i_p with delta = t - o = 6


@pytest.mark.parametrize(
    "gate, answers",
    [("or", [0, 1, 1, 1]), ("nor", [1, 0, 0, 0]), ("and", [0, 0, 0, 1]), ("nand", [1, 1, 1, 0])],
)
def test_logistic_gates(gate, answers):
    exactly(neuron(TRUTH, *GATES[gate])[:, 0], answers)


def test_xor_is_nor_of_nor_and_and():
    hidden = np.hstack([neuron(TRUTH, *GATES["nor"]), neuron(TRUTH, *GATES["and"])])
    exactly(neuron(hidden, *GATES["nor"])[:, 0], [0, 1, 1, 0])


def train_xor(w1, b1, w2, b2, steps, rate):
    """A 2-2-1 sigmoid network with binary cross-entropy, by gradient descent: (w1, w2, loss)."""
    target = np.array([[0.0], [1.0], [1.0], [0.0]])
    for _ in range(steps):
        h = R.sigmoid(R.linear(TRUTH, w1, b1))
        loss, dz = R.sigmoid_cross_entropy(R.linear(h, w2, b2), target)
        dh, dw2, db2 = R.linear_backward(dz, h, w2)
        _, dw1, db1 = R.linear_backward(R.sigmoid_backward(dh, h), TRUTH, w1)
        w1, b1, w2, b2 = w1 - rate * dw1, b1 - rate * db1, w2 - rate * dw2, b2 - rate * db2
    return w1, w2, float(loss)


def test_xor_is_learnt_by_two_hidden_neurons():
    rng = np.random.default_rng(0)
    w1, w2 = rng.standard_normal((2, 2)), rng.standard_normal((1, 2))
    *_, loss = train_xor(w1, np.zeros(2), w2, np.zeros(1), 2000, 2.0)
    assert loss < 0.01


def test_zero_initial_weights_stay_symmetric():
    w1, w2, loss = train_xor(np.zeros((2, 2)), np.zeros(2), np.zeros((1, 2)), np.zeros(1), 200, 2.0)
    exactly(w1[0], w1[1])
    exactly(w2[0, 0], w2[0, 1])
    near(loss, math.log(2))  # it has learnt nothing


def test_without_nonlinearity_two_layers_are_one():
    rng = np.random.default_rng(0)
    x, w1, w2 = (testing.exact_inputs(rng, s) for s in ((6, 3), (4, 3), (2, 4)))
    exactly(R.linear(R.linear(x, w1), w2), R.linear(x, w2 @ w1))


SQUARED_ERROR_TABLE = [
    (0.50, 0.00, 0.0731),
    (-0.10, 0.00, 0.1481),
    (0.94, -0.94, 0.0217),
    (1.42, -1.73, 0.0029),
    (1.65, -2.08, 0.0003),
    (1.78, -2.27, 0.0000),
]


def sigmoid_neuron(w, b):
    """(1/2 sum of squared errors, dw, db) of the notes' two points."""
    x, target = np.array([[0.5], [2.5]]), np.array([[0.2], [0.9]])
    f = R.sigmoid(R.linear(x, np.array([[w]]), np.array([b])))
    loss, df = R.squared_error(f, target, reduction="sum")
    _, dw, db = R.linear_backward(R.sigmoid_backward(df / 2, f), x, np.array([[w]]))
    return loss / 2, dw[0, 0], db[0], f[:, 0]


@pytest.mark.parametrize("w, b, loss", SQUARED_ERROR_TABLE)
def test_sigmoid_neuron_losses(w, b, loss):
    printed(sigmoid_neuron(w, b)[0], loss, 4)


def test_sigmoid_neuron_gradient_and_descent():
    _, dw, db, f = sigmoid_neuron(0.5, 0.0)
    slope = (f - [0.2, 0.9]) * f * (1 - f)
    near(dw, (slope * [0.5, 2.5]).sum())
    near(db, slope.sum())
    w = b = -2.0
    for _ in range(1000):
        _, dw, db, _ = sigmoid_neuron(w, b)
        w, b = w - dw, b - db
    assert sigmoid_neuron(w, b)[0] < 1e-4
    printed(w, 1.79, 1)
    printed(b, -2.28, 1)


def test_logistic_regression_at_zero_weights():
    x, label = np.array([[0.0, 1.0, 1.0, 0.0]]), np.array([[1.0]])  # the diagonal of a 2x2 pattern
    w = np.zeros((1, 4))
    loss, dz = R.sigmoid_cross_entropy(R.linear(x, w, np.zeros(1)), label)
    near(loss, -math.log(0.5))
    _, dw, _ = R.linear_backward(dz, x, w)
    exactly(dw, [[0, -0.5, -0.5, 0]])  # -(y - y^) x


def test_a_filter_finds_its_pattern_anywhere():
    kernel = grid([-2, 2], [2, -2])
    exactly(R.conv2d(grid([-1, 1], [1, -1]), kernel), [[[[8]]]])
    responses = {p: R.conv2d(grid(p[:2], p[2:]), kernel).item() for p in itertools.product((-1, 1), repeat=4)}
    assert max(responses, key=responses.get) == (-1, 1, 1, -1) and sorted(responses.values())[-2] < 8
    image = np.ones((1, 1, 6, 7))
    image[0, 0, 2, 3] = image[0, 0, 3, 2] = image[0, 0, 3, 4] = image[0, 0, 4, 3] = -1
    image[0, 0, 2:4, 2:4] = [[-1, 1], [1, -1]]
    y = R.conv2d(image, kernel)
    assert y.max() == 8 and y[0, 0, 2, 2] == 8


def test_multinomial_cost():
    p, one_hot = np.array([[0.75, 0.1, 0.15]]), np.array([[1.0, 0.0, 0.0]])
    near(R.softmax_cross_entropy(np.log(p), one_hot)[0], -math.log(0.75))
    loss, gradient = R.softmax_cross_entropy(np.log(p), np.array([0]))
    near(loss, -math.log(0.75))
    near(gradient, p - one_hot)


def test_two_classes_reduce_to_binary_cross_entropy():
    z, label = np.array([-3.0, -0.5, 0.0, 2.0]), np.array([0, 1, 1, 0])
    two, d_two = R.softmax_cross_entropy(np.stack([np.zeros(4), z], axis=1), label, reduction="none")
    one, d_one = R.sigmoid_cross_entropy(z, label.astype(np.float64), reduction="none")
    near(two, one)
    near(d_two[:, 1], d_one)


def test_multinomial_sizes():
    y = R.linear(np.zeros((2, 60 * 60)), np.zeros((3, 3600)), np.zeros(3))
    assert y.shape == (2, 3)


# ---- the lecture notes: gradients -----------------------------------------------------------------------


def test_computational_graph():
    xy, z = np.array([[-2.0, 5.0]]), -4.0
    q = R.linear(xy, np.ones((1, 2)))
    f = R.linear(q, np.array([[z]]))
    exactly(q, [[3]])
    exactly(f, [[-12]])
    dq, dz, _ = R.linear_backward(np.ones((1, 1)), q, np.array([[z]]))
    exactly(R.linear_backward(dq, xy, np.ones((1, 2)))[0], [[-4, -4]])
    exactly(dz, [[3]])


def test_numerical_gradient_by_forward_differences():
    printed((1.25322 - 1.25347) / 1e-4, -2.5, 1)  # as the notes do it
    printed((1.25353 - 1.25347) / 1e-4, 0.6, 1)
    w, h = np.array([[0.34, -1.11, 0.78], [0.12, 0.55, 2.81], [-3.1, -1.5, 0.33]]), 1e-5
    target = np.array([0, 2, 1])
    loss, gradient = R.softmax_cross_entropy(w, target)
    for i in np.ndindex(*w.shape):
        moved = w.copy()
        moved[i] += h
        slow = (R.softmax_cross_entropy(moved, target)[0] - loss) / h
        testing.compare(gradient[i], slow, h)  # first order: half the second derivative (at most 1/4) times h


def test_hinge_loss_by_hand():
    scores = np.array([[3.0, 5.0, -2.0], [1.0, 4.0, 2.0], [2.0, 2.0, -3.0]])
    loss, gradient = R.hinge(scores, np.array([0, 1, 2]), reduction="none")
    exactly(loss, [3, 0, 12])  # (5-3+1) + 0;  0 + 0;  (2+3+1) + (2+3+1)
    exactly(gradient, [[-1, 1, 0], [0, 0, 0], [1, 1, -2]])
    loss, gradient = R.hinge(scores, np.array([0, 1, 2]))
    exactly(loss, 5)
    near(gradient[2], np.array([1, 1, -2]) / 3)
    exactly(R.hinge(scores, np.array([0, 1, 2]), margin=3.0, reduction="none")[0], [5, 1, 16])


def test_backpropagation_vectorised():
    rng = np.random.default_rng(3)
    x, w1, w2 = (rng.standard_normal(s) for s in ((1, 4), (3, 4), (2, 3)))
    label = np.array([[1.0, 0.0]])
    a1 = R.sigmoid(R.linear(x, w1))
    z2 = R.linear(a1, w2)
    _, delta2 = R.sigmoid_cross_entropy(z2, label, reduction="sum")
    near(delta2, R.sigmoid(z2) - label)  # dJ/dz = -(y - y^)
    da1, dw2, _ = R.linear_backward(delta2, a1, w2)
    delta1 = R.sigmoid_backward(da1, a1)
    near(delta1, (delta2 @ w2) * a1 * (1 - a1))  # (W^T delta) * g'(z)
    near(dw2, delta2.T @ a1)
    near(R.linear_backward(delta1, x, w1)[1], delta1.T @ x)
    _, softmax_delta = R.softmax_cross_entropy(z2, np.array([0]), reduction="sum")
    near(softmax_delta, R.softmax(z2) - label)


def test_gradients_vanish_through_sigmoids():
    y = R.sigmoid(np.linspace(-8, 8, 65))
    slope = R.sigmoid_backward(np.ones(65), y)
    exactly(slope.max(), 0.25)
    near(slope, y * (1 - y))
    dy, w = np.ones((1, 1)), np.array([[0.4]])  # at most 0.1 a layer with weights of 0.4
    for _ in range(5):
        dy = R.linear_backward(R.sigmoid_backward(dy, np.full((1, 1), 0.5)), np.zeros((1, 1)), w)[0]
    near(dy, [[1e-5]])


def test_toy_training_set_is_learnt():
    x = np.array([[1.4, 2.7, 1.9], [3.8, 3.4, 3.2], [6.4, 2.8, 1.7], [4.1, 0.1, 0.2]])
    label = np.array([0, 0, 1, 0])
    w, b = np.zeros((2, 3)), np.zeros(2)
    for _ in range(500):
        _, dz = R.softmax_cross_entropy(R.linear(x, w, b), label)
        _, dw, db = R.linear_backward(dz, x, w)
        w, b = w - 0.5 * dw, b - 0.5 * db
    assert np.array_equal(R.linear(x, w, b).argmax(axis=1), label)


def test_activations_by_hand():
    x = np.array([-2.0, -1.0, 0.0, 0.5, 3.0])
    exactly(R.relu(x), [0, 0, 0, 0.5, 3])
    near(R.leaky_relu(x, 0.1), np.maximum(0.1 * x, x))
    near(R.leaky_relu(x), [-0.02, -0.01, 0, 0.5, 3])
    near(R.elu(x, 2.0), [2 * (math.exp(-2) - 1), 2 * (math.exp(-1) - 1), 0, 0.5, 3])
    near(R.sigmoid(x), [1 / (1 + math.exp(-v)) for v in x])
    near(R.tanh(x), [math.tanh(v) for v in x])
    y, indices = R.maxout(np.array([[1.0, 3.0, 3.0, -1.0, -5.0, -2.0]]), 3)
    exactly(y, [[3, -1]])
    assert indices.tolist() == [[1, 0]] and indices.dtype == np.int64
    exactly(R.maxout_backward(np.array([[10.0, 20.0]]), indices, 3), [[0, 10, 0, 20, 0, 0]])


# ---- the lecture notes: convolution ---------------------------------------------------------------------


def test_weighted_average_of_a_signal():
    w = np.array([[[0.01, 0.01, 0.02, 0.02, 0.04, 0.4, 0.5]]])
    x = np.array([[[1.00, 1.10, 1.20, 1.40, 1.70, 1.80, 1.90, 2.10, 2.20, 2.40, 2.50, 2.70]]])
    printed(R.conv1d(x, w), [[[1.81, 1.97, 2.11, 2.27, 2.41, 2.57]]], 2)


def test_convolution_of_letters():
    a, b, c, d, e, f, g, h, i, j, k, l = range(1, 13)  # noqa: E741 (the notes' letters)
    w, x, y, z = 100, 200, 300, 400
    image, kernel = grid([a, b, c, d], [e, f, g, h], [i, j, k, l]), grid([w, x], [y, z])
    above = [a * w + b * x + e * y + f * z, b * w + c * x + f * y + g * z, c * w + d * x + g * y + h * z]
    below = [e * w + f * x + i * y + j * z, f * w + g * x + j * y + k * z, g * w + h * x + k * y + l * z]
    exactly(R.conv2d(image, kernel), grid(above, below))


@pytest.mark.parametrize(
    "name, rows, of_constant",
    [
        ("blur", ([1, 1, 1], [1, 1, 1], [1, 1, 1]), 9),
        ("sharpen", ([0, -1, 0], [-1, 5, -1], [0, -1, 0]), 1),
        ("edges", ([1, 1, 1], [1, -8, 1], [1, 1, 1]), 0),
    ],
)
def test_photograph_filters(name, rows, of_constant):
    exactly(R.conv2d(np.full((1, 1, 5, 6), 7.0), grid(*rows)), np.full((1, 1, 3, 4), 7.0 * of_constant))
    point = np.zeros((1, 1, 5, 5))
    point[0, 0, 2, 2] = 1
    exactly(R.conv2d(point, grid(*rows)), grid(*rows))  # all three look the same turned round


def test_a_filter_as_deep_as_the_volume_gives_a_plane():
    rng = np.random.default_rng(0)
    volume, filters = testing.exact_inputs(rng, (3, 6, 7)), testing.exact_inputs(rng, (4, 3, 2, 2))
    maps = R.conv2d(volume, filters)
    assert maps.shape == (4, 5, 6)  # K filters, K maps
    exactly(R.conv3d(volume[None], filters[:, None])[:, 0], maps)


@pytest.mark.parametrize(
    "size, kernel, padding, stride, out",
    [
        (7, 3, 0, 1, 5),
        (7, 5, 0, 1, 3),
        (7, 3, 1, 1, 7),
        (7, 3, 0, 2, 3),
        (227, 11, 0, 4, 55),
        (8, 3, 0, 3, 2),
    ],
)
def test_output_sizes(size, kernel, padding, stride, out):
    for n in (1, 2):
        x, w = np.zeros((1, 1, *(size,) * n), np.float32), np.zeros((2, 1, *(kernel,) * n), np.float32)
        y = getattr(R, f"conv{n}d")(x, w, padding=padding, stride=stride)
        assert y.shape == (1, 2, *(out,) * n) and out == (size - kernel + 2 * padding) // stride + 1


def test_convolution_is_a_sparse_matrix_with_shared_weights():
    rng = np.random.default_rng(0)
    x, w, dy = (testing.exact_inputs(rng, (1, 1, s, s)) for s in (4, 2, 3))
    matrix, which = np.zeros((9, 16)), np.full((9, 16), -1)
    for p, q, r, s in itertools.product(range(3), range(3), range(2), range(2)):
        matrix[3 * p + q, 4 * (p + r) + q + s] = w[0, 0, r, s]
        which[3 * p + q, 4 * (p + r) + q + s] = 2 * r + s
    exactly(R.conv2d(x, w).ravel(), matrix @ x.ravel())
    dx, dw, _ = R.conv2d_backward(dy, x, w)
    exactly(dx.ravel(), matrix.T @ dy.ravel())
    dmatrix = np.outer(dy.ravel(), x.ravel())
    exactly(dw.ravel(), [dmatrix[which == tap].sum() for tap in range(4)])


POOLED = ([1, 4, 2, 1], [5, 8, 3, 4], [7, 6, 4, 5], [1, 3, 1, 2])


def test_pooling():
    x = grid(*POOLED)
    y, indices = R.max_pool2d(x, 2, return_indices=True)
    exactly(y, grid([8, 4], [7, 5]))
    assert indices.tolist() == [[[[5, 7], [8, 11]]]] and indices.dtype == np.int64
    exactly(R.max_pool2d(x, 2, stride=1), grid([8, 8, 4], [8, 8, 5], [7, 6, 5]))
    exactly(R.avg_pool2d(x, 2), grid([4.5, 2.5], [4.25, 3]))
    exactly(R.avg_pool2d(x, 2, stride=1), grid([4.5, 4.25, 2.5], [6.5, 5.25, 4], [4.25, 3.5, 3]))
    dy = grid([1, 2], [3, 4])
    dx = np.zeros(16)
    dx[[5, 7, 8, 11]] = [1, 2, 3, 4]
    exactly(R.max_pool2d_backward(dy, indices, x.shape).ravel(), dx)
    exactly(R.avg_pool2d_backward(dy, x.shape, 2), np.kron(dy, np.full((2, 2), 0.25)))


# ---- the lecture notes: networks ------------------------------------------------------------------------


def shapes(x, *layers):
    """Shapes through a network of ("conv", K, size, stride, padding) and ("pool", size, stride)."""
    seen = []
    for kind, *numbers in layers:
        small = np.zeros((1, 1, *x[1:]), np.float32)  # sizes do not depend on channels: one is enough
        if kind == "conv":
            K, size, stride, padding = numbers
            y = R.conv2d(small, np.zeros((1, 1, size, size), np.float32), stride=stride, padding=padding)
            x = (K, *y.shape[2:])
        else:
            x = (x[0], *R.max_pool2d(small, *numbers).shape[2:])
        seen.append(x)
    return seen


def test_lenet5():
    assert shapes((1, 32, 32), ("conv", 6, 5, 1, 0), ("pool", 2), ("conv", 16, 5, 1, 0), ("pool", 2)) == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
    ]
    assert np.zeros((6, 1, 5, 5)).size == 150


ALEXNET = (
    ("conv", 96, 11, 4, 0),
    ("pool", 3, 2),
    ("conv", 256, 5, 1, 0),
    ("pool", 3, 2),
    ("conv", 384, 3, 1, 0),
    ("conv", 384, 3, 1, 0),
    ("conv", 256, 3, 1, 0),
    ("pool", 3, 2),
)


def test_alexnet_as_in_the_notes():
    seen = shapes((3, 227, 227), *ALEXNET)
    assert [s[1] for s in seen] == [55, 27, 23, 11, 9, 7, 5, 2]
    assert math.prod(seen[-1]) == 1024
    channels, weights = [3, *(s[0] for s in seen)], []
    for C, layer in zip(channels, ALEXNET):
        if layer[0] == "conv":
            weights.append(layer[1] * C * layer[2] ** 2)
    weights += [1024 * 4096, 4096 * 4096, 4096 * 1000]
    assert weights == [34848, 614400, 884736, 1327104, 884736, 4194304, 16777216, 4096000]


def test_zfnet_first_layer():
    assert 96 * 3 * (11**2 - 7**2) == 20736
    assert shapes((3, 227, 227), ("conv", 96, 7, 2, 0))[0] == (96, 111, 111)


def test_vgg_and_resnet_sizes():
    vgg = shapes((3, 64, 64), *[("conv", 8, 3, 1, 1), ("pool", 2)] * 5)
    assert [s[1] for s in vgg] == [64, 32, 32, 16, 16, 8, 8, 4, 4, 2]
    resnet = shapes((3, 64, 64), ("conv", 64, 7, 2, 3), ("conv", 64, 3, 2, 1), ("conv", 64, 1, 2, 0))
    assert [s[1] for s in resnet] == [32, 16, 8]


def test_wavenet_is_causal():
    rng = np.random.default_rng(0)
    x = testing.exact_inputs(rng, (1, 1, 32))

    def network(x):
        for d in (1, 2, 4, 8):
            x = R.conv1d(x, np.ones((1, 1, 2)), dilation=d, padding=((d, 0),))
        return x

    y = network(x)
    assert y.shape == x.shape
    changed = x.copy()
    changed[0, 0, 20] += 1
    moved = np.nonzero((network(changed) != y)[0, 0])[0]
    assert moved.tolist() == list(range(20, 32))  # the past does not see it; the receptive field is 16
    exactly(network(np.eye(32)[:1][None])[0, 0], [1.0] * 16 + [0.0] * 16)


def test_hopfield_network_recalls_a_pattern():
    patterns = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]], np.float64)
    w = patterns.T @ patterns - 2 * np.eye(8)
    noisy = patterns.copy()
    noisy[:, 3] *= -1
    exactly(np.sign(R.linear(noisy, w)), patterns)


# ---- definitions, by hand -------------------------------------------------------------------------------


def test_padding_modes_by_hand():
    x, w = np.array([[[0.0, 1.0, 2.0, 3.0]]]), np.array([[[1.0]]])
    for mode, left, right in (
        ("zeros", [0, 0], [0, 0]),
        ("reflect", [2, 1], [2, 1]),
        ("replicate", [0, 0], [3, 3]),
        ("circular", [2, 3], [0, 1]),
    ):
        exactly(R.conv1d(x, w, padding=2, padding_mode=mode), [[[*left, 0, 1, 2, 3, *right]]])
        exactly(R.conv1d(x, w, padding=((2, 0),), padding_mode=mode), [[[*left, 0, 1, 2, 3]]])
        exactly(R.conv1d(x, w, padding=((0, 2),), padding_mode=mode), [[[0, 1, 2, 3, *right]]])


@pytest.mark.parametrize(
    "mode, dx",
    [
        ("zeros", [3, 4, 5, 6]),
        ("reflect", [3, 4 + 2 + 8, 5 + 1 + 7, 6]),
        ("replicate", [1 + 2 + 3, 4, 5, 6 + 7 + 8]),
        ("circular", [3 + 7, 4 + 8, 5 + 1, 6 + 2]),
    ],
)
def test_gradients_of_padding_go_to_where_it_came_from(mode, dx):
    dy = np.arange(1.0, 9.0).reshape(1, 1, 8)
    given, _, _ = R.conv1d_backward(dy, np.zeros((1, 1, 4)), np.ones((1, 1, 1)), padding=2, padding_mode=mode)
    exactly(given, [[dx]])


@pytest.mark.parametrize(
    "word, size, kernel, stride, out, first",
    [
        ("valid", 5, 3, 1, 3, 0),
        ("full", 5, 3, 1, 7, -2),
        ("full", 5, 3, 2, 4, -2),
        ("same", 5, 3, 1, 5, -1),
        ("same", 5, 4, 1, 5, -1),
        ("same_lower", 5, 4, 1, 5, -2),
        ("same", 6, 3, 2, 3, 0),
        ("same_lower", 6, 3, 2, 3, -1),
        ("same", 5, 1, 3, 2, 0),
    ],
)
def test_padding_words(word, size, kernel, stride, out, first):
    x = np.arange(10.0, 10.0 + size).reshape(1, 1, size)
    w = np.zeros((1, 1, kernel))
    w[0, 0, 0] = 1  # y[o] is the input under the first tap
    expected = [x[0, 0, i] if 0 <= (i := first + o * stride) < size else 0 for o in range(out)]
    exactly(R.conv1d(x, w, padding=word, stride=stride), [[expected]])


def test_groups_see_their_own_channels():
    x = np.array([[[1.0], [2.0], [3.0], [4.0]]])
    exactly(R.conv1d(x, np.array([[[1.0], [10.0]], [[1.0], [10.0]]]), groups=2), [[[21], [43]]])
    y = R.conv1d(x, np.arange(1.0, 9.0).reshape(8, 1, 1), groups=4)
    exactly(y[0, :, 0], [1, 2, 2 * 3, 2 * 4, 3 * 5, 3 * 6, 4 * 7, 4 * 8])


def test_dilation_and_stride_by_hand():
    x = np.arange(10.0).reshape(1, 1, 10)
    w = np.array([[[1.0, 100.0]]])
    exactly(R.conv1d(x, w, dilation=3, stride=2), [[[300, 502, 704, 906]]])  # x[9] = 9 is reached by the last


def test_transposed_convolution_by_hand():
    x, w = np.array([[[1.0, 2.0]]]), np.array([[[10.0, 20.0, 30.0]]])
    exactly(R.conv_transpose1d(x, w), [[[10, 40, 70, 60]]])
    exactly(R.conv_transpose1d(x, w, stride=2), [[[10, 20, 50, 40, 60]]])
    exactly(R.conv_transpose1d(x, w, stride=2, padding=1, output_padding=1), [[[20, 50, 40, 60]]])
    exactly(
        R.conv_transpose1d(x, w, np.array([5.0]), stride=3, output_padding=2, padding=((1, 0),)),
        [[[25, 35, 25, 45, 65, 5, 5]]],
    )


def test_columns_by_hand():
    x = grid([1, 2, 3], [4, 5, 6])
    cols = R.im2col(x, 2)
    exactly(cols, [[[1, 2], [2, 3], [4, 5], [5, 6]]])
    exactly(R.col2im(cols, (2, 3), 2), grid([1, 4, 3], [4, 10, 6]))  # the middle is in both
    exactly(R.im2col(x, 1, padding=((0, 1), (1, 0)))[0, 0], [0, 1, 2, 3, 0, 4, 5, 6, 0, 0, 0, 0])


def test_fused_activation_is_the_activation_of_the_sum():
    rng = np.random.default_rng(0)
    x, w, b = (testing.real_inputs(rng, s) for s in ((2, 3, 7), (4, 3, 3), 4))
    y = R.conv1d(x, w, b)
    for name in ("relu", "leaky_relu", "sigmoid", "tanh"):
        exactly(R.conv1d(x, w, b, activation=name), getattr(R, name)(y))


def test_out_is_written_and_returned():
    out = testing.Guarded((1, 1, 2), np.float64)
    assert R.conv1d(np.ones((1, 1, 3)), np.ones((1, 1, 2)), out=out.array) is out.array
    exactly(out.array, [[[2, 2]]])
    assert out.intact()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_samples_and_one_sample_without_batch_axis(n):
    size, kernel = (4, 5, 6)[:n], (3,) * n
    conv, back = getattr(R, f"conv{n}d"), getattr(R, f"conv{n}d_backward")
    w = np.ones((2, 3, *kernel))
    empty = np.zeros((0, 3, *size))
    y = conv(empty, w)
    assert y.shape == (0, 2, *(s - 2 for s in size))
    dx, dw, db = back(y, empty, w)
    assert dx.shape == empty.shape
    exactly(dw, np.zeros(w.shape))
    exactly(db, np.zeros(2))
    one = np.ones((3, *size))
    exactly(conv(one, w), conv(one[None], w)[0])
    assert getattr(R, f"max_pool{n}d")(empty, 2).shape == (0, 3, *(s // 2 for s in size))


# ---- pooling, by hand -----------------------------------------------------------------------------------


def test_first_of_equals_and_first_nan_win():
    x = np.array([[[2.0, 2.0, 1.0, np.nan, 5.0, np.nan]]])
    y, indices = R.max_pool1d(x, 2, return_indices=True)
    exactly(y, [[[2, np.nan, np.nan]]])
    assert indices.tolist() == [[[0, 3, 5]]]
    y, indices = R.max_pool1d(x, 6, return_indices=True)
    exactly(y, [[[np.nan]]])
    assert indices.tolist() == [[[3]]]
    x = np.full((1, 1, 4), -np.inf)
    y, indices = R.max_pool1d(x, 2, return_indices=True)
    exactly(y, [[[-np.inf, -np.inf]]])
    assert indices.tolist() == [[[0, 2]]]


def test_window_wholly_in_padding():
    x = np.array([[[1.0, 2.0]]])
    y, indices = R.max_pool1d(x, 2, stride=1, padding=3, return_indices=True)
    exactly(y, [[[-np.inf, -np.inf, 1, 2, 2, -np.inf, -np.inf]]])
    assert indices.tolist() == [[[-1, -1, 0, 1, 1, -1, -1]]]
    exactly(R.max_pool1d_backward(np.arange(1.0, 8.0).reshape(1, 1, 7), indices, (1, 1, 2)), [[[3, 9]]])
    exactly(R.avg_pool1d(x, 2, stride=1, padding=3, count_include_pad=False), [[[0, 0, 1, 1.5, 2, 0, 0]]])
    exactly(R.avg_pool1d(x, 2, stride=1, padding=3), [[[0, 0, 0.5, 1.5, 1, 0, 0]]])
    dx = R.avg_pool1d_backward(np.ones((1, 1, 7)), (1, 1, 2), 2, 1, 3, count_include_pad=False)
    exactly(dx, [[[1.5, 1.5]]])


def test_ceil_mode_by_hand():
    x = np.arange(1.0, 6.0).reshape(1, 1, 5)
    exactly(R.max_pool1d(x, 2, ceil_mode=True), [[[2, 4, 5]]])
    exactly(R.avg_pool1d(x, 2, ceil_mode=True), [[[1.5, 3.5, 5]]])  # beyond the padding nothing is counted
    exactly(R.avg_pool1d(x, 2, padding=1, ceil_mode=True), [[[0.5, 2.5, 4.5]]])
    high = {"stride": 2, "padding": ((0, 1),), "ceil_mode": True}
    exactly(
        R.avg_pool1d(x, 3, **high), [[[2, 4, 2.5]]]
    )  # the last: 5 and a zero of the padding, and no third
    exactly(R.avg_pool1d(x, 3, **high, count_include_pad=False), [[[2, 4, 5]]])
    exactly(R.avg_pool1d(x, 2, divisor_override=4), [[[0.75, 1.75]]])


def test_dilated_pools_by_hand():
    x = np.arange(7.0).reshape(1, 1, 7)
    exactly(R.max_pool1d(x, 2, stride=1, dilation=3), [[[3, 4, 5, 6]]])
    exactly(R.avg_pool1d(x, 2, stride=1, dilation=3), [[[1.5, 2.5, 3.5, 4.5]]])
    y = R.avg_pool1d(x, 2, stride=3, padding=((1, 3),), dilation=3)
    exactly(y, [[[(0 + 2) / 2, (2 + 5) / 2, (5 + 0) / 2]]])


def test_adaptive_pools_by_hand():
    x = np.arange(1.0, 6.0).reshape(1, 1, 5)
    exactly(R.adaptive_avg_pool1d(x, 2), [[[2, 4]]])  # 1 2 3 | 3 4 5: the middle is in both
    exactly(R.adaptive_avg_pool1d_backward(np.array([[[3.0, 6.0]]]), x.shape), [[[1, 1, 3, 2, 2]]])
    y, indices = R.adaptive_max_pool1d(x, 2, return_indices=True)
    exactly(y, [[[3, 5]]])
    assert indices.tolist() == [[[2, 4]]]
    exactly(R.adaptive_max_pool1d_backward(np.array([[[7.0, 8.0]]]), indices, x.shape), [[[0, 0, 7, 0, 8]]])


@pytest.mark.parametrize("index", [-2, 9, 2**40])
def test_indices_outside_the_plane(index):
    dy = np.ones((1, 1, 2, 2))
    indices = np.array([[[[0, 1], [index, -1]]]])
    with pytest.raises(ValueError, match=rf"max_pool2d_backward: index {index} is outside the plane of 9"):
        R.max_pool2d_backward(dy, indices, (1, 1, 3, 3))


@pytest.mark.parametrize("index", [-1, 3])
def test_indices_that_are_no_piece(index):
    with pytest.raises(ValueError, match=rf"maxout_backward: index {index} is not one of 3 pieces"):
        R.maxout_backward(np.ones((1, 2)), np.array([[0, index]]), 3)


# ---- elementwise and losses, by hand --------------------------------------------------------------------


def test_non_finite_values_pass_through():
    x = np.array([np.nan, np.inf, -np.inf, -0.0])
    exactly(R.relu(x), [np.nan, np.inf, 0, 0])
    exactly(R.leaky_relu(x), [np.nan, np.inf, -np.inf, 0])
    exactly(R.elu(x), [np.nan, np.inf, -1, 0])
    exactly(R.sigmoid(x), [np.nan, 1, 0, 0.5])
    exactly(R.tanh(x), [np.nan, 1, -1, 0])
    exactly(R.softmax(np.array([[1.0, np.nan], [-np.inf, 3.0]])), [[np.nan, np.nan], [0, 1]])


def test_one_non_finite_input_reaches_the_outputs_that_read_it():
    x = np.ones((1, 1, 8))
    x[0, 0, 3] = np.nan
    y = R.conv1d(x, np.ones((1, 1, 3)), padding=1)
    assert np.nonzero(np.isnan(y[0, 0]))[0].tolist() == [2, 3, 4]
    dy = np.ones((1, 1, 8))
    dy[0, 0, 0] = np.inf
    dx, dw, _ = R.conv1d_backward(dy, np.zeros((1, 1, 8)), np.ones((1, 1, 3)), padding=1)
    assert np.nonzero(np.isinf(dx[0, 0]))[0].tolist() == [0, 1]
    assert np.isfinite(dw[0, 0, 0])  # the first tap of the first output lies in the padding
    assert np.isnan(dw[0, 0, 1:]).all()  # inf * 0


def test_extreme_arguments_do_not_overflow():
    x = np.array([-800.0, 800.0])
    exactly(R.sigmoid(x), [0, 1])
    exactly(R.softmax(x), [0, 1])
    exactly(R.log_softmax(x), [-1600, 0])
    exactly(R.sigmoid_cross_entropy(x, np.array([1.0, 0.0]), reduction="none")[0], [800, 800])
    exactly(R.softmax_cross_entropy(x[None], np.array([0]))[0], 1600)


def test_scalars_and_empty_arrays():
    for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softmax", "log_softmax"):
        function, backward = getattr(R, name), getattr(R, f"{name}_backward")
        for shape in ((), (0,), (2, 0, 3)):
            x = np.ones(shape, np.float32)
            y = function(x)
            assert isinstance(y, np.ndarray) and y.shape == shape and y.dtype == np.float32
            assert backward(x, y).shape == shape
    exactly(R.softmax(np.array(5.0)), 1.0)
    exactly(R.log_softmax(np.array(5.0)), 0.0)


def test_label_smoothing_and_weights_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    weight = np.array([1.0, 2.0, 3.0])
    half, quarter = math.log(2), math.log(4)
    loss, _ = R.softmax_cross_entropy(logits, np.array([0, 1]), weight=weight, reduction="none")
    near(loss, [half, 2 * quarter])
    near(R.softmax_cross_entropy(logits, np.array([0, 1]), weight=weight)[0], (half + 2 * quarter) / 3)
    loss, _ = R.softmax_cross_entropy(logits, np.array([0, 1]), label_smoothing=0.3, reduction="none")
    near(loss, [0.8 * half + 0.2 * quarter, 0.8 * quarter + 0.1 * half + 0.1 * quarter])


def test_ignored_targets():
    logits, target = np.zeros((3, 2)), np.array([0, -100, 1])
    loss, gradient = R.softmax_cross_entropy(logits, target)
    near(loss, math.log(2))
    exactly(gradient, [[-0.25, 0.25], [0, 0], [0.25, -0.25]])
    for function in (R.softmax_cross_entropy, R.nll):
        loss, gradient = function(logits, np.full(3, 7), ignore_index=7)
        exactly(loss, np.nan)  # the mean of nothing
        exactly(gradient, np.zeros((3, 2)))
        exactly(function(logits, np.full(3, 7), ignore_index=7, reduction="sum")[0], 0)


@pytest.mark.parametrize("function", ["softmax_cross_entropy", "nll", "hinge"])
@pytest.mark.parametrize("target", [np.array([0, 3]), np.array([-1, 0]), np.array([255, 0], np.uint8)])
def test_targets_out_of_range(function, target):
    wrong = target[(target < 0) | (target > 2)][0]
    with pytest.raises(ValueError, match=rf"{function}: target {wrong} is not a class .need 0 <= target < 3"):
        getattr(R, function)(np.zeros((2, 3)), target)


def test_losses_are_scalars_of_the_dtype():
    for dtype in (np.float32, np.float64):
        x = np.ones((2, 3), dtype)
        label = np.array([0, 1])
        for loss, gradient in (
            R.softmax_cross_entropy(x, label),
            R.nll(x, label),
            R.hinge(x, label),
            R.squared_error(x, 0 * x),
            R.sigmoid_cross_entropy(x, x),
        ):
            assert isinstance(loss, dtype) and gradient.dtype == dtype and gradient.shape == (2, 3)


# ---- dense and normalisation, by hand -------------------------------------------------------------------


def test_linear_without_batch_axis():
    exactly(R.linear(np.array([1.0, 2.0]), np.array([[3.0, 4.0]])), [11])
    dx, dw, db = R.linear_backward(np.array([2.0]), np.array([1.0, 2.0]), np.array([[3.0, 4.0]]))
    exactly(dx, [6, 8])
    exactly(dw, [[2, 4]])
    exactly(db, [2])


def test_batch_norm_by_hand():
    x = np.array([[1.0], [3.0], [5.0], [7.0]])
    mean, var = np.array([10.0]), np.array([100.0])
    y = R.batch_norm(x, np.array([2.0]), np.array([1.0]), mean, var, training=True, momentum=0.5, eps=0.0)
    near(y, np.array([[-3], [-1], [1], [3]]) * 2 / math.sqrt(5) + 1)
    exactly(mean, [7])  # (10 + 4) / 2
    near(var, [(100 + 20 / 3) / 2])  # unbiased: 20 / 3
    before = mean.copy(), var.copy()
    near(R.batch_norm(x, None, None, mean, var, eps=0.0), (x - 7) / math.sqrt(var[0]))
    exactly(mean, before[0])
    exactly(var, before[1])


def test_local_response_norm_by_hand():
    x = np.array([[1.0, 2.0, 3.0, 4.0]])[:, :, None]
    y = R.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=1.0)
    near(y.ravel(), [1 / (1 + 1 + 4), 2 / (1 + 1 + 4 + 9), 3 / (1 + 4 + 9 + 16), 4 / (1 + 9 + 16)])
    y = R.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=1.0)  # an even size reaches further down
    near(y.ravel(), [1 / (1 + 1), 2 / (1 + 1 + 4), 3 / (1 + 4 + 9), 4 / (1 + 9 + 16)])


def test_dropout():
    x = np.ones((50, 40))
    y, mask = R.dropout(x, 0.25, rng=0)
    assert mask.dtype == bool and mask.shape == x.shape
    near(y, mask / 0.75)
    exactly(R.dropout(x, 0.25, rng=0)[0], y)  # the seed decides
    assert abs(mask.mean() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / mask.size)  # five standard deviations
    near(R.dropout_backward(2 * x, mask, 0.25), 2 * mask / 0.75)
    y, mask = R.dropout(x, 1.0, rng=0)
    exactly(y, np.zeros(x.shape))
    assert not mask.any()
    y, mask = R.dropout(x, 0.0, rng=0)
    exactly(y, x)
    assert mask.all()


def test_algorithms_and_plan():
    assert R.algorithms("conv2d") == ("direct",)
    x, w = np.zeros((2, 3, 8, 8)), np.zeros((4, 3, 3, 3))
    plan = R.plan("conv2d", x, w)
    assert plan.algorithm == "direct" and plan.flops == 2 * 2 * 4 * 36 * 27 and plan.refused == {}
    with pytest.raises(fc.UnsupportedError, match="conv2d: the naive backend has no algorithm 'im2col'"):
        R.conv2d(x, w, algorithm="im2col")
    exactly(R.conv2d(x, w, algorithm="direct"), np.zeros((2, 4, 6, 6)))


# ---- any memory -----------------------------------------------------------------------------------------

LAID_OUT = [case for case in testing.cases() if case.layout != "contiguous"]


@pytest.mark.parametrize("dtype", testing.DTYPES, ids=str)
@pytest.mark.parametrize("case", LAID_OUT, ids=lambda case: case.name())
def test_every_layout_gives_what_plain_arrays_give(case, dtype):
    testing.check(R, case, dtype, case.kinds[0])


# ---- SciPy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_scipy_correlate(n, mode):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(n)
    x = testing.exact_inputs(rng, (2, 3, *(7, 8, 9)[:n]))
    w = testing.exact_inputs(rng, (4, 3, *(3, 5, 3)[:n]))
    y = getattr(R, f"conv{n}d")(x, w, padding=mode)
    for i, k in itertools.product(range(2), range(4)):
        planes = [signal.correlate(x[i, c], w[k, c], mode=mode, method="direct") for c in range(3)]
        exactly(y[i, k], sum(planes))


@pytest.mark.parametrize(
    "mode, scipy_mode",
    [("zeros", "constant"), ("reflect", "mirror"), ("replicate", "nearest"), ("circular", "grid-wrap")],
)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_scipy_padding_modes(n, mode, scipy_mode):
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(n)
    x, w = testing.exact_inputs(rng, (5, 6, 7)[:n]), testing.exact_inputs(rng, (3, 5, 3)[:n])
    y = getattr(R, f"conv{n}d")(x[None], w[None, None], padding="same", padding_mode=mode)
    exactly(y[0], ndimage.correlate(x, w, mode=scipy_mode, cval=0.0))


def test_scipy_upsampling_is_transposed_convolution():
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    x, w = testing.exact_inputs(rng, 9), testing.exact_inputs(rng, 4)
    for stride in (1, 2, 3):
        y = R.conv_transpose1d(x[None], w[None, None], stride=stride)
        exactly(y[0], signal.upfirdn(w, x, up=stride)[: y.shape[1]])


def test_scipy_filters_are_pools():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = testing.exact_inputs(np.random.default_rng(0), (9, 11))
    y = R.max_pool2d(x[None], 3, stride=1, padding=1)[0]
    exactly(y, ndimage.maximum_filter(x, 3, mode="constant", cval=-np.inf))
    y = R.avg_pool2d(x[None], 3, stride=1, padding=1, divisor_override=1)[0]
    exactly(y, ndimage.correlate(x, np.ones((3, 3)), mode="constant", cval=0.0))


def test_scipy_special_functions():
    special = pytest.importorskip("scipy.special")
    x = np.linspace(-30, 30, 243).reshape(3, -1)
    for function, expected in ((R.sigmoid, special.expit(x)), (R.elu, np.where(x > 0, x, special.expm1(x)))):
        testing.compare(function(x), expected, testing.FUNCTION_ULPS * np.spacing(np.abs(expected)))
    for axis in (0, 1):
        near(R.softmax(x, axis=axis), special.softmax(x, axis=axis))
        near(R.log_softmax(x, axis=axis), special.log_softmax(x, axis=axis))
    p = special.softmax(x, axis=1)
    loss, _ = R.softmax_cross_entropy(x, p, reduction="sum")
    near(loss, special.entr(p).sum())  # the cross entropy of a distribution with itself
    loss, _ = R.sigmoid_cross_entropy(x, np.ones(x.shape), reduction="none")
    near(loss, -special.log_expit(x))


# ---- PyTorch --------------------------------------------------------------------------------------------

WITNESSED = [case for case in testing.cases() if case.layout == "contiguous" and case.op != "dropout"]


@pytest.mark.parametrize("case", WITNESSED, ids=lambda case: case.name(np.float64))
def test_torch_agrees(case):
    pytest.importorskip("torch")
    import torch_oracle

    for kind in case.kinds:
        if kind != "special":
            inputs, expected, limits = testing.expectation(case, np.dtype(np.float64), kind)
            results = case.run(torch_oracle, inputs)
            assert results.keys() == expected.keys()
            for name, limit in limits.items():
                testing.compare(results[name], expected[name], limit, f"{kind}: {name}")
