"""Every compiled function against the reference: case x dtype x kind of inputs x ISA level x algorithm.

Cases come from `fastconv.testing.cases()` and nowhere else. Exact on integers, within the derived bound on
reals, NaN and infinities where the reference has them. Every input ends (or begins) at a page that must not
be touched, results and scratch start as NaN. The summary line of the run counts the cases.
"""

import itertools

import numpy as np
import pytest

import fastconv as fc
from fastconv import testing
from fastconv._cpu import conv, isa, tiles
from fastconv._problem import ConvProblem
from fastconv.testing import winograd, winograd1d, winograd1d_weight
from fastconv.testing.operations import Convolution, Transposed

LEVELS = isa.levels()
CASES = testing.cases()
SIDES = {"exact": "end", "real": "start", "special": "end"}  # where the forbidden page is


def ids(value):
    return value.name() if isinstance(value, testing.Case) else None


def algorithms(case):
    """The names that can be asked for in a case's calls, "auto" first."""
    if not isinstance(case, Convolution):
        return ("auto",)
    named = [name for direction in directions(case) for name in fc.algorithms(direction)]
    return ("auto", *dict.fromkeys(named))


def directions(case):
    return [direction.format(case.op) for direction in case.directions.values()]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_case(case, poison, tally):
    for dtype in testing.DTYPES:
        for kind in case.kinds:
            for level in LEVELS:
                for algorithm in algorithms(case):
                    threads = 2 if kind == "real" and algorithm == "auto" else 1  # all counts: test_same_bits
                    with isa.use(level), fc.num_threads(threads), np.errstate(all="raise"):
                        ratios = testing.check(
                            fc, case, dtype, kind, algorithm, place=lambda a: testing.guarded(a, SIDES[kind])
                        )
                    if ratios:
                        tally[level] += 1


@pytest.mark.parametrize("case", list(testing.short_tiles()), ids=ids)
def test_short_tiles(case, poison, monkeypatch):
    """Of Winograd's algorithm, wherever there can be any: with so few channels they would not be taken."""
    monkeypatch.setattr(conv, "short_of", tiles.most_short)
    conv._prepared.cache_clear()
    try:
        for dtype, kind, level, name in itertools.product(testing.DTYPES, case.kinds, LEVELS, winograd.TILES):
            with isa.use(level), np.errstate(all="raise"):
                testing.check(fc, case, dtype, kind, name, place=lambda a: testing.guarded(a, SIDES[kind]))
    finally:
        conv._prepared.cache_clear()


