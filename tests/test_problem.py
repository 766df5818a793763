"""Problems: output sizes against hand-worked numbers and torch, padding, windows, names, identity."""

import itertools
import math

import numpy as np
import pytest

from fastconv._problem import ConvProblem, PoolProblem


def conv(x, weight, *args, bias=None, op=None, **options):
    """The problem of a convolution of these shapes."""
    ndim = len(weight) - 2
    arrays = [None if shape is None else np.zeros(shape, np.float32) for shape in (x, weight, bias)]
    return ConvProblem.of(*arrays, *args, ndim=ndim, op=op or f"conv{ndim}d", **options)


def transposed(x, weight, *args, **options):
    ndim = len(weight) - 2
    arrays = np.zeros(x, np.float32), np.zeros(weight, np.float32), None
    return ConvProblem.of_transpose(*arrays, *args, ndim=ndim, op=f"conv_transpose{ndim}d", **options)


def pool(x, *args, ndim=2, op="max_pool2d", **options):
    return PoolProblem.of(np.zeros(x, np.float32), *args, ndim=ndim, op=op, **options)


# -- sizes by hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, kernel, stride, padding, out",
    [  # W2 = (W1 - F + 2P)/S + 1 on a 7x7 image
        (7, 3, 1, 0, 5),
        (7, 5, 1, 0, 3),
        (7, 3, 1, 1, 7),
        (7, 3, 2, 0, 3),
        (7, 3, 2, 1, 4),
        (7, 3, 3, 0, 2),  # the last two columns are never seen
        (7, 7, 1, 0, 1),
        (7, 1, 9, 0, 1),  # a stride beyond the image
        (1, 3, 1, 1, 1),
    ],
)
def test_output_size(size, kernel, stride, padding, out):
    problem = conv((2, 3, size, size), (4, 3, kernel, kernel), stride=stride, padding=padding)
    assert problem.out == (1, out, out)
    assert problem.y_shape == (2, 4, out, out)


def test_alexnet_of_the_lectures():
    """227, conv 96@11 s4: 55, pool 3 s2: 27, 256@5: 23, pool: 11, 384@3: 9, 384@3: 7, 256@3: 5, pool: 2."""
    shape, sizes, weights = (3, 227, 227), [], []
    layers = [(96, 11, 4), "pool", (256, 5, 1), "pool", (384, 3, 1), (384, 3, 1), (256, 3, 1), "pool"]
    for layer in layers:
        if layer == "pool":
            shape = pool(shape, 3, 2).y_shape
        else:
            channels, kernel, stride = layer
            problem = conv(shape, (channels, shape[0], kernel, kernel), stride=stride)
            weights.append(math.prod(problem.weight_shape))
            shape = problem.y_shape
        sizes.append(shape[1])
    assert sizes == [55, 27, 23, 11, 9, 7, 5, 2]
    assert math.prod(shape) == 1024
    assert weights == [34_848, 614_400, 884_736, 1_327_104, 884_736]  # "34K, 0.6M, 0.8M, 1.327M, 0.8M"


def test_lenet_of_the_lectures():
    first = conv((1, 32, 32), (6, 1, 5, 5))
    assert first.y_shape == (6, 28, 28) and math.prod(first.weight_shape) == 150
    assert pool(first.y_shape, 2).y_shape == (6, 14, 14)


def test_flops_count_both_operations():
    """LeNet's first layer: 28 * 28 positions, 6 filters of 25 weights, a product and a sum each."""
    assert conv((8, 1, 32, 32), (6, 1, 5, 5)).flops == 8 * 28 * 28 * 6 * 25 * 2
    assert conv((1, 4, 5, 5), (4, 1, 3, 3), groups=4).flops == 9 * 4 * 9 * 2


