"""The model of the least possible time, against numbers worked out by hand."""

import pytest

from fastconv.bench import limits, peak, problems
from fastconv.bench.limits import copy_rate, direct, least, limit, multiply_adds, one_axis_count, winograd_count


def conv(name):
    return problems.parse(name).problem


@pytest.mark.parametrize(
    "name, expected",
    [
        # 5 outputs of 3 taps, the first and the last with one in the padding: 13 products an axis
        ("conv2d:n2c3h5w5k4r3s3_st1p1d1g1_f32", 2 * 4 * 3 * 13 * 13),
        ("conv2d:n2c3h5w5k4r3s3_st1p1d1g1_f32_reflect", 2 * 4 * 3 * 15 * 15),
        # taps at 0, 2, 4; outputs at -1, 1, 3 of 7: 2 + 3 + 2 products an axis
        ("conv2d:n1c4h7w7k6r3s3_st2p1d2g2_f32", 6 * 2 * 7 * 7),
        ("conv1d:n3c2w9k5s4_st1p0d1g1_f32", 3 * 5 * 2 * 6 * 4),
        # of the adjoint: 4 x 4 outputs of x's 2 x 2 taps, none of them in the padding
        ("conv_transpose2d:n1c3h4w4k5r2s2_st2p0d1g1_f32", 3 * 5 * 8 * 8),
    ],
)
def test_products_of_the_direct_sum(name, expected):
    assert direct(conv(name)) == expected


def test_transforms_as_in_the_kernel_and_the_literature():
    assert limits.to_points(6) == 12 and limits.to_outputs(6, 4) == 13  # operations in native/winograd.h
    # 8 points: of each of 3 pairs 2 + 2 for the even and odd parts and 2 to join them; 3 for 0 and infinity
    assert limits.to_points(8) == 3 * 6 + 2 * 3
    assert limits.to_outputs(8, 6) == 6 + 3 + 5 * 3 + 1
    assert limits.taps_to_points(6, 3) == 2 * (2 + 1 + 2) + 1
    assert limits.points_to_taps(6, 3) == 4 + 3 * 2 + 2
    assert limits.outputs_to_points(6, 4) == 2 * (1 + 1 + 2)


def test_winograd_by_hand():
    p = conv("conv2d:n1c2h8w8k5r3s3_st1p1d1g1_f32")  # 2 x 2 tiles of 4 x 4 outputs; 10 input rows
    source, results, weights = (10 * 2 + 4 * 6) * 12, 4 * (6 + 4) * 13, 10 * (3 + 6) * 11
    assert winograd_count(p, "forward", 6) == (4 * 36 * 10, 2 * source + 5 * results + weights)
    assert winograd_count(p, "backward_input", 6) == (4 * 36 * 10, 5 * source + 2 * results + weights)
    gradient = 5 * 4 * (4 + 6) * 8 + 10 * (6 + 3) * 12
    assert winograd_count(p, "backward_weight", 6) == (4 * 36 * 10, 2 * source + gradient)
    # 8 points: still 2 x 2 tiles, all short: of 5 x 5 outputs, without the last point; 14 input rows
    eight = 2 * (14 * 2 + 4 * 8) * 24 + 5 * 4 * (8 + 6) * 25 + 10 * (3 + 8) * 16
    assert winograd_count(p, "forward", 8) == (4 * 49 * 10, eight)


def test_gradients_of_the_weights_along_one_axis_by_hand():
    # 2 rows of tiles of 4; 3 taps across meet 7 + 8 + 7 of 8 columns
    p = conv("conv2d:n1c2h8w8k5r3s3_st1p1d1g1_f32")
    transforms = 2 * 2 * 8 * 12 + 5 * 2 * 8 * 8 + 10 * 3 * 12
    assert limits.line_count(p) == (2 * 6 * 10 * (7 + 8 + 7), transforms)
    # stride 2 of 5 taps: 3 taps in 2 phases, 4 outputs; no padding: every tap meets 4 columns
    p = conv("conv2d:n1c1h11w11k1r5s5_st2p0d1g1_f32")
    assert limits.line_count(p) == (6 * 2 * 5 * 4, 2 * 11 * 12 + 4 * 8 + 2 * 5 * 12)
    # along the width: 2 tiles of 4
    p = conv("conv1d:n3c2w8k5s3_st1p1d1g1_f32")
    assert limits.line_count(p) == (3 * 2 * 6 * 10, 3 * 2 * (2 * 12 + 5 * 8) + 10 * 12)