@pytest.mark.parametrize("tile", winograd.TILES.values())
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_bound_on_winograd_is_made_of_its_algorithm(mode, tile, monkeypatch):
    """With signed transforms instead of their absolute values, the magnitude is the convolution itself."""
    monkeypatch.setattr(winograd, "transforms", winograd.matrices)
    monkeypatch.setattr(winograd, "bound", lambda magnitude, length, dtype, tile: magnitude)
    rng = np.random.default_rng(0)
    for stride, kernel, padding, dilation in (
        (1, 2, 1, 1), (1, 3, ((0, 1), (2, 1)), 1), (1, 4, 0, 1), (1, 5, 4, 1), (2, 3, 1, 1),
        (2, 7, ((3, 2), (0, 3)), 1), ((1, 2), (5, 9), 2, 1), (3, 7, 5, 1), (4, 11, 2, 1),
        (1, 3, ((0, 1), (3, 2)), 2), (1, 4, 3, (1, 3)), (1, 2, 1, (5, 4)),
    ):  # fmt: skip
        x, bias = rng.random((2, 4, 14, 17)), rng.random(6)
        weight = rng.random((6, 2, *np.broadcast_to(kernel, 2)))
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=2, padding_mode=mode)
        y = fc.reference.conv2d(x, weight, bias, **options)
        dy = rng.random(y.shape)
        dx, dweight, _ = fc.reference.conv2d_backward(dy, x, weight, **options)
        problem = ConvProblem.of(x, weight, bias, **options, ndim=2, op="conv2d")
        rounding = testing.bound(1e6, 1000, np.float64)  # float64 through transforms; the sums are below 1e3
        how = problem, np.float64, tile
        testing.compare(winograd.forward(x, weight, bias, *how), y, rounding)
        testing.compare(winograd.backward_weight(dy, x, *how), dweight, rounding)
        if mode == "zeros":
            testing.compare(winograd.backward_input(dy, weight, None, *how), dx, rounding)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_bound_along_one_axis_is_made_of_its_algorithm(mode, monkeypatch):
    monkeypatch.setattr(winograd, "transforms", winograd.matrices)
    monkeypatch.setattr(testing.bounds, "bound", lambda magnitude, length, dtype: magnitude)
    rng = np.random.default_rng(0)
    for stride, kernel, padding, dilation in (
        (1, (1, 2, 1), 0, 1), (1, 3, ((0, 1), (2, 1), (1, 1)), (2, 1, 3)), ((2, 1, 3), (2, 4, 3), 1, 1),
        (1, (1, 5, 2), 1, 1), ((1, 2, 1), (1, 9, 1), (0, 3, 0), 1), (1, (1, 6, 1), 0, 1),
        ((1, 3, 2), (1, 19, 2), (0, 8, 0), 1),
        (1, (1, 1, 3), (0, 0, 1), 1), (1, (2, 3, 2), 1, (1, 2, 1)), ((1, 1, 2), (2, 8, 5), (0, 3, 2), 1),
    ):  # fmt: skip
        x, weight = rng.random((2, 4, 5, 18, 9)), rng.random((6, 2, *np.broadcast_to(kernel, 3)))
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=2, padding_mode=mode)
        dy = rng.random(fc.reference.conv3d(x, weight, **options).shape)
        dweight = fc.reference.conv3d_backward(dy, x, weight, **options)[1]
        problem = ConvProblem.of(x, weight, **options, ndim=3, op="conv3d")
        rounding = np.full(weight.shape, 1e-9)
        testing.compare(winograd1d_weight.backward_weight(dy, x, problem, np.float64), dweight, rounding)


