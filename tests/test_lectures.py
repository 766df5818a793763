"""The reference against the numbers of the lecture notes that the package comes from.

They are given to the decimals printed there, corrected where the print is a slip.
"""

import itertools
import math

import numpy as np
import pytest
from by_hand import SQUARED_ERROR_TABLE, exactly, grid, near, printed

import fastconv as fc
from fastconv import testing

R = fc.reference


# ---- neurons --------------------------------------------------------------------------------------------

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


# ---- gradients ------------------------------------------------------------------------------------------


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


# ---- convolution ----------------------------------------------------------------------------------------


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


# ---- networks -------------------------------------------------------------------------------------------


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
