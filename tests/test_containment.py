"""Non-finite values stay where they belong: for every algorithm, dtype and ISA level."""

import numpy as np
import pytest
from containment import Clean, Spoilt, bad_values
from promises import DTYPES, LEVELS, algorithms, ids

import fastconv as fc
from fastconv import testing
from fastconv._cpu import isa
from fastconv.testing.operations import Convolution

pytestmark = pytest.mark.usefixtures("one_thread")


CONTAINED = (
    Convolution(2, (2, 3, 9, 14), (5, 3, 3, 3), padding=1, bias=False),
    Convolution(2, (2, 3, 9, 14), (5, 3, 3, 3), bias=False),
    Convolution(2, (2, 3, 8, 9), (9, 3, 1, 1), bias=False),
    Convolution(2, (1, 4, 11, 13), (6, 2, 5, 5), padding=((2, 1), (0, 3)), groups=2),
    Convolution(2, (1, 4, 10, 11), (4, 1, 4, 4), padding=2, groups=4, bias=False),
    Convolution(2, (1, 3, 13, 12), (4, 3, 3, 3), stride=2, padding=1, bias=False),
    Convolution(2, (1, 3, 15, 14), (4, 3, 7, 7), stride=(2, 2), padding=3, bias=False),
    Convolution(2, (1, 2, 12, 13), (3, 2, 2, 2), stride=1, bias=False),
    Convolution(2, (1, 2, 12, 13), (3, 2, 7, 7), padding=3, bias=False),
    Convolution(2, (1, 2, 12, 13), (3, 2, 3, 3), dilation=2, padding=2, bias=False),
    Convolution(2, (1, 2, 9, 10), (3, 2, 3, 3), padding=2, padding_mode="circular", bias=False),
    Convolution(2, (1, 2, 9, 10), (3, 2, 3, 3), padding=2, padding_mode="reflect", bias=False),
    Convolution(1, (2, 3, 40), (5, 3, 4), stride=3, padding=1, bias=False),
    Convolution(3, (1, 2, 4, 5, 6), (3, 2, 3, 2, 2), padding=1, bias=False),
    # windows that see nothing but padding: in front of the input, behind it, on both sides of it at once
    Convolution(2, (2, 3, 5, 4), (4, 3, 1, 1), stride=(1, 3), padding=((2, 1), (1, 1)), bias=False),
    Convolution(2, (2, 4, 9, 10), (4, 2, 3, 3), padding=((4, 0), (0, 5)), groups=2, bias=False),
    Convolution(2, (2, 4, 9, 10), (4, 1, 3, 3), padding=(0, 4), groups=4, bias=False),
    Convolution(1, (2, 3, 1), (5, 3, 2), dilation=2, padding=3, bias=False),
    Convolution(1, (3, 2, 2), (4, 2, 2), stride=3, padding=4, bias=False),
)


@pytest.mark.parametrize("case", CONTAINED, ids=ids)
def test_non_finite_values_stay_where_they_belong(case):
    """Single bad values, and many at once: the untouched are right, the touched are IEEE arithmetic's."""
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        clean = Clean(case, dtype, rng)
        ways = [(bad, density) for bad in bad_values(dtype) for density in (0, 0, 0.04)]
        spoilt = [Spoilt(clean, rng, *way) for way in ways]
        for algorithm in algorithms(case):
            for level in LEVELS:
                for one in spoilt:
                    with isa.use(level):
                        one.check(algorithm, f"{level} {algorithm}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
def test_non_finite_values_stay_in_their_row_of_linear(level, dtype):
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((9, 21), (11, 21), (9, 11)))
    with isa.use(level):
        y, (dx, dweight, dbias) = fc.linear(x, w), fc.linear_backward(dy, x, w)
        for bad in bad_values(dtype):
            spoilt = x.copy()
            spoilt[3, 5] = bad
            rows, columns = np.arange(9) != 3, np.arange(21) != 5
            testing.same_bits(fc.linear(spoilt, w)[rows], y[rows])
            testing.same_bits(fc.linear_backward(dy, spoilt, w)[1][:, columns], dweight[:, columns])
            spoilt = dy.copy()
            spoilt[3, 5] = bad
            given = fc.linear_backward(spoilt, x, w)
            testing.same_bits(given[0][rows], dx[rows])
            outputs = np.arange(11) != 5
            testing.same_bits(given[1][outputs], dweight[outputs])
            testing.same_bits(given[2][outputs], dbias[outputs])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "algorithm", ["direct", "winograd1d", "winograd", "winograd8", "implicit_gemm", "im2col"]
)
def test_what_no_window_reads_takes_no_part_in_dweight(algorithm, level):
    """Rows and columns between strides, or left over behind the last window, may hold NaN."""
    rng = np.random.default_rng(0)
    for shape, kernel, options in (
        ((4, 4, 9, 20), (13, 5, 4), {"stride": (4, 3)}), ((1, 2, 30, 30), (3, 4, 4), {"stride": 3}),
        ((2, 2, 40, 41), (5, 3, 3), {"stride": 2}), ((2, 3, 20, 60), (4, 5, 5), {"stride": 3}),
        ((2, 2, 22, 36), (2, 7, 7), {"stride": 3}), ((1, 2, 12, 19), (8, 2, 2), {"stride": 3}),
        ((1, 3, 4, 4), (17, 3, 3), {"stride": 2, "padding": (0, 2), "padding_mode": "reflect"}),
        ((1, 3, 8, 9), (5, 4, 4), {"stride": 3, "padding": ((1, 0), (0, 0)), "padding_mode": "circular"}),
        ((2, 2, 6, 11), (5, 4, 4), {"stride": 3, "padding": ((0, 0), (1, 0)), "padding_mode": "replicate"}),
    ):  # fmt: skip
        weight = np.ones((kernel[0], shape[1], *kernel[1:]), np.float32)
        x = rng.standard_normal(shape, dtype=np.float32)
        dy = rng.standard_normal(fc.conv2d(x, weight, **options).shape, dtype=np.float32)
        read = fc.reference.conv2d_backward(np.ones_like(dy), x, weight, **options)[0] != 0
        assert not read.all()
        with isa.use(level):
            try:
                how = {**options, "output_mask": (False, True, False), "algorithm": algorithm}
                clean = fc.conv2d_backward(dy, np.where(read, x, np.float32(0)), weight, **how)[1]
                found = fc.conv2d_backward(dy, np.where(read, x, np.float32(np.nan)), weight, **how)[1]
            except fc.UnsupportedError:
                continue
            assert found.tobytes() == clean.tobytes()


@pytest.mark.parametrize("algorithm", fc.algorithms("conv2d_backward_weight"))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "width, taps, stride, unread", [(13, 5, 1, [1, 2, 4, 5, 7, 8, 10, 11]), (9, 2, 2, [1, 6, 8])]
)
def test_columns_between_far_taps_take_no_part_in_weights(algorithm, dtype, width, taps, stride, unread):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 2, 5, width)).astype(dtype), np.ones((4, 1, 2, taps), dtype)
    how = {"stride": (1, stride), "dilation": 3, "groups": 2, "algorithm": algorithm}
    how["output_mask"] = False, True, False
    x[..., unread] = np.nan
    dy = rng.standard_normal((1, 4, 2, (width - 3 * (taps - 1) - 1) // stride + 1)).astype(dtype)
    for level in isa.levels():
        with isa.use(level):
            try:
                dweight = fc.conv2d_backward(dy, x, weight, **how)[1]
            except fc.UnsupportedError:
                continue
            assert np.isfinite(dweight).all()