def test_three_axes_always():
    problem = conv((2, 3, 9), (4, 3, 5), stride=2, padding=1, dilation=1)
    assert (problem.size, problem.kernel, problem.out) == ((1, 1, 9), (1, 1, 5), (1, 1, 4))
    assert (problem.stride, problem.dilation) == ((1, 1, 2), (1, 1, 1))
    assert (problem.pad_low, problem.pad_high) == ((0, 0, 1), (0, 0, 1))
    assert conv((3, 9), (4, 3, 5)).y_shape == (4, 5) and not conv((3, 9), (4, 3, 5)).batched


def test_zero_samples():
    assert conv((0, 3, 9), (4, 3, 5)).y_shape == (0, 4, 5)
    assert pool((0, 3, 8, 8), 2).y_shape == (0, 3, 4, 4)


# -- padding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "padding, low, high",
    [
        (1, (1, 1), (1, 1)),
        ((1,), (1, 1), (1, 1)),
        ([1, 2], (1, 2), (1, 2)),
        (np.array([1, 2]), (1, 2), (1, 2)),
        (((0, 1), (2, 3)), (0, 2), (1, 3)),
        ([[0, 1], [2, 3]], (0, 2), (1, 3)),
        (np.array([[0, 1], [2, 3]]), (0, 2), (1, 3)),
        (((0, 1),), (0, 0), (1, 1)),
        (np.int16(2), (2, 2), (2, 2)),
        ("valid", (0, 0), (0, 0)),
        ("full", (4, 2), (4, 2)),  # dilation * (kernel - 1)
        ("same", (2, 1), (2, 1)),
        ("same_lower", (2, 1), (2, 1)),
    ],
)
def test_padding_forms(padding, low, high):
    problem = conv((1, 1, 9, 9), (1, 1, 3, 3), padding=padding, dilation=(2, 1))
    assert (problem.pad_low[1:], problem.pad_high[1:]) == (low, high)


@pytest.mark.parametrize(
    "size, kernel, stride, dilation, low, high",
    [
        (5, 2, 1, 1, 0, 1),  # one in all: it goes high
        (5, 4, 1, 1, 1, 2),
        (5, 3, 2, 1, 1, 1),  # out 3 needs 2 * 2 + 3 = 7 elements
        (6, 3, 2, 1, 0, 1),  # out 3 needs 7 too
        (6, 3, 2, 2, 1, 2),  # out 3 needs 2 * 2 + 5 = 9
        (6, 1, 3, 1, 0, 0),  # a stride longer than the kernel needs none
    ],
)
def test_same(size, kernel, stride, dilation, low, high):
    options = dict(stride=stride, dilation=dilation)
    upper = conv((1, 1, size), (1, 1, kernel), padding="same", **options)
    lower = conv((1, 1, size), (1, 1, kernel), padding="same_lower", **options)
    assert upper.out[2] == lower.out[2] == math.ceil(size / stride)
    assert (upper.pad_low[2], upper.pad_high[2]) == (low, high)
    assert (lower.pad_low[2], lower.pad_high[2]) == (high, low)


def test_full_makes_every_overlap():
    assert conv((1, 1, 4), (1, 1, 3), padding="full").out[2] == 4 + 3 - 1
    assert conv((1, 1, 4), (1, 1, 3), padding="full", stride=2).out[2] == 3


# -- transposed, columns -------------------------------------------------------------------------------------


def test_transposed_is_the_adjoint_problem():
    problem = transposed(
        (2, 6, 4, 5), (6, 2, 3, 3), 2, 1, 1, 2
    )  # stride 2, padding 1, output_padding 1, groups 2
    assert (problem.C, problem.K, problem.groups) == (4, 6, 2)
    assert problem.size == (1, 8, 10) and problem.out == (1, 4, 5)
    assert problem.x_shape == (2, 4, 8, 10) and problem.y_shape == (2, 6, 4, 5)
    forward = conv(problem.x_shape, (6, 2, 3, 3), stride=2, padding=1, groups=2)
    assert forward.y_shape == problem.y_shape and forward.weight_shape == problem.weight_shape
    assert forward.flops == problem.flops


