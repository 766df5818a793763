"""The reference, and the parsing in front of it, against hand-worked numbers, SciPy and PyTorch (if there).

The reference defines what is correct for every other backend; these tests, and those of the lecture notes in
test_lectures.py, are what defines the reference.
"""

import itertools
import math

import numpy as np
import pytest
from by_hand import exactly, grid, near

import fastconv as fc
from fastconv import testing

R = fc.reference


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
