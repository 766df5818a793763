"""What "auto" takes: the model of costs, its counts by hand, and how the choice is told."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv._cpu import choice, costs, isa, one_axis, views
from fastconv._cpu.algorithms import TABLES
from fastconv._problem import ConvProblem
from fastconv.bench import problems

DIRECTIONS = tuple(choice.DIRECTIONS.values())


def parsed(name):
    return problems.parse(name).problem


def arrays(name):
    problem = problems.parse(name)
    hidden = (problems.hidden(shape, problem.dtype) for shape in (problem.x_shape, problem.weight_shape))
    return tuple(hidden), problem.options


@pytest.mark.parametrize("table", choice.DIRECTIONS)
def test_every_algorithm_but_im2col_has_costs_of_steps_that_are_counted(table):
    direction, problem = choice.DIRECTIONS[table], parsed("conv2d:n2c6h9w9k6r3s3_st1p1d1g6_f32")
    priced = costs.COSTS[direction]
    assert {a.name for a in TABLES[table]} - {"im2col"} == set(priced) <= set(costs.COUNTS)
    for name, prices in priced.items():
        counted = costs.count(direction, name, problem, 1)
        assert prices.keys() <= counted.keys() and all(price > 0 for price in prices.values())
        assert costs.estimate(direction, name, problem) > 0


@pytest.mark.parametrize(
    "direction, algorithm, expected",
    [
        # 4 samples of 100 outputs are 25 vectors; 3 channels of 9 taps; a panel holds 8 of 10 filters
        ("forward", "implicit_gemm", {"multiply": 27 * 10 * 25, "panel": 27 * 2 * 25, "pack": 27 * 25}),
        # dx: 10 channels of 9 taps, 3 rows
        ("backward_input", "implicit_gemm", {"multiply": 90 * 3 * 25, "panel": 90 * 25, "weight": 90 * 3}),
        # 27 columns are 2 vectors, fewer than one of channels for each tap; 400 pixels are summed at once
        ("backward_weight", "implicit_gemm", {"multiply": 10 * 2 * 400, "update": 10 * 2, "turn": 0}),
        # 8 points: 2 rows of tiles a sample, of vectors that run over the ends of rows of 12; 3 channels by 3 taps
        (
            "backward_weight",
            "winograd1d",
            {"multiply": 4 * 80 * 9 * 2 * 0.75, "panel": 4 * 24 * 9 * 2 * 0.75, "output": 4 * 80 * 2},
        ),
        # vectors run over the ends of 10 rows of 10 and 2 reached by taps: 7.5 of them
        ("forward", "direct", {"multiply": 27 * 10 * 4 * 7.5, "put": 4 * 10 * 10, "brush": 0, "line": 0}),
        # 3 x 3 tiles a sample are 36, in 3 vectors, at 5 x 6 points; 12 of 4 rows, not of 3, in one vector, at 6 more
        ("forward", "winograd", {"multiply": (30 * 3 + 6) * 10 * 3, "input 4": 3 * 3, "output 4": 10 * 3}),
        # 10 channels to transform for 3: too few products to be worth it
        ("backward_input", "winograd", {"multiply": 36 * 3 * 10 * 3, "input 4": 10 * 3, "output 4": 3 * 3}),
    ],
)
def test_counts_by_hand(direction, algorithm, expected):
    counted = costs.count(direction, algorithm, parsed("conv2d:n1c3h10w10k10r3s3_st1p1d1g1_f32"), 4)
    assert {step: counted[step] for step in expected} == expected
    assert counted["call"] == 1 and counted["far"] == 0


def test_short_tiles_by_hand():
    # maps of 4 + 3 + 3 + 3 outputs: 2 samples have 6, 2, 6 and 18 tiles that are whole down, both ways, across, and
    # neither way; 2 vectors of them at 25 points, a vector at 5 + 5 + 1
    problem = parsed("conv2d:n1c256h13w13k384r3s3_st1p1d1g1_f32")
    counted = costs.count("forward", "winograd", problem, 2)
    assert counted["multiply"] == (25 * 2 + 11) * 256 * 384 and counted["panel"] == (25 * 2 + 11) * 256 * 384 / 8
    assert counted["input 4"] == 2 * 256 and counted["line"] == 2 * 4 * 2 * (256 + 384)
    # 4 + 3 outputs, of 6 + 5 points; filters are lanes, every tile counts
    counted = costs.count("forward", "winograd", parsed("conv2d:n1c512h7w7k512r3s3_st1p1d1g1_f32"), 1)
    assert counted["multiply"] == 11 * 11 * 512 * 32


def test_tiles_along_the_width_by_hand():
    # 8 points: 100 tiles a sample, in rows; 3 channels by 2 phases of the stride, of 3 taps each
    problem = parsed("conv1d:n1c3w1200k10s5_st2p2d1g1_f32")
    counted = costs.count("backward_weight", "winograd1d", problem, 2)
    assert counted["multiply"] == 2 * 8 * 10 * 6 * 100 / 16 and counted["output across"] == 2 * 8 * 10 * 7
    assert counted["input across"] == 2 * 8 * 6 * 7 and counted["output"] == counted["input"] == 0


def test_counts_along_one_axis_by_hand():
    # 6 points, 3 channels of 3 taps across: down, 3 rows of tiles, a vector of columns each
    problem = parsed("conv2d:n1c3h10w10k10r3s3_st1p1d1g1_f32")
    down, across = (one_axis.counts(problem, "forward", axis, 4) for axis in (1, 2))
    assert down["multiply"] == 4 * 6 * 9 * 10 * 3 and down["batch"] == 4 * 6 * 9 * 3 * 3
    assert down["input down"] == 4 * 3 * 3 and down["output down"] == 4 * 4 * 10 * 3
    # across, 30 tiles in 2 vectors; 2 more rows of inputs than of outputs, a vector of tiles each
    assert across["multiply"] == 4 * 6 * 9 * 10 * 2 and across["input across"] == 4 * 3 * 12
    # dx of stride 2: 4 phases of 5 x 5, each with 2 taps down; a vector of tiles of 5
    problem = parsed("conv2d:n1c20h10w10k3r3s3_st2p1d1g1_f32")
    strided = one_axis.counts(problem, "backward_input", 1, 1)
    assert strided["multiply"] == 6 * 3 * 3 * 2 * 20 and strided["phase"] == 3 and strided["strew"] == 20 * 100


def test_small_problems_are_not_computed_along_one_axis():
    shapes, options = arrays("conv2d:n9c3h8w8k4r3s3_st1p1d1g1_f32")
    for op in ("conv2d", "conv2d_backward_input"):
        plan = fc.plan(op, *shapes, **options)
        assert plan.algorithm in ("direct", "implicit_gemm") and "small problems" in plan.refused["winograd1d"]


def test_arrays_that_fit_no_cache_cost_more():
    problem = parsed("conv2d:n1c64h300w300k64r1s1_st1p0d1g1_f32")
    lines = 64 * 300 * 300 / 16
    counted = [costs.count(direction, "direct", problem, 1) for direction in DIRECTIONS]
    assert [c["far"] for c in counted] == [lines, lines, 2 * lines]
    assert [c["far written"] for c in counted] == [lines, lines, 0]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_auto_takes_what_costs_least_and_tells_how_much_the_others_cost(direction):
    name = "conv2d:n3c64h30w30k64r3s3_st1p1d1g1_f32"
    shapes, options = arrays(name)
    plan = fc.plan("conv2d" if direction == "forward" else f"conv2d_{direction}", *shapes, **options)
    estimates = {
        a: costs.estimate(direction, a, parsed(name)) for a in costs.COSTS[direction] if a != "depthwise"
    }
    assert plan.algorithm == choice.cheapest(estimates)
    ratio = estimates["implicit_gemm"] / estimates[plan.algorithm]
    told = f"would take {ratio:.2f} times as long as {plan.algorithm}, by estimate"
    assert plan.refused["implicit_gemm"] == told and plan.algorithm.startswith("winograd")
    assert "needs groups of one" in plan.refused["depthwise"]
    assert plan.refused["im2col"] == "is run only when named: it writes out the whole patch matrix"


def test_large_tiles_must_save_enough_for_the_accuracy_that_they_cost():
    assert choice.cheapest({"winograd8": 0.89, "winograd": 1.0, "direct": 1.1}) == "winograd8"
    assert choice.cheapest({"winograd8": 0.91, "winograd": 1.0, "direct": 1.1}) == "winograd"
    assert (
        choice.cheapest({"winograd8": 1.0, "direct": 1.1}) == "winograd8"
    )  # kernels that have no smaller tiles


def test_winograd_is_not_taken_for_strict_sums_nor_float64():
    name = "conv2d:n3c64h30w30k64r3s3_st1p1d1g1_f32"
    shapes, options = arrays(name)
    with fc.precision("strict"):
        strict = fc.plan("conv2d", *shapes, **options)
    assert "which precision 'strict' asks for" in strict.refused["winograd"]
    shapes, options = arrays(name.replace("f32", "f64"))
    double = fc.plan("conv2d", *shapes, **options)
    assert "for float64 asks for its accuracy" in double.refused["winograd"]
    assert {strict.algorithm, double.algorithm} <= {"direct", "implicit_gemm"}


def test_the_choice_does_not_depend_on_the_batch():
    for name in ("conv2d:n{}c20h14w14k24r3s3_st1p1d1g1_f32", "conv2d:n{}c3h64w64k9r5s5_st2p2d1g1_f32"):
        for table, direction in choice.DIRECTIONS.items():
            chosen = {TABLES.choose(table, parsed(name.format(n)), "auto").name for n in (1, 3, 64)}
            assert len(chosen) == 1, (name, direction)


def test_what_has_no_price_is_run_only_when_named(monkeypatch):
    prices = {name: price for name, price in costs.COSTS["forward"].items() if name != "direct"}
    monkeypatch.setitem(choice.COSTS, "forward", prices)
    judge = choice.suits("conv", "direct")
    assert "what it costs is not known" in judge(parsed("conv2d:n1c3h8w8k4r3s3_st1p1d1g1_f32"), "fast")


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 1, 1)])
def test_empty_and_single_pixels_have_estimates(shape):
    weight = np.ones((4, 3, 1, 1), np.float32)
    assert fc.plan("conv2d", np.ones(shape, np.float32), weight).algorithm in costs.COUNTS


@pytest.mark.parametrize("level", isa.levels())
def test_many_weights_for_few_positions(level):
    """The gradient of the input, or a transposed convolution, all taps at once and some samples at a time."""
    rng = np.random.default_rng(8)
    shapes = (130, 256, 2, 1), (256, 129, 4, 4), 129
    x, w, bias = (rng.integers(-4, 5, shape).astype(float) for shape in shapes)
    problem = ConvProblem.of_transpose(x, w, bias, 2, 1, ndim=2, op="conv_transpose2d")
    at_a_time, _ = views.spread(problem)
    assert 1 < at_a_time < 129
    assert views.spread(replace(problem, C=63)) is views.spread(replace(problem, stride=(1, 1, 1))) is None
    some = [0, at_a_time - 1, at_a_time, 128, 129]
    with isa.use(level):
        y = fc.conv_transpose2d(x, w, bias, 2, 1)
        assert (y[some] == fc.reference.conv_transpose2d(x[some], w, bias, 2, 1)).all()
        x[128, 3, 1, 0] = np.nan
        bad = np.isnan(fc.conv_transpose2d(x, w, bias, 2, 1))
        assert (bad[some] == np.isnan(fc.reference.conv_transpose2d(x[some], w, bias, 2, 1))).all()
        assert bad[128].any() and not np.delete(bad, 128, 0).any()