def test_transposed_backward_finds_output_padding():
    dy = (2, 4, 8, 10)
    assert transposed((2, 6, 4, 5), (6, 2, 3, 3), 2, 1, 0, 2, dy_shape=dy) == transposed(
        (2, 6, 4, 5), (6, 2, 3, 3), 2, 1, 1, 2
    )


def test_columns():
    problem = ConvProblem.of_im2col(np.zeros((2, 3, 5, 6)), (2, 3), stride=(1, 2), padding=1)
    assert problem.out == (1, 6, 3) and problem.columns_shape == (2, 3 * 6, 18)
    back = ConvProblem.of_col2im(np.zeros(problem.columns_shape), (5, 6), (2, 3), stride=(1, 2), padding=1)
    assert (back.size, back.out, back.columns_shape) == (problem.size, problem.out, problem.columns_shape)
    assert ConvProblem.of_im2col(np.zeros((2, 3, 7)), 3).columns_shape == (2, 9, 5)
    assert ConvProblem.of_im2col(np.zeros((1, 1, 3, 3, 3)), 2).columns_shape == (1, 8, 8)
    assert ConvProblem.of_col2im(np.zeros((2, 9, 5)), (7,), 3).x_shape == (2, 3, 7)
    assert ConvProblem.of_col2im(np.zeros((2, 12, 9)), 4, 2).x_shape == (2, 3, 4, 4)  # an int: two axes


# -- pools ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, kernel, stride, padding, ceil_mode, out",
    [
        (4, 2, 2, 0, False, 2),
        (4, 2, 1, 0, False, 3),
        (5, 2, 2, 0, False, 2),
        (5, 2, 2, 0, True, 3),
        (5, 2, 3, 1, True, 2),  # a third window would start at 5, in the high padding
        (2, 2, 3, 1, True, 1),  # so would a second one here, at 3 - 1 = 2
        (3, 5, 3, 0, True, 1),  # one window, cut
        (4, 2, 2, 2, False, 4),  # padding beyond half the window: the outer windows hold nothing
        (4, 2, 1, (0, 5), False, 8),
        (4, 2, 1, (0, 5), True, 4),  # with ceil_mode none starts in the high padding
    ],
)
def test_pool_sizes(size, kernel, stride, padding, ceil_mode, out):
    padding = (padding,) if isinstance(padding, tuple) else padding
    assert pool((1, 1, size, size), kernel, stride, padding, 1, ceil_mode).out == (1, out, out)


def test_pool_windows_by_definition():
    """Every tap counted one by one."""
    for size, kernel, stride, dilation, low, high, ceil in itertools.product(
        (1, 4, 7), (1, 2, 3), (1, 2, 4), (1, 2), (0, 1, 4), (0, 2), (False, True)
    ):
        if size + low + high < dilation * (kernel - 1) + 1:
            continue
        options = dict(ndim=1, op="avg_pool1d")
        problem = pool((1, 1, size), kernel, stride, ((low, high),), dilation, ceil, **options)
        begin, valid, counted = problem.windows[2]
        assert len(begin) == len(valid) == len(counted) == problem.out[2]
        for o in range(problem.out[2]):
            taps = [o * stride - low + t * dilation for t in range(kernel)]
            inside = [i for i in taps if 0 <= i < size]
            assert valid[o] == len(inside)
            assert begin[o] == (inside[0] if inside else 0)
            assert counted[o] == sum(i < size + high for i in taps)
        assert all(w.dtype == np.int64 for w in (begin, valid, counted))
        assert problem.windows[0][0].tolist() == [0] and problem.windows[0][1].tolist() == [1]


def test_adaptive_windows_cover_the_plane():
    for size, out in itertools.product(range(1, 9), range(1, 11)):
        problem = PoolProblem.of_adaptive(np.zeros((1, size)), out, ndim=1, op="adaptive_avg_pool1d")
        begin, valid, counted = problem.windows[2]
        for o in range(out):
            assert begin[o] == math.floor(o * size / out)
            assert begin[o] + valid[o] == math.ceil((o + 1) * size / out)
        assert valid.max() <= problem.kernel[2]
        assert begin[0] == 0 and begin[-1] + valid[-1] == size and (counted == valid).all()