def test_winograd_along_one_axis_by_hand():
    # 3 taps down 10 rows: 3 tiles of 4, six points, each by 28 meetings of a column and a tap across
    p = conv("conv2d:n1c2h10w10k5r3s3_st1p1d1g1_f32")
    products, weights = 3 * 6 * 10 * 28, 10 * 3 * 11
    source, results = 3 * 10 * 12, 3 * 10 * 13
    family = "Winograd F(4,3) along one axis"
    assert one_axis_count(p, "forward", 1) == (products, 2 * source + 5 * results + weights, family)
    assert one_axis_count(p, "backward_input", 1) == (products, 5 * source + 2 * results + weights, family)
    # stride 2 across: phases of 2 taps and 1, tiles of 5; dx has as many maps of 8 columns
    p = conv("conv2d:n1c2h16w16k5r3s3_st2p1d1g1_f32")
    meetings, weights = 8 * 3 - 1, 10 * 2 * 3 * limits.taps_to_points(6, 2)
    outputs, family = limits.to_outputs(6, 5), "Winograd F(5,2) along one axis"
    transforms = 2 * 2 * 2 * 16 * 12 + 5 * 2 * 8 * outputs
    assert one_axis_count(p, "forward", 2) == (2 * 2 * 6 * 10 * meetings, transforms + weights, family)
    transforms = 5 * 2 * 2 * 8 * 12 + 2 * 2 * 2 * 16 * outputs
    assert one_axis_count(p, "backward_input", 2) == (2 * 2 * 6 * 10 * meetings, transforms + weights, family)


def test_strides_and_dilations_are_phases():
    # stride 2 of 5 taps: 3 taps in 4 phases, 8 channels; 2 x 2 tiles; dx has maps of 8 x 8 in 4 phases
    p = conv("conv2d:n1c2h16w16k5r5s5_st2p2d1g1_f32")
    products, weights = 4 * 36 * 8 * 5, 8 * 5 * (3 + 6) * 11
    source, results = (10 * 2 + 4 * 6) * 12, 4 * (6 + 4) * 13
    assert winograd_count(p, "forward", 6) == (products, 8 * source + 5 * results + weights)
    assert winograd_count(p, "backward_input", 6) == (products, 5 * source + 8 * results + weights)
    # padding of 1: phases of dx do not begin together, 9 rows hold them all; 3 x 3 tiles, all short
    p = conv("conv2d:n1c2h16w16k5r5s5_st2p1d1g1_f32")
    products, source, results = 9 * 25 * 8 * 5, (14 * 3 + 9 * 6) * 12, 9 * (6 + 4) * 13
    assert winograd_count(p, "backward_input", 6) == (products, 5 * source + 8 * results + weights)
    # dilation 2: 4 maps of 4 x 4, a tile each
    p = conv("conv2d:n1c2h8w8k5r3s3_st1p2d2g1_f32")
    source, results, weights = 4 * (6 + 6) * 12, 4 * (6 + 4) * 13, 10 * (3 + 6) * 11
    assert winograd_count(p, "forward", 6) == (4 * 36 * 10, 2 * source + 5 * results + weights)