@pytest.mark.parametrize("taps", range(2, 8))
def test_a_wrong_tap_is_beyond_the_bound_along_one_axis(taps):
    """Of a gradient that is 0.1 % wrong."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 20, 20)), np.zeros((4, 3, taps, 3))
    dy = rng.standard_normal((2, 4, 21 - taps, 18))
    problem = ConvProblem.of(x, weight, ndim=2, op="conv2d")
    dweight = fc.reference.conv2d_backward(dy, x, weight)[1]
    limit = winograd1d_weight.backward_weight(dy, x, problem, np.float32)
    ones = np.abs(dweight).max() / 1000
    assert (limit < ones).all()


@pytest.mark.parametrize(("tile", "fault"), [(6, 0.001), (8, 0.005), (6, 1.0), (8, 1.0)])
def test_the_bound_on_winograd_shows_faults(tile, fault):
    """A weight that is 0.1 % (0.5 %) wrong, or missing, is beyond the bound."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 8, 12, 12)), rng.standard_normal((3, 8, 3, 3))
    problem = ConvProblem.of(x, weight, ndim=2, op="conv2d")
    wrong = weight.copy()
    wrong[1, 2, 0, 1] *= 1 - fault
    limit = winograd.forward(x, weight, None, problem, np.float32, tile)
    assert testing.worst(fc.reference.conv2d(x, wrong), fc.reference.conv2d(x, weight), limit) > 1


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_bound_on_winograd_along_one_axis_is_made_of_its_algorithm(mode, monkeypatch):
    monkeypatch.setattr(winograd1d, "transforms", winograd.matrices)
    monkeypatch.setattr(winograd1d.bounds, "bound", lambda magnitude, length, dtype: magnitude)
    rng, rounding = np.random.default_rng(0), testing.bound(1e6, 1000, np.float64)
    for size, kernel, stride, padding, dilation in (
        ((19,), 2, 1, 1, 1), ((30,), 7, 1, 3, 1), ((30,), 7, 3, 2, 1), ((14, 17), 3, 1, ((0, 1), (2, 1)), 1),
        ((14, 17), 5, 2, 2, 1), ((14, 17), (7, 1), 1, 3, 1), ((14, 17), (1, 6), 1, 2, 1), ((14, 17), (4, 9), (1, 2), 3, 1),
        ((14, 17), (3, 3), 1, 1, (1, 2)), ((14, 17), (2, 5), 1, 1, (3, 1)), ((14, 17), (3, 11), (3, 4), 2, 1),
        ((5, 8, 9), 3, (2, 1, 1), 1, (1, 1, 2)), ((5, 8, 9), (2, 7, 3), (1, 2, 3), 2, (2, 1, 1)),
    ):  # fmt: skip
        ndim = len(size)
        x, weight, bias = rng.random((2, 4, *size)), rng.random((6, 2, *np.broadcast_to(kernel, ndim))), rng.random(6)
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=2, padding_mode=mode)
        y = getattr(fc.reference, f"conv{ndim}d")(x, weight, bias, **options)
        dy = rng.random(y.shape)
        dx = getattr(fc.reference, f"conv{ndim}d_backward")(dy, x, weight, **options)[0]
        problem = ConvProblem.of(x, weight, bias, **options, ndim=ndim, op=f"conv{ndim}d")
        testing.compare(winograd1d.forward(x, weight, bias, problem, np.float64), y, rounding)
        if mode == "zeros":
            testing.compare(winograd1d.backward_input(dy, weight, None, problem, np.float64), dx, rounding)


@pytest.mark.parametrize("fault", [0.001, 1.0])
def test_the_bound_on_winograd_along_one_axis_shows_faults_and_is_below_that_of_two(fault):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 8, 12, 12)), rng.standard_normal((3, 8, 3, 3))
    problem = ConvProblem.of(x, weight, ndim=2, op="conv2d")
    wrong = weight.copy()
    wrong[1, 2, 0, 1] *= 1 - fault
    limit = winograd1d.forward(x, weight, None, problem, np.float32)
    assert testing.worst(fc.reference.conv2d(x, wrong), fc.reference.conv2d(x, weight), limit) > 1
    assert (limit < winograd.forward(x, weight, None, problem, np.float32, 6)).all()


@pytest.mark.parametrize("level", LEVELS)
def test_gradients(level):
    with isa.use(level):
        for op, f, x, dy in testing.gradients(fc):
            report = fc.check_gradient(f, x, dy)
            assert report.ok, (op, report)


CONVOLUTIONS = [case for case in CASES if isinstance(case, (Convolution, Transposed))]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=ids)
def test_a_refusal_has_a_reason(case):
    """A named algorithm runs or raises UnsupportedError with the reason that plan() tells."""
    for dtype in testing.DTYPES:
        hidden = testing.operations.hidden
        bias = hidden(case.channels, dtype) if case.bias else None
        arrays = hidden(case.x, dtype), hidden(case.weight, dtype), bias
        for direction in directions(case):
            plan = fc.plan(direction, *arrays, **case.options)
            names = fc.algorithms(direction)
            assert plan.refused.keys() >= set(names[: names.index(plan.algorithm)])
            assert plan.algorithm not in plan.refused
            assert all(isinstance(reason, str) and reason for reason in plan.refused.values())
            if isinstance(case, Transposed):
                continue
            for name in names:
                try:
                    named = fc.plan(direction, *arrays, **case.options, algorithm=name)
                except fc.UnsupportedError as refusal:
                    assert plan.refused[name] in str(refusal) and name in str(refusal)
                else:
                    assert named.algorithm == name