def test_adaptive_keeps_axes():
    x = np.zeros((2, 3, 5, 7))
    for size, out in [((None, 2), (5, 2)), (None, (5, 7)), ((1,), (1, 1)), (4, (4, 4)), ([3, None], (3, 7))]:
        assert PoolProblem.of_adaptive(x, size, ndim=2, op="adaptive_avg_pool2d").out[1:] == out


def test_long_window_tables_are_not_kept():
    """A pool over a long signal must not leave its table behind in the cache."""
    long, short = pool((1, 100_000), 1, ndim=1, op="max_pool1d"), pool((1, 100), 1, ndim=1, op="max_pool1d")
    assert long.windows is not long.windows
    assert short.windows is short.windows


# -- one problem, one object, one name -----------------------------------------------------------------------


def test_one_object_for_one_problem():
    a = conv((2, 3, 9, 9), (4, 3, 3, 3), [2, 2], np.int64(1), (1, 1))
    assert a is conv((2, 3, 9, 9), (4, 3, 3, 3), (2, 2), 1, [1, 1])
    same = conv((2, 3, 9, 9), (4, 3, 3, 3), 2, ((1, 1), (1, 1)), 1)  # said differently
    assert a == same and hash(a) == hash(same)
    assert a == conv((2, 3, 9, 9), (4, 3, 3, 3), 2, 1, op="conv2d_backward")
    assert a != conv((2, 3, 9, 9), (4, 3, 3, 3), 2, 1, bias=(4,))
    swapped = [np.zeros(shape, ">f4") for shape in ((2, 3, 9, 9), (4, 3, 3, 3))]
    assert a == ConvProblem.of(*swapped, None, 2, 1, ndim=2, op="conv2d") and a.dtype == np.dtype("=f4")


def test_true_is_not_one_after_one_was_seen():
    """1 == True == 1.0 share a hash: the cache must not let them in by the back door."""
    conv((1, 1, 5), (1, 1, 3), 1, (1,))
    pool((1, 5), 1, 1, ndim=1, op="max_pool1d")
    for stride, padding in [(True, 1), (1.0, 1), (1, (True,)), (1, (1.0,)), (1, ((1.0, 1.0),))]:
        with pytest.raises(TypeError):
            conv((1, 1, 5), (1, 1, 3), stride, padding)
    with pytest.raises(TypeError):
        pool((1, 5), 1.0, 1, ndim=1, op="max_pool1d")


@pytest.mark.parametrize(
    "problem, name",
    [
        (conv((8, 64, 56, 56), (64, 64, 3, 3), 1, 1), "conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32"),
        (conv((1, 4, 9), (4, 1, 5), 1, ((4, 0),), 1, 4), "conv1d:n1c4w9k4s5_st1p4-0d1g4_f32"),
        (
            conv((2, 3, 4, 5, 6), (1, 3, 1, 2, 3), (1, 2, 1), (0, 1, 1), (1, 1, 2)),
            "conv3d:n2c3d4h5w6k1t1r2s3_st1x2x1p0x1x1d1x1x2g1_f32",
        ),
        (
            conv((3, 5, 5), (2, 3, 3, 3), padding=1, padding_mode="reflect", activation="relu", bias=(2,)),
            "conv2d:c3h5w5k2r3s3_st1p1d1g1_f32_reflect_bias_relu",
        ),
        (
            transposed((2, 6, 4, 5), (6, 2, 3, 3), 2, 1, 1, 2),
            "conv_transpose2d:n2c6h4w5k4r3s3_st2p1op1d1g2_f32",
        ),
        (pool((8, 64, 56, 56), 3, 2, 1), "max_pool2d:n8c64h56w56r3s3_st2p1d1_f32"),
        (pool((1, 1, 6, 5), 2, 2, 0, 1, True), "max_pool2d:n1c1h6w5r2s2_st2p0d1_o3x3_f32"),
        (
            pool((1, 6), 2, op="avg_pool1d", ndim=1, count_include_pad=False, divisor_override=3),
            "avg_pool1d:c1w6s2_st2p0d1_f32_nopad_div3",
        ),
        (
            PoolProblem.of_adaptive(np.zeros((2, 3, 8, 8)), (1, None), ndim=2, op="adaptive_avg_pool2d"),
            "adaptive_avg_pool2d:n2c3h8w8_o1x8_f64",
        ),
    ],
)
def test_names(problem, name):
    assert problem.name == name