@pytest.mark.parametrize(
    "name, family",
    [
        ("conv2d:n1c64h60w60k64r3s3_st1p1d1g1_f32", "Winograd F(6,3)"),
        ("conv2d:n8c64h12w12k64r3s3_st1p1d1g1_f32", "Winograd F(6,3)"),
        ("conv2d:n8c64h8w8k64r3s3_st1p1d1g1_f32", "Winograd F(4,3)"),  # six outputs would hang over
        ("conv2d:n1c64h60w60k64r4s4_st1p0d1g1_f32", "Winograd F(5,4)"),
        ("conv2d:n1c64h60w60k64r5s5_st1p2d1g1_f32", "Winograd F(4,5)"),
        ("conv2d:n1c64h60w60k64r3s3_st2p1d1g1_f32", "Winograd F(5,2)"),
        ("conv2d:n1c64h60w60k64r3s3_st1p1d1g1_f64", "direct sum"),
        ("conv2d:n1c64h60w60k64r1s1_st1p0d1g1_f32", "direct sum"),
        ("conv2d:n1c64h60w60k64r3s3_st1p1d1g64_f32", "direct sum"),
        ("conv3d:n1c64d4h60w60k64t3r3s3_st1p1d1g1_f32", "Winograd F(4,3) along one axis"),
        ("conv2d:n1c64h17w17k64r1s7_st1p0x3d1g1_f32", "Winograd F(2,7) along one axis"),
    ],
)
def test_the_family_that_needs_least(name, family):
    count, products, found = multiply_adds(problems.parse(name), "forward")
    assert found == family and 0 < count <= direct(conv(name))
    assert (0 < products < count) == (family.startswith("Winograd") and not family.endswith("axis"))


def test_a_transposed_convolution_is_the_adjoint_of_the_other():
    plain = problems.parse("conv2d:n2c8h12w12k16r4s4_st2p1d1g1_f32")
    turned = problems.parse("conv_transpose2d:n2c16h6w6k8r4s4_st2p1d1g1_f32")
    for direction, other in limits.TURNED.items():
        assert multiply_adds(plain, direction) == multiply_adds(turned, other)


CEILING = {"fma_gflops": 100.0, "tile_gflops": 50.0, "call_seconds": 1e-6, "copies": [[1e3, 10.0], [1e5, 20.0], [1e7, 5.0]]}


def test_the_rate_of_copying_is_that_of_the_next_smaller_size_or_better():
    copies = CEILING["copies"]
    assert copy_rate(copies, 1) == copy_rate(copies, 2e3) == 20  # small arrays may be held up by the call
    assert copy_rate(copies, 9e6) == 20 and copy_rate(copies, 1e7) == copy_rate(copies, 1e9) == 5


def test_the_longest_of_three_is_the_limit():
    result = {"least_flops": 2e9, "least_by": "direct sum", "bytes": 1e6}
    assert limit(result, CEILING) == (0.02, "direct sum")
    assert limit({**result, "least_tile_flops": 1e9}, CEILING) == (0.03, "direct sum")
    assert limit({**result, "least_flops": 0}, CEILING) == (1e6 / 20e9, "memory")
    assert limit({**result, "least_flops": 0, "bytes": 1}, CEILING) == (1e-6, "call")
    assert limit(result, None) is None and limit({"bytes": 1}, CEILING) is None
    assert limit(result, {"fma_gflops": 100.0}) is None  # of an older report


def test_what_other_operations_need():
    assert least(problems.parse("relu:3x5_f32"), "forward")["least_flops"] == 0
    assert least(problems.parse("linear:3x5x4_f32"), "backward")["least_flops"] == 4 * 60
    assert least(problems.parse("lenet5:n2_f32"), "forward") == {}


def test_the_better_of_two_measurements_counts():
    def entry(fma, tile, copy, copies, call):
        rates = {"fma_gflops": fma, "tile_gflops": tile, "copy_gbytes": copy}
        return {"dtype": "float32", **rates, "copies": copies, "call_seconds": call}

    first, second = entry(1, 5, 3, [[8, 1], [9, 4]], 7), entry(2, 4, 2, [[8, 2], [9, 3]], 6)
    assert peak.better(first, second) == entry(2, 5, 3, [[8, 2], [9, 4]], 6)