def test_names_differ_where_problems_do():
    seen = {}
    for stride, padding, dilation, groups, mode, activation, batched in itertools.product(
        (1, 2, (1, 2)),
        (0, 1, (0, 1), ((1, 0), (0, 0))),
        (1, (2, 1)),
        (1, 2),
        ("zeros", "reflect"),
        (None, "tanh"),
        (0, 1),
    ):
        x = (1, 4, 6, 6) if batched else (4, 6, 6)
        weight = (4, 4 // groups, 2, 2)
        problem = conv(x, weight, stride, padding, dilation, groups, padding_mode=mode, activation=activation)
        assert seen.setdefault(problem.name, problem) == problem
    assert len(seen) == len(set(seen.values()))


# -- against torch -------------------------------------------------------------------------------------------


def meta(*shape):
    torch = pytest.importorskip("torch")
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_sizes_agree_with_torch(ndim):
    F = pytest.importorskip("torch").nn.functional
    rng = np.random.default_rng(ndim)
    plane = (2, 4, *rng.integers(8, 12, ndim).tolist())
    checked = 0
    for _ in range(150):
        kernel, stride, dilation = (rng.integers(1, 4, ndim).tolist() for _ in range(3))
        padding = rng.integers(0, 3, ndim).tolist()
        weight = (6, 2, *kernel)
        y = getattr(F, f"conv{ndim}d")(meta(*plane), meta(*weight), None, stride, padding, dilation, 2)
        assert conv(plane, weight, stride, padding, dilation, 2).y_shape == tuple(y.shape)

        spare = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation)]
        weight = (4, 3, *kernel)
        padding = [min(p, d * (k - 1)) for p, d, k in zip(padding, dilation, kernel)]
        options = (stride, padding, spare, 2, dilation)
        y = getattr(F, f"conv_transpose{ndim}d")(meta(*plane), meta(*weight), None, *options)
        assert transposed(plane, weight, *options).x_shape == tuple(y.shape)

        padding = [min(p, k // 2) for p, k in zip(padding, kernel)]
        for ceil_mode in (False, True):
            y = getattr(F, f"max_pool{ndim}d")(meta(*plane), kernel, stride, padding, dilation, ceil_mode)
            options = dict(ndim=ndim, op=f"max_pool{ndim}d")
            assert pool(plane, kernel, stride, padding, dilation, ceil_mode, **options).y_shape == tuple(
                y.shape
            )
            y = getattr(F, f"avg_pool{ndim}d")(meta(*plane), kernel, stride, padding, ceil_mode)
            assert pool(plane, kernel, stride, padding, 1, ceil_mode, **options).y_shape == tuple(y.shape)
            checked += 1
    assert checked == 300


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_agrees_with_torch():
    F = pytest.importorskip("torch").nn.functional
    for size, kernel, dilation in itertools.product((5, 6, 9), (1, 2, 3, 4), (1, 2)):
        y = F.conv1d(meta(1, 1, size), meta(1, 1, kernel), padding="same", dilation=dilation)
        assert conv((1, 1, size), (1, 1, kernel), padding="same", dilation=dilation).y_shape == tuple(y.shape)


def test_columns_agree_with_torch():
    F = pytest.importorskip("torch").nn.functional
    y = F.unfold(meta(2, 3, 8, 9), (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 3))
    problem = ConvProblem.of_im2col(np.zeros((2, 3, 8, 9)), (3, 2), (1, 2), (1, 0), (2, 3))
    assert problem.columns_shape == tuple(y.shape)
